"""Measures of importance: correlations by hand, and scores that are the run's own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from softprune.studies.experiments.heatmaps import importances
from softprune.studies.experiments.importance import (
    MEASURES,
    conduct,
    interval_cell,
    mean_correlations,
    measure_importance,
)
from softprune.studies.findings import Cell
from softprune.studies.study_context import StudyContext
from softprune.studies.verdicts import ABOVE, verdict

pytestmark = pytest.mark.slow


def test_mean_correlations_by_hand() -> None:
    changes = [np.array([1.0, 2.0, 3.0, 4.0]), np.array([4.0, 3.0, 2.0, 1.0])]
    good = [np.array([0.1, 0.5, 0.7, 9.0]), np.array([8.0, 7.0, 6.0, 5.0])]
    half = [np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0, 4.0])]  # 1 in one run, -1 in the other
    swap = [np.array([2.0, 1.0, 3.0, 4.0])] * 2  # d = 1, 1, 0, 0: 1 - 6 * 2 / 60 = 0.8; and its mirror image
    flat = [np.ones(4)] * 2
    measures = [{"good": g, "half": h, "swap": s, "flat": f} for g, h, s, f in zip(good, half, swap, flat, strict=True)]
    found = mean_correlations(measures, changes, 0, 200)
    assert found["good"][0] == pytest.approx([1.0, 1.0])
    assert found["half"][0] == pytest.approx([1.0, -1.0])
    assert found["swap"][0] == pytest.approx([0.8, -0.8])
    assert np.isnan(found["flat"][0]).all()
    assert found["good"][1].shape == (200,)
    real = found["good"][1][~np.isnan(found["good"][1])]
    assert real.min() == pytest.approx(1.0)  # ranks agree in every resample


def test_intervals_of_correlations() -> None:
    drawn = np.linspace(-1, 1, 1001)
    cell = interval_cell(np.array([0.1]), drawn)
    assert (cell.low, cell.high) == pytest.approx((-0.95, 0.95))
    assert interval_cell(np.array([np.nan]), drawn).value is None
    mostly = np.where(np.arange(1001) < 600, np.nan, drawn)
    assert interval_cell(np.array([0.1]), mostly).low is None


def test_intervals_of_correlations_cover_other_runs_from_three_on() -> None:
    """Without a spread over tokens it is the t interval over runs: 0.5 +- 4.3027 * 0.1 / sqrt(3)."""
    still = np.full(50, 0.5)
    cell = interval_cell(np.array([0.4, 0.5, 0.6]), still)
    assert (cell.low, cell.high) == pytest.approx((0.5 - 0.2484, 0.5 + 0.2484), rel=1e-3)
    assert cell.p == pytest.approx(stats.ttest_1samp([0.4, 0.5, 0.6], 0).pvalue)
    assert verdict(cell) == ABOVE
    few = interval_cell(np.array([0.5, 0.6]), np.linspace(0.5, 0.6, 50))
    assert verdict(few) == "no verdict (2 seeds)"
    tokens = interval_cell(np.array([0.4, 0.5, 0.6]), np.linspace(-1, 2, 1001))
    assert tokens.high is not None
    assert cell.high is not None
    assert tokens.high - 0.5 > 2 * (cell.high - 0.5)  # both parts count


def test_the_score_is_what_the_run_measured(pruned: Callable[[str], StudyContext]) -> None:
    study = pruned("importance")
    (made,) = study.grid().values()
    found = measure_importance(study, made)
    expected = importances(made)["token_P"]
    assert tuple(found) == MEASURES
    assert found["score"] == pytest.approx(expected, rel=1e-4)
    assert found["gradient"] != pytest.approx(expected, rel=1e-1)
    assert found["norm"] == pytest.approx(np.linalg.norm(made.prompt("tuned").numpy(), axis=1), rel=1e-5)


def test_the_study_end_to_end(pruned: Callable[[str], StudyContext]) -> None:
    found = conduct(pruned("importance"))
    means, correlations, masked, retrained, rivals = found.tables
    assert [row[0] for row in means.rows] == list(MEASURES)
    assert means.rows[0][2] == ""  # the score less its own
    # The mean over one run is that run's correlation.
    for at, removal in enumerate(("zero", "drop")):
        of_run = correlations.rows[at]
        assert str(of_run[0]).endswith(removal)
        for number, row in enumerate(means.rows):
            mean, single = row[1 + 2 * at], of_run[1 + number]
            assert isinstance(mean, Cell)
            assert isinstance(single, Cell)
            assert mean.value == pytest.approx(single.value)
    assert len(masked.rows) == 1 + 2 * len(MEASURES)
    assert len(retrained.rows) == 1 + len(MEASURES)
    assert len(rivals.rows) == len(MEASURES)  # all but the score, and the control
    assert len(found.sentences) == 4 + len(rivals.rows)
    assert all("no verdict (1 seed)" in sentence for sentence in found.sentences[1:4:2])
