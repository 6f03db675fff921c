"""`softprune plan`: the table, the JSON, and mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Softprune = Callable[..., Any]
Models = Callable[[str], Path]

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ("task.shots=20", "task.limit_report=30", "prompt.tokens=4", "prompt.pieces=4", "tuning.epochs=2")


@pytest.fixture
def settings(tiny_models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    monkeypatch.chdir(tmp_path)
    return (f"backbone.name={tiny_models('sentence')}", "backbone.dtype=float32", *SMALL)


def test_a_plan_in_words(softprune: Softprune, settings: tuple[str, ...], tmp_path: Path) -> None:
    answer = softprune("plan", "demo", *settings)
    assert answer.code == 0, answer.err
    for part in (
        "14 train, 6 select, 30 report examples",
        "grid, 4 candidates, K = 8 side by side",
        "128 parameters",
        "retrain",
        "free",
    ):
        assert part in answer.out
    assert "stop early" in answer.out
    assert not list(tmp_path.iterdir())
    assert "stop early" not in softprune("plan", "demo", *settings, "tuning.patience=none").out


def test_a_plan_as_json_from_flags_and_keys(softprune: Softprune, settings: tuple[str, ...]) -> None:
    """Without a recipe's name; K is measured, since nobody named it."""
    answer = softprune(
        "plan", *settings, "--strategy", "sequential", "--removal", "zero", "--fresh-seeds", "0", "--json"
    )
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert (found["strategy"], found["candidates"], found["K"]) == ("sequential", 18, 9)
    assert [stage["name"] for stage in found["stages"]] == ["tune", "retrain", "control"]
    assert found["memory"]["step"]["each"] > 0


def test_a_plan_of_tuning_alone(softprune: Softprune, settings: tuple[str, ...]) -> None:
    answer = softprune("plan", "kind=tune", *settings)
    assert answer.code == 0, answer.err
    assert "candidates" not in answer.out.split("Time is")[0]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("nonsense",), "nonsense"),
        (("demo", "prompt.pieces=7"), "prompt.pieces that divide"),
        (("demo", "task.id=nothing"), "nothing"),
    ],
)
def test_what_keeps_a_run_from_beginning_keeps_its_plan(
    softprune: Softprune, settings: tuple[str, ...], words: tuple[str, ...], told: str
) -> None:
    answer = softprune("plan", words[0], *settings, *words[1:])
    assert answer.code == 2
    assert "expected: " in answer.err
    assert told in answer.err
    assert "Traceback" not in answer.err
