"""Cartridges: keys and values of P virtual tokens that a model reads in place of a long document.

    teacher   p(. | d; x)      the frozen model behind all Q tokens of a document d
    student   p(. | K, V; x)   the same model behind P keys and values in every layer, P of them in place of Q
    loss      KL(teacher || student), over answers or next tokens (`softprune.training.teaching`); labels aren't read

(Eyuboglu et al. 2025, arXiv 2506.06266, sections 3 and 4; peft's CARTRIDGE). They start as the keys and values of the
document's first P tokens. The first of these stays as it is: attention that goes nowhere goes there, and a model whose
sink moves is unstable. The rows are the task's, rows without labels, and those that the model
writes itself (`softprune.adapters.self_study`).

The document's keys and values are kept, so that it is read once and not for every batch. Where the tokenizer begins a
text with a token of its own, the teacher reads that in front of the document alone, as it would of one text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from softprune.adapters.base import AdapterPlan, seeded
from softprune.adapters.prefix import Prefix, Shape, prefix_not_defined, read_shape
from softprune.errors import SoftpruneError
from softprune.models.base import Backbone
from softprune.models.causal import CausalBackbone
from softprune.training.scoring import ScoredSet, Scoring, score_prompts
from softprune.training.teaching import Teacher
from softprune.types import Batch, Scores

FROZEN = 1
"""Tokens at the beginning that stay as they were in the document."""


class CartridgeNumbers(nn.Module):
    """Keys and values `[P, L * 2 * heads * D]`, of which the first row is frozen."""

    prefix_projection = False

    def __init__(self, tokens: int, numbers: int) -> None:
        super().__init__()
        self.register_buffer("frozen", torch.randn(FROZEN, numbers))
        self.trained = nn.Parameter(torch.randn(tokens - FROZEN, numbers))

    def forward(self, at_1P: torch.Tensor) -> torch.Tensor:
        """The rows at some places."""
        return torch.cat([self.get_buffer("frozen"), self.trained])[at_1P]

    @torch.no_grad()
    def set(self, numbers_PX: torch.Tensor) -> None:
        """Take other numbers, in place."""
        self.get_buffer("frozen").copy_(numbers_PX[:FROZEN])
        self.trained.copy_(numbers_PX[FROZEN:])


class Cartridge(Prefix):
    """Keys and values that are taught what the model says behind a document; see `study`."""

    peft_type = "CARTRIDGE"

    def __init__(self, backbone: Backbone, shape: Shape, tokens: int) -> None:
        self._numbers = CartridgeNumbers(tokens, shape.numbers).to(backbone.device, backbone.prompt_dtype)
        super().__init__(backbone, self._numbers, shape, tokens)
        self._first_id: int | None = None  # of the document, where the tokenizer begins every text with it
        self._document_QX: torch.Tensor | None = None

    @torch.no_grad()
    def study(self, ids: Sequence[int]) -> None:
        """Read a document's token ids, and begin as the keys and values of its first P tokens.

        Raises:
            SoftpruneError: it has fewer than P tokens, or a layer doesn't look back over all of them.
        """
        if len(ids) < self.tokens:
            expected = f"a document of at least {self.tokens} tokens, which is what the cartridge starts from"
            raise SoftpruneError(expected, f"{len(ids)}", f"set prompt.tokens (--tokens) to {len(ids)} at most")
        first = self.backbone.tokenizer.bos_token_id
        self._first_id = first if first is not None and ids[0] == first else None
        self._document_QX = self.keep(self.backbone.embed_ids(ids))
        self._numbers.set(self._document_QX[: self.tokens])

    @property
    def document_tokens(self) -> int:
        """Q."""
        return len(self._document())

    @property
    def limit(self) -> int | None:
        """Tokens that the model reads at once; None where nothing limits them."""
        limits = [limit for limit in (self.backbone.info.positions, self.shape.window) if limit is not None]
        return min(limits, default=None)

    @contextmanager
    def behind_document(self, batch: Batch) -> Iterator[Batch]:
        """Within the block, the backbone reads the document in the cartridge's place; the batch to read behind it."""
        with self.reading(self._document()):
            yield drop_first(batch, self._first_id)

    def teacher(self) -> Teacher:
        """The model behind the document."""
        return Teacher(self.nothing()[0], weight=1.0, reading=self.behind_document)

    def check_room(self, tokens: int, sets: Sequence[ScoredSet], generated: int = 0) -> None:
        """Check that a document of so many tokens fits beside the longest text and its longest answer.

        Answers have `generated` tokens at least.

        Raises:
            SoftpruneError: it doesn't.
        """
        limit = self.limit
        encoded = [each for part in sets for each in part.encoded]
        beside = max(len(each.input_ids) + max(generated, *map(len, each.answer_ids)) for each in encoded)
        if limit is None or tokens + beside <= limit:
            return
        raise SoftpruneError(
            f"a document that fits into {limit} tokens, which {self.backbone.info.name} reads at once, with texts and "
            "answers",
            f"{tokens} tokens in adapter.document, and {beside} in the longest text with its answer",
            f"shorten it to {max(0, limit - beside)} tokens, lower task.max_length, or choose another model",
        )

    def score_document(self, data: ScoredSet, scoring: Scoring) -> Scores | None:
        """What the model says of a set behind the whole document; None where that doesn't fit."""
        try:
            self.check_room(
                self.document_tokens, [data], scoring.max_answer_length if scoring.match == "generate" else 0
            )
        except SoftpruneError:  # texts of `report` may be longer than those that were checked
            return None
        with self.reading(self._document()):
            behind = _SetBehind(data, self._first_id)
            return score_prompts(self.backbone, self.nothing(), behind, scoring)[0]

    def peft_config(self) -> dict[str, Any] | None:
        """As of a prefix, and how many tokens are frozen."""
        config = super().peft_config()
        return None if config is None else config | {"num_frozen_tokens": FROZEN}

    def _document(self) -> torch.Tensor:
        if self._document_QX is None:
            raise RuntimeError("no document was studied")
        return self._document_QX


