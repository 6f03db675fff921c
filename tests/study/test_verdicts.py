from __future__ import annotations

from dataclasses import replace

import pytest

from softprune.study.findings import Cell
from softprune.study.verdicts import ABOVE, BELOW, NEITHER, UNTOLD, mean_of, said, tally, verdict

UP, DOWN, NONE = Cell(0.03, 0.01, 0.05, "points"), Cell(-0.03, -0.05, -0.01, "points"), Cell(None)
OPEN, TOUCHING = Cell(0.03, -0.01, 0.07, "points"), Cell(0.03, 0.0, 0.06, "points")


@pytest.mark.parametrize(
    ("cell", "told"),
    [(UP, ABOVE), (DOWN, BELOW), (OPEN, NEITHER), (TOUCHING, NEITHER), (NONE, UNTOLD), (Cell(0.9), UNTOLD)],
)
def test_only_an_interval_tells(cell: Cell, told: str) -> None:
    assert verdict(cell) == told


def test_against_another_number() -> None:
    assert verdict(UP, than=0.02) == NEITHER
    assert verdict(UP, than=0.06) == BELOW


def test_said_with_its_interval() -> None:
    assert said("A less B", UP) == "A less B: +3.0 (+1.0 to +5.0) points, above"


def test_nothing_is_told_at_chance() -> None:
    starred = replace(UP, chance=True)
    assert said("A less B", starred) == "A less B: +3.0 (+1.0 to +5.0)* points, not interpretable"
    assert tally([starred, UP]) == "1 above, 0 below, 0 undecided, 1 not interpretable"


def test_tally_counts_each_once() -> None:
    assert tally([UP, DOWN, OPEN, UP]) == "2 above, 1 below, 1 undecided"
    assert tally([NONE]) == "0 above, 0 below, 0 undecided, 1 not measured"


def test_mean_leaves_out_what_was_not_measured() -> None:
    assert mean_of([UP, NONE, Cell(0.05)]) == pytest.approx(0.04)
    assert mean_of([NONE]) is None
