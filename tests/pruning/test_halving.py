"""Halving: what it trains is what the grid would have trained, and what it leaves out costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from whole_runs import CASES, Models, Run, execute_one

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("removal", ["zero", "drop"])
def test_who_stays_ends_as_in_the_grid(
    removal: str, run_of: Callable[[str], Run], tmp_path: Path, tiny_models: Models, task_file: Path
) -> None:
    """Rungs, pauses and groups that shrink change no candidate; in float32 only the last bits move."""
    halved = run_of(f"halving, {removal}")
    like = [change for change in CASES[f"halving, {removal}"] if not change.startswith("search.strategy")]
    grid = execute_one(tiny_models("sentence"), task_file, tmp_path / "grid", "search.strategy=grid", *like)
    whole = {c["id"]: c for c in grid.lines("candidates.jsonl")}
    stayed = [c for c in halved.lines("candidates.jsonl") if c["select"] is not None]
    assert len(stayed) == 2
    for c in stayed:
        wanted = whole[c["id"]]["select_loss"]
        assert abs(c["select_loss"] - wanted) <= 1e-5 * wanted
        assert c["select"] == whole[c["id"]]["select"]
        others = [other["select_loss"] for name, other in whole.items() if name != c["id"]]
        assert all(abs(c["select_loss"] - other) > 1e-4 * other for other in others)
    spent = {name: run.info["cost"]["training"] for name, run in (("halved", halved), ("grid", grid))}

    def examples(name: str) -> int:
        return sum(part["examples"] for work, part in spent[name].items() if work.startswith(("rung", "retrain")))

    if removal == "zero":  # nobody runs out of patience there: of four, one is left out and one stops half-way
        assert examples("halved") / examples("grid") == 2.5 / 4


def test_one_entrant_a_tier_trains_only_the_first_by_masked_loss(
    tmp_path: Path, tiny_models: Models, task_file: Path
) -> None:
    changes = ("search.strategy=halving", "search.tiers=2", "search.entrants=1", "search.epochs=2")
    run = execute_one(tiny_models("sentence"), task_file, tmp_path / "one", *changes)
    candidates = run.lines("candidates.jsonl")
    trained = [c for c in candidates if c["select"] is not None]
    assert len(trained) == 2
    assert {c["status"] for c in candidates if c["select"] is None} == {"ranked"}
    for c in trained:
        tier = [other for other in candidates if (other["pieces_kept"] > 4) == (c["pieces_kept"] > 4)]
        assert c["rank_loss"] == min(other["rank_loss"] for other in tier)


def test_a_rung_seconds_add_up(run_of: Callable[[str], Run]) -> None:
    run = run_of("halving, zero")
    parts = run.info["cost"]["training"]
    rungs = [name for name in parts if name.startswith("rung")]
    assert {name.split("-")[0] for name in rungs} == {"rung1", "rung2"}
    assert all(parts[name]["steps"] > 0 for name in rungs)
    tuned = parts["tune"]["seconds"]
    assert run.info["results"]["winner"]["seconds"] > tuned
