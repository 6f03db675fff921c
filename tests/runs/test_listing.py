from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from records import run_document
from softprune.errors import SoftpruneError
from softprune.runs.listing import list_runs
from softprune.runs.record_parts import ResultRow, TicketRecord
from softprune.runs.run_folder import RunFolder

Begin = Callable[..., RunFolder]


def test_status_tells_running_from_interrupted(begin: Begin, tmp_path: Path) -> None:
    def status() -> str:
        (summary,) = list_runs(tmp_path)
        return summary.status

    with begin() as run:
        assert status() == "running"
        run.fail("no")
        assert status() == "failed"
    with begin():
        pass
    assert status() == "interrupted"
    with begin() as run:
        run.complete()
    assert status() == "complete"


def test_a_summary_reads_the_winner_else_the_tuned_prompt(begin: Begin, tmp_path: Path) -> None:
    with begin() as run:
        (summary,) = list_runs(tmp_path)
        assert (summary.result, summary.value, summary.tokens) == (None, None, None)
        with run.editing() as record:
            record.task.id, record.backbone.name = "cb", "tiny"
            record.cost.phases = {"tune": 1.5, "search": 2.0}
            record.results["tuned"] = ResultRow(metric="accuracy", value=0.5)
        (summary,) = list_runs(tmp_path)
        assert (summary.result, summary.metric, summary.value) == ("tuned", "accuracy", 0.5)
        assert (summary.name, summary.kind, summary.task, summary.backbone) == (
            "run",
            "xprompt",
            "cb",
            "tiny",
        )
        assert summary.seconds == 3.5
        with run.editing() as record:
            record.results["winner"] = ResultRow(metric="accuracy", value=0.75)
            record.ticket = TicketRecord(tokens=3, pieces=9, parameters=90)
            record.cost.seconds = 4.0
        (summary,) = list_runs(run.path)
        assert (summary.name, summary.result, summary.value) == (".", "winner", 0.75)
        assert (summary.tokens, summary.pieces, summary.parameters, summary.seconds) == (3, 9, 90, 4.0)


def test_a_comparison_is_listed_with_its_runs(begin: Begin, tmp_path: Path) -> None:
    with begin():
        pass
    (tmp_path / "all").mkdir()
    told = run_document("compare", status="running", task="Mood", backbone="tiny")
    del told["cost"]
    (tmp_path / "all" / "compare.json").write_text(json.dumps(told))
    assert [(found.name, found.kind, found.status) for found in list_runs(tmp_path)] == [
        ("all", "compare", "interrupted"),
        ("run", "xprompt", "interrupted"),
    ]


def test_files_of_other_programs_are_left_out(tmp_path: Path) -> None:
    for number, text in enumerate(["{torn", "[]", json.dumps({"status": "ok"})]):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "run.json").write_text(text)
    assert list_runs(tmp_path) == []


def test_a_root_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SoftpruneError, match="a folder that holds runs"):
        list_runs(tmp_path / "nowhere")
