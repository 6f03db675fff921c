"""Metrics through counts, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from softprune.data import METRICS, answered, constant_answer, load_task, metric_named
from softprune.data.metrics import Metric, answer_arrays, metric_label
from softprune.errors import SoftpruneError
from softprune.statistics.bootstrap import Floats
from softprune.types import Scores


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
    assert tuple(METRICS) == ("accuracy", "f1", "rouge1", "rouge2", "rougeL", "exact_match")


class BalancedAccuracy(Metric):
    """The mean over right answers of the fraction of their examples that are answered rightly."""

    name: ClassVar[str] = "balanced_accuracy"
    label: ClassVar[str] = "balanced accuracy"

    def __init__(self, n_answers: int) -> None:
        self.n_answers = n_answers

    @classmethod
    def for_task(cls, n_answers: int, positive: int | None, extract: str | None = None) -> Metric:
        return cls(n_answers)

    def counts(self, scores: Scores) -> Floats:
        predicted, gold = answer_arrays(scores)
        is_gold = gold[:, None] == np.arange(self.n_answers)
        hits = is_gold & (predicted == gold)[:, None]
        return np.concatenate([hits, is_gold], axis=1).astype(np.float64)

    def score(self, counts: Floats) -> Floats:
        hits, examples = np.split(counts, 2, axis=-1)
        return np.asarray((hits / np.maximum(examples, 1)).sum(-1) / (examples > 0).sum(-1))


def test_a_new_metric_needs_a_class_and_a_place_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(METRICS, BalancedAccuracy.name, BalancedAccuracy)
    rows = [f"text {i},{'rare' if i % 10 == 0 else ('usual' if i % 2 else 'other')}" for i in range(40)]
    (tmp_path / "mail.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    (tmp_path / "mail.yaml").write_text(
        "fields: [text]\ntemplate: '{text} {mask}'\nanswers: [rare, usual, other]\nmetric: balanced_accuracy\n"
        "sources: {file: {files: {train: mail.csv}, held_out: 0.5}}\n"
    )
    task = load_task(tmp_path / "mail.yaml")
    gold = [example.gold for example in task.load().report]
    assert constant_answer(gold, 3, task.metric).value == pytest.approx(1 / 3)
    assert task.metric.value(answered(gold, gold)) == 1
    assert metric_label("balanced_accuracy") == "balanced accuracy"


def test_labels_are_for_reports_and_other_names_stay():
    assert [metric_label(name) for name in ("rouge1", "rougeL", "accuracy", "macro F1")] == [
        *("ROUGE-1", "ROUGE-L", "accuracy", "macro F1")
    ]
