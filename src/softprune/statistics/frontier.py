"""Which of several things are worth what they cost: those that no other one dominates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

Ends: TypeAlias = "tuple[float, float] | None"
"""An interval; None where there is none."""


def non_dominated(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Of points (cost, score), which ones no other dominates.

    A point is dominated by one that scores higher at the same or a lower cost, or as high at a lower cost. Points with
    the same cost and score don't dominate each other.
    """
    kept = []
    for cost, score in points:
        kept.append(not any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in points))
    return kept


def overlapping_cheaper(place: int, costs: Sequence[float], intervals: Sequence[Ends]) -> list[int] | None:
    """Places of the things that cost no more than the one at `place`, and whose intervals reach into its own or above.

    As long as there is one, these intervals don't show that the higher cost buys a higher score. None where nobody
    can know: nothing else costs as little, or no interval that is known reaches so far and another one is missing.
    """
    cheaper = [other for other, cost in enumerate(costs) if other != place and cost <= costs[place]]
    own, missing, found = intervals[place], not cheaper, []
    for other in cheaper:
        ends = intervals[other]
        if own is None or ends is None:
            missing = True
        elif ends[1] >= own[0]:
            found.append(other)
    return None if missing and not found else found
