"""What no other thing dominates, by hand and against brute force; and whose intervals reach into a dearer one's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprune.statistics.frontier import non_dominated, overlapping_cheaper


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], []),
        ([(3.0, 0.5)], [True]),
        ([(1.0, 0.5), (2.0, 0.6)], [True, True]),  # dearer and better
        ([(1.0, 0.6), (2.0, 0.5)], [True, False]),  # dearer and worse
        ([(1.0, 0.6), (2.0, 0.6)], [True, False]),  # dearer, and only as good
        ([(1.0, 0.6), (1.0, 0.5)], [True, False]),  # worse at one cost
        ([(1.0, 0.6), (1.0, 0.6)], [True, True]),  # twins
        ([(0.0, 0.55), (0.0, 0.25), (2.0, 0.5), (4.0, 0.9)], [True, False, False, True]),  # below what costs nothing
    ],
)
def test_by_hand(points: list[tuple[float, float]], expected: list[bool]) -> None:
    assert non_dominated(points) == expected


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=6))
def test_against_brute_force(points: list[tuple[int, int]]) -> None:
    """Nothing scores higher at the same or lower cost, nor as high at a lower one; order plays no part."""
    expected = []
    for cost, score in points:
        higher = any(s > score and c <= cost for c, s in points)
        cheaper = any(s == score and c < cost for c, s in points)
        expected.append(not higher and not cheaper)
    assert non_dominated(points) == expected
    assert non_dominated(points[::-1]) == expected[::-1]


def test_the_brute_force_can_fail() -> None:
    """The negative control: by the definition without equal scores, the dearer twin would stay."""
    points = [(1.0, 0.6), (2.0, 0.6)]
    looser = [not any(s > score and c <= cost for c, s in points) for cost, score in points]
    assert looser == [True, True] != non_dominated(points)


COSTS = [0.0, 1.0, 1.0, 3.0]


def test_overlaps_are_with_what_costs_no_more() -> None:
    intervals = [(0.2, 0.3), (0.4, 0.6), (0.55, 0.7), (0.65, 0.9)]
    found = [overlapping_cheaper(place, COSTS, intervals) for place in range(4)]
    assert found == [None, [2], [1], [2]]
    # An end in common is an overlap; a hair of room is none.
    assert overlapping_cheaper(1, [0.0, 1.0], [(0.2, 0.3), (0.3, 0.4)]) == [0]
    assert overlapping_cheaper(1, [0.0, 1.0], [(0.2, 0.3), (0.3001, 0.4)]) == []


def test_without_an_interval_nothing_is_told() -> None:
    assert overlapping_cheaper(1, [0.0, 1.0], [(0.2, 0.3), None]) is None
    assert overlapping_cheaper(1, [0.0, 1.0], [None, (0.5, 0.6)]) is None
    assert overlapping_cheaper(2, [0.0, 1.0, 2.0], [None, (0.1, 0.2), (0.5, 0.6)]) is None
    assert overlapping_cheaper(2, [0.0, 1.0, 2.0], [None, (0.1, 0.5), (0.5, 0.6)]) == [1]
