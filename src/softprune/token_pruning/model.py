"""A classifier with its pruning rule: saved, loaded, applied to texts and to rows of a file. Layers count from 0.

Its folder is that of a transformers model with `tokens.json` beside it: the rule, the convention, the input length.
transformers reads the folder too, and then prunes nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from softprune.config.registry import unknown
from softprune.data.row_files import Located
from softprune.errors import SoftpruneError
from softprune.models.batching import scoring_batches
from softprune.models.fingerprint import fingerprint, same_backbone
from softprune.models.load_errors import quiet
from softprune.models.loading import resolve_device, resolve_dtype
from softprune.models.tokenization import check_rows
from softprune.token_pruning.families import Encoder, most_positions
from softprune.token_pruning.forward import ForwardOutput, Predictions, evaluate, forward
from softprune.token_pruning.loading import (
    DOCUMENT,
    BaseWeights,
    check_head,
    describe_encoder,
    load_classifier,
    load_tokenizer,
    make_rule,
    model_folder,
    read_document,
    replace_surrogates,
    write_document,
)
from softprune.token_pruning.packing import pack
from softprune.token_pruning.rules import Convention, ForcedTokens, KeepAll, Rule
from softprune.training.loop import check_finite

MODELS = "models"
"""The folder in a run's for the models that it leaves."""


CHUNK = 2_048
"""Rows that are read, sorted by length and classified together."""
ADDED = ("prediction", "probability", "tokens", "kept")
ADDED_WIDE = (*ADDED, "probabilities", "kept_words")
_FIRST = ("text", "sentence", "content", "review")
"""Columns that may hold the text where none is named."""


@dataclass(frozen=True, slots=True)
class TokenTrace:
    """What became of the tokens of one text."""

    text: str  # as it was read; the whole of it, untruncated
    offsets: tuple[tuple[int, int], ...]  # per token, where its characters are in `text`; (0, 0) for special tokens
    special: tuple[bool, ...]  # per token, whether the tokenizer put it there
    # per token, the layer after whose attention it was dropped; `layers` if the last layer's attention read it
    left: tuple[int, ...]
    layers: int
    predicted: int  # place of the class with the highest probability
    probabilities: tuple[float, ...]  # per class
    gold: int | None = None  # place of the true class, where it is known
    cut: int = 0  # tokens that truncation took away; they aren't in `offsets`
    # mean of the last hidden states of the kept tokens that aren't special, [H]; empty unless asked for
    state: tuple[float, ...] = ()

    def alive(self) -> tuple[int, ...]:
        """Per layer, how many tokens are left after its pruning, special ones too."""
        alive = []
        for layer in range(self.layers):
            alive.append(sum(left > layer for left in self.left))
        return tuple(alive)


