"""Distribution and maps of importance: bins by hand, and gaps that are the mask."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from softprune.config import load_study
from softprune.studies.experiments.heatmaps import (
    binned,
    distribution,
    importances,
    maps,
    over_largest,
    within_range,
)
from softprune.studies.findings import Cell
from softprune.studies.study_context import StudyContext


def test_over_the_largest_by_hand() -> None:
    assert over_largest(np.array([1.0, 4.0, 0.0, -2.0])).tolist() == [0.25, 1.0, 0.0, 0.0]
    assert over_largest(np.array([0.0, -1.0])).tolist() == [0.0, 0.0]


def test_within_range_by_hand() -> None:
    assert within_range(np.array([1.0, 5.0, 2.0])).tolist() == [0.0, 1.0, 0.25]
    rows = within_range(np.array([[1.0, 3.0], [10.0, 20.0], [7.0, 7.0]]))
    assert rows.tolist() == [[0.0, 1.0], [0.0, 1.0], [0.0, 0.0]]  # each row by itself


def test_bins_by_hand() -> None:
    values = np.array([0.0, 0.19, 0.2, 0.399, 0.6, 0.99, 1.0])
    assert binned(values, 5) == [2, 2, 0, 1, 2]
    assert binned(np.array([0.1, 0.3, 0.7]), 10) == [0, 1, 0, 1, 0, 0, 0, 1, 0, 0]  # 0.3 * 10 is 3 in exact numbers


@pytest.mark.parametrize(("level", "count"), [("tokens", 20), ("pieces", 320)])
def test_published_counts_are_those_of_the_prompt(level: str, count: int) -> None:
    study = load_study("figure-6")
    drawn = study.options["published"][level]
    assert sum(drawn) == count
    table = study.published[0 if level == "tokens" else 1]
    assert [int(cell) for cell in table.rows[0][1:]] == drawn
    assert len(table.columns) == len(table.rows[0])


def test_every_token_and_piece_is_counted_once(pruned: Callable[[str], StudyContext]) -> None:
    found = distribution(pruned("importance-distribution"))
    sums = {}
    for table in found.tables:
        cells = [cell for cell in table.rows[0][1:-1] if isinstance(cell, Cell)]
        sums[table.name] = sum(cell.value or 0 for cell in cells)
    assert sums == {"tokens-largest": 4, "tokens-range": 4, "pieces-largest": 16, "pieces-range": 16}
    assert "more than half" in found.sentences[0]


def test_gaps_of_a_map_are_what_the_winner_prunes(pruned: Callable[[str], StudyContext]) -> None:
    study = pruned("importance-maps")
    found = maps(study)
    before, after = (figure.traces[0] for figure in found.figures)
    (made,) = study.grid().values()
    gaps = torch.tensor([[value is None for value in row] for row in after["z"]])
    assert torch.equal(~gaps[:, 1:], made.mask.piece_PS)
    assert torch.equal(~gaps[:, 0], made.mask.token_P)
    assert bool(gaps.any())
    assert all(value is not None for row in before["z"] for value in row)
    assert max(row[0] for row in before["z"]) == 1.0


def test_what_the_survivors_hold_by_hand(pruned: Callable[[str], StudyContext]) -> None:
    study = pruned("importance-maps")
    (row,) = maps(study).tables[0].rows
    (made,) = study.grid().values()
    scores = importances(made)
    kept = [p for p in range(4) if made.mask.token_P[p]]
    held = sum(scores["token_P"][p] for p in kept) / sum(scores["token_P"])
    cells = [cell.value for cell in row if isinstance(cell, Cell)]
    assert cells[:2] == [len(kept), int(made.mask.piece_PS.sum())]
    assert cells[4] == pytest.approx(held, rel=1e-12)
    assert cells[4] != pytest.approx(1 - held, rel=1e-3)
    assert cells[4] > len(kept) / 4  # the most important ones stay, so they hold more than their share
