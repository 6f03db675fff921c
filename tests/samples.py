"""Small samples of the product of parameters that keep its power to find faults; see test_samples.py."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any


def pairwise(*values: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Rows in which every two values of two parameters meet at least once; the same rows every time.

    Most faults need one value or a pair of values to show. Of three or more parameters these rows are a third to a
    fifth of the product; two parameters alone are left whole.
    """
    rows = list(product(*(range(len(of)) for of in values)))
    left = {pair for row in rows for pair in _pairs(row)}
    chosen = []
    while left:
        best = max(rows, key=lambda row: len(left.intersection(_pairs(row))))  # the first of equals
        left.difference_update(_pairs(best))
        chosen.append(best)
    return [tuple(of[place] for of, place in zip(values, row, strict=True)) for row in sorted(chosen)]


def _pairs(row: tuple[int, ...]) -> list[tuple[tuple[int, int], ...]]:
    return list(combinations(enumerate(row), 2))


def every_second(first: Sequence[Any], second: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Half of the pairs, as the black squares of a board: each value meets every second of the other parameter."""
    return [(a, b) for i, a in enumerate(first) for j, b in enumerate(second) if (i + j) % 2 == 0]


def each_with_one_of_every_group(first: Sequence[Any], groups: Sequence[Sequence[Any]]) -> list[tuple[Any, Any]]:
    """Every value of the first meets every group, in another member each time."""
    return [(a, group[i % len(group)]) for i, a in enumerate(first) for group in groups]
