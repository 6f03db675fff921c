"""Records hold what they say, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from records import STARTED, run_document
from softprune.errors import SoftpruneError
from softprune.runs.comparison_record import ComparisonRecord, StudyRecord
from softprune.runs.record import RunRecord, begin_run, read_record
from softprune.runs.record_parts import ResultRow, TrainingCost

ROW = {"metric": "accuracy", "value": 0.5, "interval": [0.4, 0.6], "n": 10}


def write(folder: Path, document: dict[str, Any], name: str = "run.json") -> Path:
    (folder / name).write_text(json.dumps(document))
    return folder


@pytest.mark.parametrize("kind", ["tune", "xprompt", "adapt", "tokens"])
def test_a_record_comes_back_from_its_file(kind: Any, tmp_path: Path) -> None:
    record = begin_run(kind, "softprune", 3)
    record.cost.training["tune"] = TrainingCost(steps=1, examples=2, seconds=0.5)
    record.results["tuned"] = ResultRow(metric="accuracy", value=0.5, interval=(0.4, 0.6), n=10)
    record.search.strategy = "grid"
    record.add_notes("a note", "a note")
    document = record.document()
    assert read_record(write(tmp_path, document), RunRecord).document() == document
    assert document["notes"] == ["a note"]
    assert document["results"]["tuned"] == ROW


def test_what_is_not_known_is_null_and_what_was_never_set_is_absent() -> None:
    document = begin_run("xprompt", "softprune", 3).document()
    assert next(iter(document)) == "verdict"
    assert document["K"] is None
    assert document["backbone"] == dict.fromkeys(("name", "family", "fingerprint", "dtype", "device"))
    assert not {"memory", "K_history", "notes", "search", "gates", "model"} & document.keys()
    assert "verdict" not in begin_run("tune", "softprune", 3).document()


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda record: setattr(record, "k", 3), "k"),
        (lambda record: setattr(record, "K", "3"), "K"),
        (lambda record: setattr(record.cost, "second", 1.0), "second"),
        (lambda record: setattr(record.task, "id", 7), "id"),
        (lambda record: setattr(record, "status", "done"), "status"),
        (lambda record: ResultRow(metric="accuracy"), "value"),
        (lambda record: ResultRow(metric="accuracy", value=0.5, accuracy=0.5), "accuracy"),
        (lambda record: TrainingCost(steps=1.5, examples=1, seconds=1.0), "steps"),
    ],
)
def test_a_wrong_write_is_an_error(change: Callable[[RunRecord], object], place: str) -> None:
    with pytest.raises(ValidationError) as error:
        change(begin_run("tune", "softprune", 3))
    assert error.value.errors()[0]["loc"] == (place,)


def without(document: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != key}


@pytest.mark.parametrize(
    ("document", "place"),
    [
        (run_document(schema=2), "schema"),
        ({"schema": 2}, "schema"),
        (without(run_document(), "status"), "status"),
        (without(run_document(), "cost"), "cost"),
        (run_document(status="done"), "status"),
        (run_document(K="3"), "K"),
        (run_document(results={"tuned": ROW | {"value": "good"}}), "results.tuned.value"),
        (run_document(results={"tuned": without(ROW, "metric")}), "results.tuned.metric"),
    ],
)
def test_a_file_of_another_layout_is_refused_with_the_place(
    document: dict[str, Any], place: str, tmp_path: Path
) -> None:
    with pytest.raises(SoftpruneError) as error:
        read_record(write(tmp_path, document), RunRecord)
    assert error.value.expected == "a run.json as softprune writes it"
    assert f"run.json: {place}: " in error.value.found


def test_keys_of_other_versions_are_left_out_on_read(tmp_path: Path) -> None:
    document = run_document(results={"tuned": ROW | {"surprise": 1}}, novelty={"a": 1})
    record = read_record(write(tmp_path, document), RunRecord)
    assert record.document() == run_document(results={"tuned": ROW})


def test_an_interval_with_an_unknown_end_is_none(tmp_path: Path) -> None:
    document = run_document(results={"tuned": ROW | {"interval": [None, 0.6]}})
    row = read_record(write(tmp_path, document), RunRecord).results["tuned"]
    assert row is not None
    assert row.interval is None


def test_records_of_comparisons_and_studies(tmp_path: Path) -> None:
    begun = ComparisonRecord.begin("compare", "softprune compare", cells={}).document()
    assert read_record(write(tmp_path, begun, "compare.json"), ComparisonRecord).document() == begun
    older = without(run_document("study"), "cost") | {"attempts": 3, "tasks": ["demo"], "work": {"a": 1.5}}
    study = read_record(write(tmp_path, older, "study.json"), StudyRecord)
    assert (study.attempts, study.tasks, study.work, study.started) == ([], ["demo"], {"a": 1.5}, STARTED)
    with pytest.raises(SoftpruneError, match=r"no run\.json in"):
        read_record(tmp_path, RunRecord)


def costing(kind: str, **fields: Any) -> RunRecord:
    """A run of a prompt of 20 tokens, whose ticket has 8, with a second for each phase."""
    phases = dict.fromkeys(("tune", "rank", "retrain", "adapt", "control", "fresh", "report"), 1.0)
    rows = {
        "tuned": {"tokens": 20, "pieces": 80, "seconds": 1.0},
        "winner": {"tokens": 8, "pieces": 20, "seconds": 2.0},
    }
    results = {name: ROW | row for name, row in rows.items()} | {"adapted": ROW, "zero_shot": ROW, "control": None}
    prompt = {"P": 20, "H": 8, "S": 4, "init": "vocabulary"}
    document = run_document(kind, results=results, prompt=prompt, cost={"phases": phases}, **fields)
    return RunRecord.model_validate_json(json.dumps(document), context={"reading": True})


def test_a_result_takes_what_makes_it() -> None:
    """A ticket the whole search, but no rival's training; other prompts of the same run their own alone."""
    run = costing("xprompt")
    assert [run.training_seconds(name) for name in ("winner", "tuned", "control")] == [4.0, 1.0, None]
    assert costing("tune").training_seconds("tuned") == 4.0
    run.cost.phases = {}
    assert run.training_seconds("winner") is None


def test_zeroed_tokens_are_read_and_dropped_ones_are_not() -> None:
    names = ("tuned", "winner", "zero_shot", "control")
    read = {removal: costing("xprompt", removal=removal) for removal in ("drop", "zero")}
    assert [read["drop"].tokens_read(name) for name in names] == [20, 8, None, None]
    assert [read["zero"].tokens_read(name) for name in names] == [20, 20, None, None]
    assert costing("adapt").tokens_read("adapted") == 0  # LoRA, say, has no virtual tokens
