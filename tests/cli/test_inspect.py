from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from softprune import __version__
from softprune.cli.output import duration, table
from softprune.runs.run_folder import RunFolder

Softprune = Callable[..., Any]
WHAT = ["run", "kind", "status", "task"]


def test_version(softprune: Softprune) -> None:
    assert softprune("--version").out == f"softprune {__version__}\n"


@pytest.mark.parametrize("arguments", [("nonsense",), ("run",), ("xprompt", "--los", "rank")])
def test_usage_errors_end_with_code_2(softprune: Softprune, arguments: tuple[str, ...]) -> None:
    answer = softprune(*arguments)
    assert answer.code == 2
    assert answer.err.startswith("expected: a command of the form softprune")


def test_runs_lists_what_was_measured(softprune: Softprune, tmp_path: Path) -> None:
    for name in ("a", "b"):
        with RunFolder.open(tmp_path / name, recipe_text="", resolved={"seed": 0}, kind="xprompt", command="x") as run:
            if name == "a":
                run.record(
                    task={"id": "cb"},
                    backbone={"name": "tiny"},
                    results={"winner": {"metric": "accuracy", "value": 0.7143}},
                    ticket={"tokens": 3, "pieces": 40, "parameters": 1920},
                    cost={"seconds": 200.4},
                )
                run.complete()
    answer = softprune("runs", str(tmp_path))
    header, first, second = answer.out.splitlines()
    assert header.split() == [*WHAT, "backbone", "score", "tokens", "pieces", "parameters", "time", "changed"]
    assert first.startswith(
        "a    xprompt  complete     cb    tiny      winner 71.4% accuracy  3       40      1,920       3m"
    )
    assert second.split()[:10] == ["b", "xprompt", "interrupted", *"------", "0s"]


def test_runs_of_an_empty_and_of_no_folder(softprune: Softprune, tmp_path: Path) -> None:
    assert softprune("runs", str(tmp_path)).out == f"no runs in {tmp_path}\n"
    answer = softprune("runs", str(tmp_path / "nowhere"))
    assert (answer.code, answer.out) == (2, "")
    assert "is no folder" in answer.err


def test_tasks_list_names_every_task(softprune: Softprune) -> None:
    answer = softprune("tasks", "list")
    names = [line.split()[0] for line in answer.out.splitlines()]
    assert names[0] == "task"
    assert {"demo", "boolq", "copa", "trec"} <= set(names[1:])


def test_table_aligns() -> None:
    assert table([("a", "bb"), ("ccc", "d")]) == "a    bb\nccc  d"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (59.4, "59s"), (59.6, "1m 00s"), (185, "3m 05s"), (3599.7, "1h 00m"), (7800, "2h 10m")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
