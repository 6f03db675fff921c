"""A classifier with its pruning rule: saved, loaded, and read from text.

A folder of it is a transformers model (config.json, model.safetensors, tokenizer) with `tokens.json` beside it: the
rule, the convention, the input length. Instead of weights it may name the model that they are (`base`) and its
fingerprint. transformers reads the folder too, and then prunes nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from softprune.errors import SoftpruneError
from softprune.models.batching import scoring_batches
from softprune.models.fingerprint import fingerprint, same_backbone
from softprune.models.loading import resolve_device, resolve_dtype
from softprune.models.tokenization import check_rows
from softprune.token_pruning.families import Anatomy
from softprune.token_pruning.forward import Pass, hard_pass
from softprune.token_pruning.loading import (
    check_head,
    describe_encoder,
    load_classifier,
    load_tokenizer,
    quiet,
    readable,
)
from softprune.token_pruning.model_metadata import (
    DOCUMENT,
    Document,
    Mark,
    document_of,
    model_folder,
    read_document,
    rule_of,
    write_document,
)
from softprune.token_pruning.packing import pack
from softprune.token_pruning.rule_overrides import BeforeLast, forced_rule
from softprune.token_pruning.rules import Convention, Everything, Rule
from softprune.token_pruning.token_trace import TokenReading


@dataclass(frozen=True, slots=True)
class TokenModel:
    """A sequence classifier that drops tokens.

    Attributes:
        name: what it was loaded as.
        anatomy: the model, in eval mode.
        tokenizer: a fast one.
        rule: who stays.
        convention: how importance is counted and who is protected.
        max_length: tokens of a text at most; the rest is cut off.
        base: the model that it was made of.
    """

    name: str
    anatomy: Anatomy
    tokenizer: Any
    rule: Rule
    convention: Convention
    max_length: int
    base: str = ""

    @classmethod
    def load(cls, folder: str | Path, *, dtype: str = "auto", device: str = "auto") -> TokenModel:
        """A saved model, or the one that a run chose; of a classifier without `tokens.json`, one that drops nothing.

        Raises:
            SoftpruneError: it isn't whole, its base is another model now, or its head is no single-label classifier.
        """
        folder = model_folder(folder)
        document = read_document(Path(folder))
        mark = None if document is None else document.weights
        described = describe_encoder(folder if mark is None else mark.base)
        if mark is None:  # the base of a run may have had any head: the fingerprint is of the one that was trained
            check_head(described)
        place = resolve_device(device)
        labels = _labels(described.config)
        model = load_classifier(described, labels, place, resolve_dtype(dtype, place), seed=0).eval()
        if mark is not None and not same_backbone(mark.fingerprint, fingerprint(model)):
            raise SoftpruneError(
                f"the weights of {mark.base} that {folder} was made with",
                "other weights under that name",
                "bring that version back, or train again",
            )
        anatomy, tokenizer = Anatomy(model), load_tokenizer(described)
        if document is None:
            longest = min(described.positions, 512)
            return cls(folder, anatomy, tokenizer, Everything(), Convention(), longest, described.name)
        rule, longest = rule_of(document, len(anatomy.layers)), min(document.max_length, described.positions)
        return cls(folder, anatomy, tokenizer, rule, document.convention, longest, document.base)

    def save(self, folder: str | Path, *, weights: bool = True) -> None:
        """Write it as a whole, or not at all.

        Args:
            folder: is made; an older one of a model gives way.
            weights: False writes the base's name and fingerprint instead, which must be those of these very weights.

        Raises:
            SoftpruneError: something else is in the folder.
        """
        folder = Path(folder).resolve()
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / DOCUMENT).exists()):
            found = f"{folder} holds something else"
            raise SoftpruneError("a new folder, or that of a pruned model", found, "choose another folder")
        made = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        try:
            if weights:
                with quiet():
                    self.anatomy.model.save_pretrained(made)
                    self.tokenizer.save_pretrained(made)
            mark = None if weights else Mark(self.base, fingerprint(self.anatomy.model))
            rule = document_of(self.rule)
            write_document(made, Document(self.base, mark, self.max_length, self.convention, rule))
            shutil.rmtree(folder, ignore_errors=True)
            made.replace(folder)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        return _labels(self.anatomy.config)

    @property
    def layers(self) -> int:
        """L."""
        return len(self.anatomy.layers)

    def unpruned(self) -> TokenModel:
        """The same weights, dropping nothing."""
        return replace(self, rule=Everything())

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids with special tokens, cut at `max_length`."""
        if not texts:  # which tokenizers don't take
            return []
        ids: list[list[int]] = self.tokenizer(readable(texts), truncation=True, max_length=self.max_length)["input_ids"]
        self._check_rows(ids)
        return ids

    def _check_rows(self, ids: Sequence[Sequence[int]], where: Sequence[str] | None = None) -> None:
        """Check that every token id has an embedding; `where` names the texts."""
        rows = self.anatomy.model.get_input_embeddings().weight.shape[0]
        for number, each in enumerate(ids):
            check_rows(self.tokenizer, each, rows, f"text {number + 1}" if where is None else where[number])

    def passes(
        self, ids: Sequence[Sequence[int]], rows: int = 64, *, head_only: bool = False
    ) -> Iterator[tuple[tuple[int, ...], Pass]]:
        """Texts of similar length together: their places, and what reading them gave."""
        self.anatomy.model.eval()
        for indices in scoring_batches(tuple(map(len, ids)), rows):
            with torch.inference_mode():
                packed = pack([ids[i] for i in indices], self.anatomy.device)
                yield indices, hard_pass(self.anatomy, packed, self.rule, self.convention, head_only=head_only)

    def predict(self, texts: Sequence[str]) -> list[list[float]]:
        """Probabilities of the classes, per text."""
        ids = self.encode(_filled(texts))
        found: list[list[float]] = [[] for _ in ids]
        for indices, read in self.passes(ids, head_only=True):
            for i, row in zip(indices, read.logits_BC.float().softmax(-1).tolist(), strict=True):
                found[i] = row
        return found

    def read(
        self,
        texts: Sequence[str],
        golds: Sequence[int | None] | None = None,
        *,
        states: bool = False,
        forced_out: Sequence[Collection[int]] | None = None,
        forced_in: Sequence[Collection[int]] | None = None,
        where: Sequence[str] | None = None,
    ) -> list[TokenReading]:
        """What became of every token of some texts; see `softprune.token_pruning.token_trace.TokenReader`.

        A token that the last layer's attention reads was kept to the end: pruning behind it changes no logit.
        """
        if not texts:
            return []
        encoded = self.tokenizer(
            readable(_filled(texts)),
            truncation=True,
            max_length=self.max_length,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )
        whole = self.tokenizer(readable(texts), verbose=False)["input_ids"]
        ids = encoded["input_ids"]
        self._check_rows(ids, where)
        found: list[TokenReading | None] = [None] * len(ids)
        for indices in scoring_batches(tuple(map(len, ids)), 64):
            forced = BeforeLast(forced_rule(self.rule, indices, forced_out, forced_in), self.layers)
            with torch.inference_mode():
                packed = pack([ids[i] for i in indices], self.anatomy.device)
                read = hard_pass(self.anatomy, packed, forced, self.convention)
            left = read.left_M.split(packed.lengths)
            specials = [encoded["special_tokens_mask"][i] for i in indices]
            means = _mean_states(read, packed.row_M, specials) if states else [()] * len(indices)
            for at, i in enumerate(indices):
                probabilities = read.logits_BC[at].float().softmax(-1)
                found[i] = TokenReading(
                    text=texts[i],
                    offsets=tuple(map(tuple, encoded["offset_mapping"][i])),
                    special=tuple(map(bool, specials[at])),
                    left=tuple(left[at].tolist()),
                    layers=self.layers,
                    predicted=int(probabilities.argmax()),
                    probabilities=tuple(probabilities.tolist()),
                    gold=None if golds is None else golds[i],
                    cut=len(whole[i]) - len(ids[i]),
                    state=means[at],
                )
        return [reading for reading in found if reading is not None]


def _mean_states(read: Pass, row_M: torch.Tensor, specials: Sequence[Sequence[int]]) -> list[tuple[float, ...]]:
    """Per text, the mean last state of its kept tokens that aren't special; of all kept ones where there are none."""
    special_M = torch.tensor([bool(s) for text in specials for s in text], device=row_M.device)
    found = []
    for row in range(len(specials)):
        mine = row_M[read.origin_M] == row
        words = mine & ~special_M[read.origin_M]
        states = read.state_MH[words if bool(words.any()) else mine]
        found.append(tuple(states.float().mean(0).tolist()))
    return found


def _filled(texts: Sequence[str]) -> Sequence[str]:
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise SoftpruneError("a text to read", f"an empty one (number {number})", "leave it out")
    return texts


def _labels(config: Any) -> tuple[str, ...]:
    return tuple(str(config.id2label.get(i, f"LABEL_{i}")) for i in range(config.num_labels))