@dataclass(frozen=True, slots=True)
class TokenModel:
    """A sequence classifier that drops input tokens."""

    name: str  # what it was loaded as
    encoder: Encoder  # the model, in eval mode
    tokenizer: Any  # a fast one
    rule: Rule
    convention: Convention
    max_length: int  # longest text in tokens; the rest is cut off
    base: str = ""  # the model that it was made of

    @classmethod
    def load(cls, folder: str | Path, *, dtype: str = "auto", device: str = "auto") -> TokenModel:
        """A saved model, or the one that a run chose; a classifier without `tokens.json` drops nothing.

        Raises:
            SoftpruneError: it isn't whole, its base has other weights now, or its head is no single-label classifier.
        """
        folder = model_folder(folder)
        document = read_document(Path(folder))
        weights = None if document is None else document.weights
        described = describe_encoder(folder if weights is None else weights.base)
        if weights is None:  # a base may have had any head: the fingerprint is of the one that was trained
            check_head(described)
        place = resolve_device(device)
        labels = _label_names(described.config)
        model = load_classifier(described, labels, place, resolve_dtype(dtype, place), seed=0).eval()
        if weights is not None and not same_backbone(weights.fingerprint, fingerprint(model)):
            raise SoftpruneError(
                f"the weights of {weights.base} that {folder} was made with",
                "other weights under that name",
                "bring that version back, or train again",
            )
        encoder, tokenizer = Encoder(model), load_tokenizer(described)
        longest = most_positions(described.config)
        if document is None:
            return cls(folder, encoder, tokenizer, KeepAll(), Convention(), min(longest, 512), described.name)
        rule, convention = make_rule(document, len(encoder.layers))
        longest = min(document.max_length, longest)
        return cls(folder, encoder, tokenizer, rule, convention, longest, document.base)

    def save(self, folder: str | Path, *, weights: bool = True) -> None:
        """Write it as a whole, or not at all, in place of an older model; a folder of anything else is refused.

        Args:
            weights: False writes the base's name and fingerprint instead, which must be those of these very weights.
        """
        folder = Path(folder).resolve()
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / DOCUMENT).exists()):
            found = f"{folder} holds something else"
            raise SoftpruneError("a new folder, or that of a pruned model", found, "choose another folder")
        base = None if weights else BaseWeights(base=self.base, fingerprint=fingerprint(self.encoder.model))
        temporary = folder.with_name(f".{folder.name}.tmp")  # beside it: a rename works within one file system only
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            if weights:
                with quiet():
                    self.encoder.model.save_pretrained(temporary)
                    self.tokenizer.save_pretrained(temporary)
            write_document(temporary, self.base, base, self.max_length, self.convention, self.rule)
            shutil.rmtree(folder, ignore_errors=True)
            temporary.replace(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        return _label_names(self.encoder.config)

    def unpruned(self) -> TokenModel:
        """The same weights, dropping nothing."""
        return replace(self, rule=KeepAll())

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids with special tokens, cut at `max_length`."""
        if not texts:  # tokenizers refuse an empty list
            return []
        ids: list[list[int]] = self._tokenise(replace_surrogates(texts))["input_ids"]
        return ids

    def predict(self, texts: Sequence[str]) -> list[list[float]]:
        """Probabilities of the classes, per text."""
        answers = self.evaluate(self.encode(_check_not_empty(texts)), head_only=True)
        probabilities: list[list[float]] = torch.from_numpy(answers.logits_NC).softmax(-1).tolist()
        return probabilities

    def evaluate(self, ids: Sequence[Sequence[int]], *, rows: int = 64, head_only: bool = False) -> Predictions:
        """What it predicts for texts as `encode` gives them; arguments as of `forward.evaluate`."""
        model, compute = (self.encoder, ids, self.rule, self.convention), self.encoder.dtype
        return evaluate(*model, compute=compute, rows=rows, head_only=head_only)

    def trace(
        self,
        texts: Sequence[str],
        golds: Sequence[int | None] | None = None,
        *,
        states: bool = False,
        forced_out: Sequence[Collection[int]] | None = None,
        where: Sequence[str] | None = None,
    ) -> list[TokenTrace]:
        """What became of every token of some texts, none of them empty.

        A token that the last layer's attention reads counts as kept to the end: removing it later changes no logit.

        Args:
            golds: the true class of each text.
            states: whether to fill `TokenTrace.state`.
            forced_out: per text, positions of tokens that must leave after the first layer that prunes.
            where: names of the texts in messages.
        """
        if not texts:
            return []
        cleaned = replace_surrogates(_check_not_empty(texts))
        encoded = self._tokenise(cleaned, where, return_offsets_mapping=True, return_special_tokens_mask=True)
        whole = self.tokenizer(cleaned, verbose=False)["input_ids"]  # untruncated: how much was cut off
        ids = encoded["input_ids"]
        traces: dict[int, TokenTrace] = {}
        for indices, output in self._run_batches(ids, forced_out):
            specials = [encoded["special_tokens_mask"][i] for i in indices]
            left = output.left_M.split(list(map(len, specials)))
            means = _mean_states(output, specials) if states else [()] * len(indices)
            for at, i in enumerate(indices):
                probabilities = output.logits_BC[at].float().softmax(-1)
                traces[i] = TokenTrace(
                    text=texts[i],
                    offsets=tuple(map(tuple, encoded["offset_mapping"][i])),
                    special=tuple(map(bool, specials[at])),
                    left=tuple(left[at].tolist()),
                    layers=len(self.encoder.layers),
                    predicted=int(probabilities.argmax()),
                    probabilities=tuple(probabilities.tolist()),
                    gold=None if golds is None else golds[i],
                    cut=len(whole[i]) - len(ids[i]),
                    state=means[at],
                )
        return [traces[i] for i in range(len(texts))]

    def _run_batches(
        self, ids: Sequence[Sequence[int]], forced_out: Sequence[Collection[int]] | None
    ) -> Iterator[tuple[tuple[int, ...], ForwardOutput]]:
        """Run texts of similar length together: the texts of each batch, as indices, and its output."""
        self.encoder.model.eval()
        for indices in scoring_batches(tuple(map(len, ids)), 64):
            rule = self.rule
            if forced_out is not None:
                rule = ForcedTokens(rule, tuple(frozenset(forced_out[i]) for i in indices))
            batch = pack([ids[i] for i in indices], self.encoder.device)
            with torch.inference_mode():
                output = forward(self.encoder, batch, rule, self.convention, keep_in_last=True)
            yield indices, output

    def _tokenise(self, texts: Sequence[str], where: Sequence[str] | None = None, **options: bool) -> Any:
        """What the tokenizer makes of texts, cut at `max_length`; a token without an embedding is refused."""
        encoded = self.tokenizer(texts, truncation=True, max_length=self.max_length, **options)
        rows = self.encoder.model.get_input_embeddings().weight.shape[0]
        for i, ids in enumerate(encoded["input_ids"]):
            check_rows(self.tokenizer, ids, rows, f"text {i + 1}" if where is None else where[i])
        return encoded


def _mean_states(output: ForwardOutput, specials: Sequence[Sequence[int]]) -> list[tuple[float, ...]]:
    """Per text, the mean last state of its kept tokens that aren't special; of all kept ones where there are none."""
    special_M = torch.tensor(list(chain.from_iterable(specials)), device=output.origin_M.device).bool()
    means, kept = [], output.kept_LB[-1]
    for state_NH, special_N in zip(output.state_MH.split(kept), special_M[output.origin_M].split(kept), strict=True):
        if not bool(special_N.all()):
            state_NH = state_NH[~special_N]
        means.append(tuple(state_NH.float().mean(0).tolist()))
    return means


def _check_not_empty(texts: Sequence[str]) -> Sequence[str]:
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise SoftpruneError("a text to read", f"an empty one (number {number})", "leave it out")
    return texts


def _label_names(config: Any) -> tuple[str, ...]:
    return tuple(str(config.id2label.get(i, f"LABEL_{i}")) for i in range(config.num_labels))


def predict_rows(
    model: TokenModel, rows: Iterable[Located], column: str | None = None, *, wide: bool
) -> Iterator[dict[str, Any]]:
    """Rows with their predictions, in their order, read as they are needed; a row without a text is refused.

    `column` holds the text; None for `text` or the like, or the only column. `kept` counts the tokens that the last
    layer read, special ones too; `wide` adds the columns that only JSON lines hold well.
    """
    remaining = iter(rows)
    while chunk := list(islice(remaining, CHUNK)):
        if column is None:
            first = chunk[0]
            names = [name for name in _FIRST if name in first.row] or list(first.row)
            if len(names) > 1 and names[0] != "text":
                found = f"{', '.join(names)} in {first.where}"
                raise SoftpruneError("the column of the text", found, f"add --text {names[0]}")
            column = names[0]
        texts = [_read_text(located, column) for located in chunk]
        for located, trace in zip(chunk, model.trace(texts, where=[each.where for each in chunk]), strict=True):
            do = "the model overflows in this dtype: use --dtype float32, or another model"
            check_finite(trace.probabilities[:1], [located.where], "probability", "", do)  # softmax: one NaN is all
            probability, tokens = trace.probabilities[trace.predicted], len(trace.left)
            values: list[Any] = [model.labels[trace.predicted], probability, tokens, trace.alive()[-1]]
            if wide:
                words = []
                for (begin, end), left, special in zip(trace.offsets, trace.left, trace.special, strict=True):
                    if left >= trace.layers and not special:
                        words.append(trace.text[begin:end])
                values += [dict(zip(model.labels, trace.probabilities, strict=True)), words]
            yield {**located.row, **dict(zip(ADDED_WIDE, values, strict=False))}


def _read_text(located: Located, column: str) -> str:
    row, where = located.row, located.where
    if column not in row:
        do = unknown("column", column, row).do
        raise SoftpruneError(f'a column "{column}" in {where}', f"its columns are {', '.join(row)}", do)
    text = row[column]
    if not isinstance(text, str) or not text.strip():
        found = f"{text!r:.40} in {where}"
        raise SoftpruneError(f"text in {column}", found, "fix that row, or leave it out")
    return text
