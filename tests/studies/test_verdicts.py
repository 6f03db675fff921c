from __future__ import annotations

from dataclasses import replace

import pytest

from softprune.studies.findings import Cell
from softprune.studies.verdicts import (
    ABOVE,
    BELOW,
    NEITHER,
    UNMEASURED,
    correct_family,
    describe_difference,
    only_cells,
    tally,
    verdict,
)

UP, DOWN, NONE = Cell(0.03, 0.01, 0.05, "points"), Cell(-0.03, -0.05, -0.01, "points"), Cell(None)
OPEN, TOUCHING = Cell(0.03, -0.01, 0.07, "points"), Cell(0.03, 0.0, 0.06, "points")


@pytest.mark.parametrize(
    ("cell", "told"),
    [(UP, ABOVE), (DOWN, BELOW), (OPEN, NEITHER), (TOUCHING, NEITHER), (NONE, UNMEASURED), (Cell(0.9), UNMEASURED)],
)
def test_only_an_interval_tells(cell: Cell, told: str) -> None:
    assert verdict(cell) == told


def test_said_with_its_interval() -> None:
    assert describe_difference("A less B", UP) == "A less B: +3.0 (+1.0 to +5.0) points, above"


def test_nothing_is_told_at_chance() -> None:
    starred = replace(UP, chance=True)
    assert describe_difference("A less B", starred) == "A less B: +3.0 (+1.0 to +5.0)* points, not interpretable"
    assert tally([starred, UP]) == "1 above, 0 below, 0 undecided, 1 not interpretable"


def test_tally_counts_each_once() -> None:
    assert tally([UP, DOWN, OPEN, UP]) == "2 above, 1 below, 1 undecided"
    assert tally([NONE]) == "0 above, 0 below, 0 undecided, 1 not measured"


def test_fewer_than_three_seeds_conclude_nothing() -> None:
    two, three = (replace(UP, seeds=seeds, p=0.01) for seeds in (2, 3))
    assert verdict(two) == "no verdict (2 seeds)"
    assert verdict(replace(UP, seeds=1)) == "no verdict (1 seed)"
    assert describe_difference("A less B", two) == "A less B: +3.0 (+1.0 to +5.0) points, no verdict (2 seeds)"
    assert verdict(three) == ABOVE
    assert tally([two, three, two]) == "1 above, 0 below, 0 undecided, 2 no verdict (2 seeds)"


def test_holm_is_over_those_that_may_be_tested() -> None:
    """Two of p 0.03 make 0.06, and 0.2 stays; what is at chance, has two seeds or is a text isn't counted."""
    near = replace(UP, seeds=3, p=0.03)
    far = replace(OPEN, seeds=3, p=0.2)
    aside = [replace(near, seeds=2), replace(near, chance=True), NONE, "not defined"]
    found = list(correct_family(dict(enumerate([near, *aside, far]))).values())
    assert [cell.p_holm for cell in only_cells(found)] == [pytest.approx(0.06), None, None, None, pytest.approx(0.2)]
    assert found[4] == "not defined"
    (kept, *_) = only_cells(found)
    assert verdict(kept) == NEITHER
    assert verdict(correct_family({"a": near})["a"]) == ABOVE  # alone, there is nothing to correct
    assert verdict(correct_family({"a": near, "b": far})["a"]) == NEITHER
