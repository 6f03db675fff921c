"""How far each token of a prompt went from its start, and which words prompts of several tasks share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from softprune.errors import SoftpruneError
from softprune.interpret.neighbours import BLOCK, cosines, nearest
from softprune.interpret.vocabulary import key


@dataclass(frozen=True, slots=True)
class Movement:
    """What became of each token, in the prompt's order; `[P]` float64 each."""

    distance_P: torch.Tensor  # Euclidean, from start to end
    relative_P: torch.Tensor  # the same over the scale
    cosine_P: torch.Tensor  # of start and end; 0 where either is a vector of zeros


def norm_rms(vectors_NH: torch.Tensor) -> float:
    """Root mean square of the vectors' Euclidean norms: the length of a typical one."""
    total = 0.0
    for part_nH in vectors_NH.detach().cpu().split(BLOCK):  # a large table in float32 would fill the memory
        wide_nH = part_nH if part_nH.dtype == torch.float64 else part_nH.float()
        total += float(torch.linalg.vector_norm(wide_nH, dim=-1).double().square().sum())
    return math.sqrt(total / max(1, len(vectors_NH)))


def movement(start_PH: torch.Tensor, end_PH: torch.Tensor, scale: float | None = None) -> Movement:
    """How far each token went; `scale` is the unit of relative distances, `norm_rms` of the start where it is None.

    Raises:
        SoftpruneError: for prompts of other shapes, or a scale of zero.
    """
    if start_PH.shape != end_PH.shape or start_PH.dim() != 2:
        found = f"{list(start_PH.shape)} and {list(end_PH.shape)}"
        raise SoftpruneError("a start and an end of one shape [P, H]", found, "choose the two prompts of one run")
    start_PH, end_PH = start_PH.detach().cpu().double(), end_PH.detach().cpu().double()
    scale = norm_rms(start_PH) if scale is None else scale
    if not scale > 0:
        raise SoftpruneError("vectors with a length to measure by", "zeros", "measure by the vocabulary's table")
    distance_P = (end_PH - start_PH).norm(dim=-1)
    return Movement(distance_P, distance_P / scale, cosines(start_PH, end_PH))


def kept(
    start_PH: torch.Tensor,
    end_PH: torch.Tensor,
    table_VH: torch.Tensor,
    measure: str,
    pool: Iterable[int] | None = None,
) -> list[bool | None]:
    """Whether each token's nearest vocabulary item is still the one it started nearest to: "it never moved".

    `measure` and `pool` as of `nearest`; None where the start or the end has no neighbour.
    """
    ids = None if pool is None else tuple(pool)
    first, last = (nearest(prompt, table_VH, 1, measure, ids).ids_PK[:, 0].tolist() for prompt in (start_PH, end_PH))
    return [None if -1 in (a, b) else a == b for a, b in zip(first, last, strict=True)]


def persisting(words: Mapping[str, Iterable[str]], least: int = 2) -> dict[str, tuple[str, ...]]:
    """Words that are near the prompts of `least` tasks or more, whatever their case, each with these tasks.

    `words` are per task the readable neighbours of its prompt's tokens. The result has the words of most tasks first,
    then goes by word; pieces of words are words of their own.
    """
    tasks: dict[str, list[str]] = {}
    for task, near in words.items():
        for word in {key(each) for each in near if each}:
            tasks.setdefault(word, []).append(task)
    shared = [(word, tuple(each)) for word, each in tasks.items() if len(each) >= least]
    return dict(sorted(shared, key=lambda pair: (-len(pair[1]), pair[0])))
