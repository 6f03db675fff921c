"""Scores against costs: who is ringed, where points and names stand, and what caption and table say of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from softprune.report.frontier import (
    CLEAR,
    COSTS,
    OVERLAP,
    RINGED,
    Axis,
    Contender,
    Frontier,
    find_cost_axis,
    find_score_axis,
    find_ticks,
    spread_apart,
)
from softprune.report.label_places import Box, place_labels
from softprune.report.plotting import Facet, Series


def contender(name: str, score: float, stored: float | None, **changes: Any) -> Contender:
    """A method with an interval of a point either way; it reads 20 tokens and trains a second a number."""
    costs = {"stored": stored, "tokens": 20, "seconds": stored}
    return replace(Contender(name, name, "kept", "circle", score, (score - 1, score + 1), costs), **changes)


FREE = {"stored": 0, "tokens": 0, "seconds": 0}
FLOOR = Contender("constant", "constant", "other", "", 50.0, (48.0, 52.0), FREE, "dashed")
SMALL, LARGE, WORSE = contender("small", 70, 100), contender("large", 71.5, 1000), contender("worse", 69, 500)
FRONTIER = Frontier([FLOOR, LARGE, WORSE, SMALL], "accuracy (%)", 1)


def series_of(panel: Facet) -> dict[str, Series]:
    return {series.name: series for series in panel.series}


def test_marks_by_hand() -> None:
    """The floor costs nothing; `large` is the best, and its interval starts where that of `small` still goes on."""
    marks = [(mark.contender.name, mark.overlapping) for mark in FRONTIER.marks("stored")]
    assert marks == [("constant", None), ("small", []), ("large", [SMALL])]
    # All read 20 tokens: the best of them alone is left, and the other two are as cheap.
    assert [mark.contender.name for mark in FRONTIER.marks("tokens")] == ["constant", "large"]


def test_what_scores_below_nothing_at_all_is_dominated() -> None:
    """The negative control of the floors: without this one, the same method is on the frontier."""
    poor = contender("poor", 49, 100)
    assert [mark.contender.name for mark in Frontier([FLOOR, poor], "", 1).marks("stored")] == ["constant"]
    assert [mark.contender.name for mark in Frontier([poor], "", 1).marks("stored")] == ["poor"]


def test_rings_names_and_steps() -> None:
    stored, tokens, _ = FRONTIER.panels()
    ring, clear = series_of(stored)[RINGED], series_of(stored)[CLEAR]
    assert (ring.y, clear.y, ring.line) == ((70, 71.5), (70,), "step")
    assert ring.x == pytest.approx((100, 1000))
    assert [text for text, _ in ring.labels] == ["small", "large"]
    assert series_of(tokens)[RINGED].y == (71.5,)
    assert CLEAR not in series_of(tokens)
    assert [panel.x_label for panel in FRONTIER.panels()] == list(COSTS.values())
    assert [panel.logarithmic for panel in FRONTIER.panels()] == [True, False, True]
    assert len({panel.y_range for panel in FRONTIER.panels()}) == 1


def test_every_point_has_its_interval_and_its_costs() -> None:
    for panel in FRONTIER.panels():
        for each in (SMALL, LARGE, WORSE):
            series = series_of(panel)[each.name]
            assert (series.y, series.intervals) == ((each.score,), (each.interval,))
            assert f"stored numbers: {each.costs['stored']:,}\nprompt tokens read: 20" in series.hover[0]
    level = series_of(FRONTIER.panels()[0])["constant (50.0, off the axis)"]
    assert (level.y, level.line) == ((50.0, 50.0), "dashed")


def test_caption_and_table_name_the_overlaps() -> None:
    caption = FRONTIER.caption()
    assert "no other one has a higher score at the same or lower cost" in caption
    assert (
        "here by stored numbers for large; by prompt tokens read for large; by training seconds for large." in caption
    )
    rows = {str(row[0]): row[1:] for row in FRONTIER.numbers().rows}
    everywhere = "stored numbers, prompt tokens read, training seconds"
    assert rows["large"] == ("71.5", "70.5 to 72.5", 1000, 20, 1000, everywhere, "small")
    assert rows["worse"][-2:] == ("–", "–")
    assert rows["small"][-2:] == ("stored numbers, training seconds", "–")


def test_without_overlaps_the_caption_names_none() -> None:
    apart = Frontier([SMALL, contender("large", 80, 1000)], "accuracy (%)", 1)
    for frontier in (apart, Frontier([replace(SMALL, interval=None), replace(LARGE, interval=None)], "", 1)):
        assert OVERLAP not in frontier.caption()
    stored, _, _ = apart.panels()
    assert series_of(stored)[CLEAR].y == (80,)  # the cheapest has nothing to lie above


def test_costs_that_were_not_measured() -> None:
    """No panel where nobody has the cost; nobody without one in a panel; "not measured" in the table."""
    bare = replace(SMALL, costs={"stored": 100, "tokens": None, "seconds": None})
    assert [panel.x_label for panel in Frontier([FLOOR, bare], "", 1).panels()] == ["stored numbers"]
    assert Frontier([FLOOR], "", 1).panels() == Frontier([], "", 1).panels() == []
    mixed = Frontier([bare, LARGE], "", 1)
    assert "small" not in series_of(mixed.panels()[2])
    assert [mark.contender.name for mark in mixed.marks("seconds")] == ["large"]
    assert {row[0]: row[4] for row in mixed.numbers().rows} == {"small": None, "large": 20}


def test_what_costs_nothing_but_tokens_is_a_line_and_a_point() -> None:
    words = Contender("words", "words", "gold", "pentagon", 60.0, None, {"stored": 0, "tokens": 9, "seconds": 0})
    stored, tokens, _ = Frontier([words, SMALL], "", 1).panels()
    assert series_of(stored)["words (60.0)"].y == (60.0, 60.0)
    assert series_of(tokens)["words"].x == (9.0,)
    assert Frontier([words], "", 1).panels()[0].x_label == "prompt tokens read"


# --- axes and places ---


def test_axes_have_room_and_round_ticks() -> None:
    axis = find_cost_axis([100.0, 1000.0], logarithmic=True)
    assert (axis.low, axis.high) == (50, 2000)
    assert find_ticks(axis) == (50, 100, 200, 500, 1000, 2000)
    assert find_ticks(find_cost_axis([30.0, 40.0], logarithmic=True)) == (20, 30, 40, 50, 70)
    assert axis.share(axis.value(0.3)) == pytest.approx(0.3)
    wide = find_ticks(find_cost_axis([100.0, 1e8], logarithmic=True))
    assert wide == (100, 1e4, 1e6, 1e8)
    tokens = find_cost_axis([0.0, 20.0], logarithmic=False)
    assert (tokens.low, tokens.high) == (-3, 23)
    assert find_ticks(tokens)[0] == 0
    alone = find_cost_axis([0.0], logarithmic=False)
    assert alone.low < 0 < alone.high


def test_far_floors_leave_points_room() -> None:
    near = replace(FLOOR, score=67.5)
    axis = find_score_axis([SMALL, LARGE, near])
    assert axis.low < 67.5 < 72.5 < axis.high
    far = find_score_axis([SMALL, LARGE, FLOOR])
    assert 50 < far.low < 69
    assert find_score_axis([replace(SMALL, interval=None), FLOOR]).low < 50  # one number has no span of its own


def test_points_that_would_lie_on_each_other_stand_side_by_side() -> None:
    assert spread_apart([0.1, 0.5, 0.9]) == [0.1, 0.5, 0.9]
    assert spread_apart([0.5, 0.5, 0.5]) == pytest.approx([0.478, 0.5, 0.522])
    assert spread_apart([]) == []
    crowded = np.random.default_rng(0).uniform(0.4, 0.6, 12)
    placed = spread_apart([float(share) for share in crowded])
    gaps = [after - before for before, after in pairwise(sorted(placed))]
    assert min(gaps) >= 0.022 - 1e-9
    assert np.argsort(placed).tolist() == np.argsort(crowded).tolist()


def test_names_cover_no_point_and_each_other() -> None:
    assert place_labels([("a", 0.5, 0.5)], []) == ["middle right"]
    assert place_labels([("prompt", 0.95, 0.5)], []) == ["middle left"]
    right = Box(0.52, 0.4, 0.9, 0.6)
    assert place_labels([("prompt", 0.5, 0.5)], [right]) == ["middle left"]
    assert place_labels([("prompt", 0.5, 0.5)], [Box(0, 0, 1, 1)]) == [""]
    first, second = place_labels([("prompt", 0.5, 0.5), ("xprompt", 0.5, 0.5)], [])
    assert first != second
    assert place_labels([("p" * 60, 0.5, 0.5)], []) == [""]


def test_an_axis_goes_from_end_to_end() -> None:
    for axis in (Axis(-1, 3), Axis(1, 100, logarithmic=True)):
        assert (axis.share(axis.low), axis.share(axis.high)) == (0, 1)
    assert Axis(1, 100, logarithmic=True).share(10) == pytest.approx(0.5)
