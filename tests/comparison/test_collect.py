"""What is read from the runs' files: counts of answers and of texts, passages, and what can't be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from records import run_document
from softprune.data.metrics import metric_named
from softprune.errors import SoftpruneError
from softprune.studies.comparison.columns import TRAINING
from softprune.studies.run_result import FinishedRun, score_lines


def numbered(*lines: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"id": f"e{at}", **line} for at, line in enumerate(lines)]


def test_answers_become_counts_with_their_passages() -> None:
    lines = numbered({"gold": 1, "predicted": 1, "group": "a"}, {"gold": 0, "predicted": 1, "group": "a"})
    found = score_lines(lines, metric_named("f1", 1))
    assert found is not None
    assert found.counts_NC.tolist() == [[1, 0, 0], [0, 1, 0]]  # tp, fp, fn
    assert (found.ids, found.groups) == (("e0", "e1"), ("a", "a"))
    other = score_lines(lines, metric_named("f1", 0))
    assert other is not None
    assert other.counts_NC.tolist() != found.counts_NC.tolist()


def test_texts_become_their_own_scores() -> None:
    lines = numbered({"written": "a b", "reference": "a c", "rougeL": 0.25})
    stored, made = (score_lines(lines, metric_named(name)) for name in ("rougeL", "rouge1"))
    assert stored is not None
    assert made is not None
    assert stored.counts_NC.tolist() == [[0.25, 1.0]]  # as the run has it
    assert np.allclose(made.counts_NC, [[0.5, 1.0]])


def test_texts_with_an_answer_become_right_or_wrong() -> None:
    metric = metric_named("exact_match", extract="no such mark")
    lines = numbered({"right": True}, {"right": False})  # of a fresh seed, without texts
    found = score_lines(lines, metric)
    assert found is not None
    assert found.counts_NC.tolist() == [[1, 1], [0, 1]]
    texts = score_lines(numbered({"written": "is 4", "reference": "# 4"}), metric_named("exact_match", extract=r"\d"))
    assert texts is not None
    assert texts.counts_NC.tolist() == [[1, 1]]
    assert score_lines(numbered({"exact_match": 1.0}), metric) is None


def test_what_is_not_there_has_no_counts(tmp_path: Path) -> None:
    assert FinishedRun(tmp_path, "demo", 0).scored("tuned") is None
    for lines in ([], numbered({"gold": 1})):
        assert score_lines(lines, metric_named("accuracy")) is None


def test_the_controls_training_has_all_rates_that_were_tried(tmp_path: Path) -> None:
    pieces = {"sweep-0.3": 5.0, "sweep-1": 7.0, "sweep-3": 11.0, "control-control": 2.0, "retrain-a": 100.0}
    training = {name: {"steps": 1, "examples": 1, "seconds": seconds} for name, seconds in pieces.items()}
    rates = {multiple: {"lr": 1.0, "score": 0.5, "loss": 1.0, "chosen": multiple == "1"} for multiple in "139"}
    info = run_document(
        results={"control": {"metric": "accuracy", "value": 0.5, "parameters": 8, "seconds": 9.0}},
        cost={"phases": {}, "training": training},
        sweep={"0.3": rates["3"], **rates},
    )
    (column,) = [column for column in TRAINING if column.key == "seconds"]

    def seconds() -> float | None:
        (tmp_path / "run.json").write_text(json.dumps(info))
        assert column.read is not None
        return column.read(FinishedRun(tmp_path, "demo", 0), "control")

    assert seconds() == 9 + 5 + 11  # the chosen rate's 7 are in the 9; a rate that gave no numbers may have no piece
    del info["sweep"]
    assert seconds() == 9
    del info["results"]["control"]["seconds"]
    assert seconds() is None


def test_a_run_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(SoftpruneError, match=r"as softprune writes it[\s\S]*run\.json"):
        _ = FinishedRun(tmp_path, "demo", 0).record
