"""A small task for the tiny models, and prompts of their size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch

from softprune.models.base import Backbone
from softprune.training.loop import Keeper, Point, Trained
from softprune.training.scoring import ScoredSet, Scoring
from softprune.types import Example, Mask, Segment

TEXTS = (
    "the film was a slow and quiet joy",
    "a dull plot that never wakes up and a cast that seems to know it",
    "bread and cheese",
    "the river runs to the sea",
    "she opened the window and the cold wind entered the small room",
    "the children were hungry",
    "a very very good meal",
    "the man carried a red box",
    "it was terrible",
    "the box was heavy and the man was tired",
)
ANSWERS = ("positive", "negative", "not at all")


def example(index: int) -> Example:
    segments = (Segment(TEXTS[index], shortenable=True), Segment(" . it was "), Segment("", answer_slot=True))
    return Example(str(index), index, segments, ANSWERS[: 2 + index % 2], index % 2)


def task_of(backbone: Backbone, size: int = len(TEXTS)) -> ScoredSet:
    """Texts of mixed lengths, two or three answers of different lengths."""
    examples = [example(i) for i in range(size)]
    return ScoredSet(examples, backbone.encode(examples, 64, 16))


def texts_of(backbone: Backbone) -> ScoredSet:
    """The same texts, of which each is to be written on with the next one."""
    examples = [replace(example(i), answers=(TEXTS[i - 1],), gold=0) for i in range(len(TEXTS))]
    return ScoredSet(examples, backbone.encode(examples, 64, 16))


def scoring_of(backbone: Backbone, rows: int = 64) -> Scoring:
    return Scoring(loss=backbone.default_loss, score="sum", rows=rows)


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Random numbers of the size of the tiny models' embeddings."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def mask_of(tokens: str, pieces: int, seed: int = 0) -> Mask:
    """A mask with the tokens written as 1, and about two thirds of their pieces, the first among them."""
    token_P = torch.tensor([letter == "1" for letter in tokens])
    piece_PS = torch.rand(len(tokens), pieces, generator=torch.Generator().manual_seed(seed)) < 0.6
    piece_PS[:, 0] = True
    return Mask(token_P, piece_PS & token_P[:, None])


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest difference over the largest wanted number."""
    assert found.shape == wanted.shape
    return float((found.double() - wanted.double()).abs().max() / wanted.double().abs().max())


@dataclass(frozen=True)
class Drawn(Trained):
    """What training left, with its curve."""

    curve: tuple[Point, ...]


class CurveKeeper(Keeper):
    """Keeps the curve alone."""

    def __init__(self) -> None:
        self.points: list[Point] = []

    def curve(self, points: Sequence[Point]) -> None:
        self.points += points

    def finish(self, trained: Trained) -> Drawn:
        return Drawn(*(getattr(trained, part.name) for part in fields(Trained)), curve=tuple(self.points))