class _SetBehind(ScoredSet):
    """Examples whose first token the document has already."""

    def __init__(self, data: ScoredSet, first_id: int | None) -> None:
        super().__init__(data.examples, data.encoded)
        self._first_id = first_id

    def batch(self, backbone: Backbone, indices: Sequence[int]) -> Batch:
        return drop_first(super().batch(backbone, indices), self._first_id)


def drop_first(batch: Batch, first_id: int | None) -> Batch:
    """The batch without a token in front of its texts, where all begin with it and have more."""
    ids_BN, mask_BN = batch.input_ids, batch.input_mask
    if first_id is None or not bool(((ids_BN[:, 0] == first_id) & (mask_BN.sum(1) > 1)).all()):
        return batch
    places = tuple(place if place is None else max(0, place - 1) for place in batch.places)
    return replace(batch, input_ids=ids_BN[:, 1:], input_mask=mask_BN[:, 1:], places=places)


def new_cartridge(backbone: Backbone, plan: AdapterPlan, seed: int) -> Cartridge:
    """A fresh cartridge of random numbers, until it has studied a document."""
    if not isinstance(backbone, CausalBackbone):
        raise SoftpruneError("a causal backbone", f"{backbone.info.name} ({backbone.family})", "choose another method")
    shape = read_shape(backbone)
    with seeded(seed):
        return Cartridge(backbone, shape, plan.tokens)


def cartridge_not_defined(config: Any, family: str) -> str | None:
    """Why a model can't take a cartridge, by its configuration alone; None where it can."""
    if family != "causal":
        return "a document and the text behind it are one sequence in causal models alone"
    return prefix_not_defined(config, family)


def document_ids(backbone: Backbone, text: str) -> list[int]:
    """Token ids of a document, with what the tokenizer puts in front of every text."""
    (ids,) = backbone.tokenization().text_ids([text])
    backbone.check_rows(ids, "the document")
    return ids
