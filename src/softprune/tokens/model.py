"""A classifier with its pruning rule: saved, loaded, and read from text.

A folder of it is a transformers model (config.json, model.safetensors, tokenizer) with `tokens.json` beside it: the
rule, the convention, the input length. Instead of weights it may name the model that they are (`base`) and its
fingerprint. transformers reads the folder too, and then prunes nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from softprune.backbone.batching import scoring_batches
from softprune.backbone.fingerprint import fingerprint, same_backbone
from softprune.backbone.load import resolve_device, resolve_dtype
from softprune.errors import SoftpruneError
from softprune.runs import atomic
from softprune.tokens.families import Anatomy
from softprune.tokens.load import describe_encoder, load_classifier, load_tokenizer
from softprune.tokens.packed import pack
from softprune.tokens.reading import TokenReading
from softprune.tokens.rules import Alive, Convention, Everything, Ranked, Rule, Thresholds
from softprune.tokens.walk import Pass, hard_pass

DOCUMENT = "tokens.json"
SCHEMA = 1


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
        """A saved model; of a plain classifier without `tokens.json`, one that drops nothing.

        Raises:
            SoftpruneError: it isn't whole, or its base is another model now.
        """
        document = _read_document(Path(folder))
        base = None if document is None else document["weights"]
        described = describe_encoder(str(folder) if base is None else base["base"])
        labels = _labels(described.config)
        place = resolve_device(device)
        model = load_classifier(described, labels, place, resolve_dtype(dtype, place), seed=0).eval()
        if base is not None and not same_backbone(base["fingerprint"], fingerprint(model)):
            raise SoftpruneError(
                f"the weights of {base['base']} that {folder} was made with",
                "other weights under that name",
                "bring that version back, or train anew",
            )
        anatomy, tokenizer = Anatomy(model), load_tokenizer(described)
        if document is None:
            longest = min(described.positions, 512)
            return cls(str(folder), anatomy, tokenizer, Everything(), Convention(), longest, described.name)
        convention = Convention(**document["convention"])
        rule = _rule_of(document["rule"], len(anatomy.layers), convention)
        return cls(str(folder), anatomy, tokenizer, rule, convention, document["max_length"], document["base"])

    def save(self, folder: str | Path, *, weights: bool = True) -> None:
        """Write it as a whole, or not at all.

        Args:
            folder: is made; an older one of a model gives way.
            weights: False writes the base's name and fingerprint instead, which must be those of these very weights.
        """
        folder = Path(folder)
        made = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        mark = None
        if weights:
            self.anatomy.model.save_pretrained(made)
            self.tokenizer.save_pretrained(made)
        else:
            mark = {"base": self.base, "fingerprint": fingerprint(self.anatomy.model)}
        document = {
            "schema": SCHEMA,
            "base": self.base,
            "weights": mark,
            "max_length": self.max_length,
            "convention": asdict(self.convention),
            "rule": _document_of(self.rule),
        }
        (made / DOCUMENT).write_text(atomic.json_text(document, indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            if not (folder / DOCUMENT).exists():
                shutil.rmtree(made)
                found = f"{folder} holds something else"
                raise SoftpruneError("a new folder, or that of a pruned model", found, "choose another folder")
            shutil.rmtree(folder)
        made.replace(folder)

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
        ids: list[list[int]] = self.tokenizer(list(texts), truncation=True, max_length=self.max_length)["input_ids"]
        return ids

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
    ) -> list[TokenReading]:
        """What became of every token of some texts; see `softprune.tokens.reading.TokenReader`."""
        encoded = self.tokenizer(
            list(_filled(texts)),
            truncation=True,
            max_length=self.max_length,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )
        whole = self.tokenizer(list(texts), verbose=False)["input_ids"]
        ids = encoded["input_ids"]
        found: list[TokenReading | None] = [None] * len(ids)
        for indices in scoring_batches(tuple(map(len, ids)), 64):
            forced = _forced(self.rule, indices, forced_out, forced_in)
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


@dataclass(frozen=True, slots=True)
class Forced:
    """A rule that some tokens are exempt from.

    Attributes:
        rule: for the others.
        out, kept: per text of the batch, places of tokens that leave after the first layer that prunes, or stay.
    """

    rule: Rule
    out: tuple[frozenset[int], ...]
    kept: tuple[frozenset[int], ...]

    @property
    def scored(self) -> bool:
        """As the rule."""
        return self.rule.scored

    def prunes(self, layer: int) -> bool:
        """As the rule; and after layer 1, where tokens are forced out of a model that drops nothing."""
        return self.rule.prunes(layer) or (layer == 1 and any(self.out))

    def stays(self, alive: Alive, score_M: torch.Tensor | None) -> torch.Tensor:
        """The rule's choice, exemptions aside."""
        prunes = self.rule.prunes(alive.layer)
        stays_M = self.rule.stays(alive, score_M) if prunes else torch.ones_like(alive.row_M, dtype=torch.bool)
        at = list(zip(alive.row_M.tolist(), alive.position_M.tolist(), strict=True))
        out_M = torch.tensor([place in self.out[row] for row, place in at], device=stays_M.device)
        kept_M = torch.tensor([place in self.kept[row] for row, place in at], device=stays_M.device)
        return (stays_M | kept_M) & ~out_M


def _forced(
    rule: Rule,
    indices: Sequence[int],
    out: Sequence[Collection[int]] | None,
    kept: Sequence[Collection[int]] | None,
) -> Rule:
    if out is None and kept is None:
        return rule
    nobody: frozenset[int] = frozenset()
    outs = tuple(nobody if out is None else frozenset(out[i]) for i in indices)
    keeps = tuple(nobody if kept is None else frozenset(kept[i]) for i in indices)
    return Forced(rule, outs, keeps)


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
    return tuple(str(config.id2label[i]) for i in range(config.num_labels))


def _document_of(rule: Rule) -> dict[str, Any]:
    if isinstance(rule, Thresholds):
        return {
            "kind": "thresholds",
            "theta_final": rule.theta_final,
            "temperature": rule.temperature,
            "delta": rule.delta_L.tolist(),
        }
    if isinstance(rule, Ranked):
        return {"kind": "ranked", "rate": rule.rate, "order": rule.order, "seed": rule.seed}
    return {"kind": "everything"}


def _rule_of(document: dict[str, Any], layers: int, convention: Convention) -> Rule:
    kind = document["kind"]
    if kind == "thresholds":
        rule = Thresholds(layers, document["theta_final"], document["temperature"], convention)
        if len(document["delta"]) != layers:
            raise SoftpruneError(f"{layers} thresholds, one a layer", f"{len(document['delta'])}", "train it anew")
        rule.delta_L.data = torch.tensor(document["delta"], dtype=torch.float32)
        rule.delta_L.requires_grad_(False)
        return rule
    if kind == "ranked":
        return Ranked(layers, document["rate"], document["order"], document["seed"])
    return Everything()


def _read_document(folder: Path) -> dict[str, Any] | None:
    """tokens.json, or None for a model without it.

    Raises:
        SoftpruneError: it isn't what softprune wrote.
    """
    path = folder / DOCUMENT
    if not path.exists():
        return None
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA or not {"base", "weights", "max_length", "convention", "rule"} <= set(document):
            raise ValueError(f"not of schema {SCHEMA}")
        return document
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SoftpruneError(f"a whole pruned model in {folder}", f"{DOCUMENT}: {error}", "copy it anew") from error
