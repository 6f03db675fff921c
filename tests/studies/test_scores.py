"""Draws of one seed are no seeds, and what has no seeds is no side to pair."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from softprune.config import Study
from softprune.data.metrics import Accuracy
from softprune.statistics.methods_over_seeds import Outcome, Scored, difference, join_draws
from softprune.studies.score_rows import difference_cell, score_cell
from softprune.studies.study_context import StudyContext
from studies import SMALL

SCORE = Accuracy().score


def outcome(*shares: float, draws: int = 1, trained: bool = True) -> Outcome:
    """The first of a hundred examples right, by seed and draw."""
    scored = []
    for share in shares:
        counts = np.array([[float(place < 100 * share), 1.0] for place in range(100)])
        scored.append(Scored(counts, tuple(map(str, range(100))), (None,) * 100))
    return Outcome(shares, tuple(scored), draws, trained)


@pytest.fixture
def study(tmp_path: Path) -> StudyContext:
    scale = {"backbone": "tiny", "tasks": ["demo"], "seeds": 3, "keys": SMALL}
    study = Study.model_validate({"title": "small", "keys": {"kind": "xprompt"}, "scales": {"smoke": scale}})
    return StudyContext(study, tmp_path, tmp_path / "studies")


def test_draws_count_as_their_mean(study: StudyContext) -> None:
    """Three seeds with two draws each against three without: the same as three seeds with the draws' means."""
    drawn = outcome(0.5, 0.6, 0.7, 0.8, 0.6, 0.6, draws=2)
    cell = difference_cell(study, "demo", drawn, outcome(0.5, 0.7, 0.6))
    assert cell.seeds == 3
    assert cell.value == pytest.approx((0.05 + 0.05 + 0.0) / 3)
    _, (a, b) = join_draws(SCORE, drawn, outcome(0.5, 0.7, 0.6))
    assert (len(a), len(b)) == (3, 3)
    found = difference(drawn, outcome(0.5, 0.7, 0.6), SCORE, seed=0, resamples=500)
    assert found is not None
    assert found.se_seeds == pytest.approx(np.std([0.05, 0.05, 0.0], ddof=1) / np.sqrt(3))
    mean = score_cell(study, "demo", drawn)
    assert mean.value == pytest.approx((0.55 + 0.75 + 0.6) / 3)


def test_two_seeds_of_many_draws_are_two_seeds(study: StudyContext) -> None:
    drawn = outcome(*[0.5] * 8, draws=4)
    assert difference_cell(study, "demo", drawn, outcome(0.5, 0.7)).seeds == 2


def test_what_is_not_trained_leaves_the_other_sides_seeds(study: StudyContext) -> None:
    ours = outcome(0.7, 0.8, 0.75)
    assert difference_cell(study, "demo", ours, outcome(0.4, trained=False)).seeds == 3
    assert difference_cell(study, "demo", ours, outcome(0.4)).seeds == 1
