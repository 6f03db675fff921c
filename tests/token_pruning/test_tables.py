"""The table of a run, from run.json alone."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from records import run_document
from softprune.errors import SoftpruneError
from softprune.runs.record import RunRecord
from softprune.token_pruning.tables import BY_EXAMPLE, read_results, results_notes, results_table


def row(value: float, macs: float) -> dict[str, Any]:
    return {
        "metric": "accuracy",
        "value": value,
        "interval": [value - 0.02, value + 0.02],
        "n": 500,
        "macro_f1": value - 0.01,
        "kept": [1.0, 0.123, 0.01],
        "paper_macs": macs,
        "executed_macs": macs - 0.02,
        "difference": {"value": value - 0.9, "low": -0.03, "high": 0.01, "p": 0.2},
    }


@pytest.fixture
def info() -> dict[str, Any]:
    sizes = {"train": 400, "select": 99, "report": 500}
    return run_document(
        "tokens",
        task={"title": "Mood", "metric": "accuracy", "sizes": sizes, "cut_report": None},
        selection={"protocol": "held-out", "description": "", "chosen": "lambda-0.1", "within": True},
        stages={},
        results={
            "winner": None,
            "top-k": row(0.85, 0.6),
            "random-0": row(0.7, 0.6),
            "lambda-0.1": row(0.896, 0.5),
            "lambda-0.3": row(0.8, 0.3),
            "baseline": row(0.9, 1.0),
            "constant": {"metric": "accuracy", "value": 0.55, "n": 500},
        },
    )


def record(info: dict[str, Any]) -> RunRecord:
    return RunRecord.model_validate_json(json.dumps(info))


def shown(info: dict[str, Any]) -> list[str]:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(results_table(record(info)))
    return [line for line in console.export_text().splitlines() if "│" in line or "Mood" in line]


def test_every_row_in_its_order(info: dict[str, Any]) -> None:
    title, *lines = shown(info)
    assert "Mood, 500 examples of report, in percent" in title
    assert [line.split("│")[1].strip() for line in lines] == [
        "best constant answer",
        "unpruned model",
        "learned, lambda 0.1 *",
        "learned, lambda 0.3",
        "top-k by importance",
        "random tokens, seed 0",
    ]
    cells = [cell.strip() for cell in lines[2].split("│")[2:-1]]
    assert cells == ["89.6", "87.6 to 91.6", "88.6", "-0.4", "-3.0 to +1.0", "50", "48", "12"]
    assert [cell.strip() for cell in lines[0].split("│")[2:-1]] == ["55.0", *[""] * 7]


def test_notes_tell_how_the_model_was_chosen(info: dict[str, Any]) -> None:
    assert BY_EXAMPLE in results_notes(record(info))
    assert "not of training seeds" in BY_EXAMPLE
    assert (
        results_notes(record(info))[0]
        == "* chosen on 99 held-out examples of train: fewest operations within the margin"
    )
    info["selection"]["within"] = False
    assert results_notes(record(info))[0].endswith("none is within the margin; the best")
    info["task"]["cut_report"] = {"examples": 7, "tokens": 300}
    assert results_notes(record(info))[1] == "7 texts of report were longer than the limit: 300 tokens were cut off"


def test_baselines_that_miss_the_operations_are_named(info: dict[str, Any]) -> None:
    assert not any("not at the chosen" in note for note in results_notes(record(info)))
    info["stages"] = {
        "top-k": {"relative_macs": 0.6, "macs_target": 0.5, "macs_reached": False, "rate": 0.0},
        "manual": {"relative_macs": 0.5, "macs_target": 0.5, "macs_reached": True},
        "random-0": {"relative_macs": 0.6, "macs_target": 0.5, "macs_reached": False, "rate": 0.0},
    }
    (told,) = [note for note in results_notes(record(info)) if "not at the chosen" in note]
    assert told == (
        "not at the chosen model's operations, 50% on the held-out set: top-k by importance 60%, "
        "random tokens, seed 0 60%; the rules that keep a share of the tokens leave the first layers whole"
    )


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SoftpruneError, match=r"no run\.json in"):
        read_results(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps(run_document("tune")))
    with pytest.raises(SoftpruneError, match="a run of kind tune"):
        read_results(tmp_path)
    for torn in ("[]", "{torn", "3"):
        (tmp_path / "run.json").write_text(torn)
        with pytest.raises(SoftpruneError):
            read_results(tmp_path)
