"""Metrics through counts, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from softprune.data import METRICS, answered, constant_answer, metric_named
from softprune.errors import SoftpruneError


def test_accuracy_counts_and_value():
    accuracy = metric_named("accuracy")
    assert accuracy.counts(answered([0, 1, 2], [0, 2, 2])).tolist() == [[1, 1], [0, 1], [1, 1]]
    assert accuracy.value(answered([0, 1, 2], [0, 2, 2])) == pytest.approx(2 / 3)


def test_f1_counts_and_value():
    f1 = metric_named("f1", positive=1)
    assert f1.counts(answered([1, 1, 0, 0], [1, 0, 1, 0])).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert f1.value(answered([1, 1, 0, 0], [1, 0, 1, 0])) == pytest.approx(0.5)


def test_f1_without_any_positive_is_zero():
    assert metric_named("f1", positive=1).value(answered([0, 0], [0, 0])) == 0.0


def test_scores_work_along_leading_axes():
    counts = np.array([[[3.0, 4.0], [1.0, 2.0]]])
    assert metric_named("accuracy").score(counts).tolist() == [[0.75, 0.5]]
    assert metric_named("f1").score(np.zeros((2, 3, 3))).shape == (2, 3)


def test_constant_answer_takes_the_best_and_the_lower_of_equals():
    accuracy = metric_named("accuracy")
    best = constant_answer([1, 1, 0], 2, accuracy)
    assert (best.answer, best.value) == (1, pytest.approx(2 / 3))
    assert constant_answer([1, 0], 2, accuracy).answer == 0


def test_constant_answer_of_f1_is_the_positive_one():
    best = constant_answer([0, 0, 0, 1], 2, metric_named("f1", positive=1))
    assert (best.answer, best.value) == (1, pytest.approx(2 * 1 / (2 + 3)))


def test_unknown_metric_and_uneven_lengths():
    with pytest.raises(SoftpruneError, match='did you mean "accuracy"'):
        metric_named("acuracy")
    with pytest.raises(SoftpruneError, match="one prediction per example"):
        metric_named("accuracy").value(answered([0], [0, 1]))
    assert tuple(METRICS) == ("accuracy", "f1", "rouge1", "rouge2", "rougeL")
