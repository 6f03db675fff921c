"""A whole XPrompt run by several processes: one of them writes, all of them decide the same."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from toys import distance

from members import in_parallel
from softprune.config import Recipe, resolve
from softprune.errors import SoftpruneError
from softprune.pipelines.xprompt import execute
from softprune.runs import processes as processes_room
from softprune.runs.processes import ALONE, Processes
from softprune.training import hardware, jobs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
TOLERANCE = 1e-5


@pytest.fixture
def recipe(tiny_models: Callable[[str], Path]) -> Recipe:
    return resolve(
        [
            f"backbone.name={tiny_models('sentence')}",
            "backbone.dtype=float32",
            "task.shots=40",
            "task.limit_report=24",
            "prompt.tokens=4",
            "prompt.pieces=4",
            "tuning.epochs=2",
            "tuning.batch_size=9",
            "search.strategy=grid",
            "search.token_ratios=0.25,0.5",
            "search.piece_ratios=0.5",
            "selection.seeds=1",
            "selection.resamples=200",
        ]
    )


@pytest.fixture(autouse=True)
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers patches torch while it loads a model: threads that load at once leave it patched."""
    lock, load = threading.Lock(), hardware.load_backbone

    def loading(*given: Any, **options: Any) -> Any:
        with lock:
            return load(*given, **options)

    monkeypatch.setattr(hardware, "load_backbone", loading)


def run(recipe: Recipe, out: Path, monkeypatch: pytest.MonkeyPatch, size: int = 2) -> list[bool]:
    """The run by `size` processes, and what each of them returns."""
    mine = threading.local()
    monkeypatch.setattr(processes_room, "join", lambda: mine.processes)

    def work(processes: Processes) -> bool:
        mine.processes = processes
        return execute(recipe, out, "test", recipe.dump())

    if size == 1:
        return [work(ALONE)]
    return in_parallel(work, size)


def outcome(out: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What was decided, without seconds and rounded numbers."""
    info = json.loads((out / "run.json").read_text())
    candidates = [json.loads(line) for line in (out / "candidates.jsonl").read_text().splitlines()]
    kept = ("id", "tokens_kept", "pieces_kept", "status", "select", "report", "pareto")
    results = {name: {k: row[k] for k in ("value", "predicted")} for name, row in info["results"].items()}
    return results, [{key: line[key] for key in kept} for line in candidates]


def test_a_whole_run_decides_as_one_process_does_also_when_it_was_cut_off(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert run(recipe, alone, monkeypatch, 1) == [True]
    assert run(recipe, together, monkeypatch) == [True, True]
    assert outcome(together) == outcome(alone)
    names = {str(path.relative_to(alone)) for path in alone.rglob("*") if path.suffix != ".lock"}
    assert {str(path.relative_to(together)) for path in together.rglob("*")} >= names
    for name in ("prompts/tuned.safetensors", "prompts/control.safetensors", "ticket/ticket.safetensors"):
        wanted = load_file(alone / name)
        for key, found in load_file(together / name).items():
            if found.is_floating_point():
                assert distance(found, wanted[key]) <= TOLERANCE
    assert [json.loads((out / "run.json").read_text())["processes"] for out in (alone, together)] == [1, 2]
    lines = [(out / "metrics.jsonl").read_text().count("\n") for out in (alone, together)]
    assert lines[0] == lines[1]
    assert run(recipe, together, monkeypatch) == [False, False]

    broken = tmp_path / "broken"
    save = jobs.FolderKeeper.save
    saves: list[int] = []

    def dying(self: jobs.FolderKeeper, *state: Any) -> None:
        save(self, *state)
        saves.append(1)
        if len(saves) == 9:
            raise RuntimeError("cut off")

    with monkeypatch.context() as patched:
        patched.setattr(jobs.FolderKeeper, "save", dying)
        with pytest.raises(RuntimeError, match="cut off"):
            run(recipe, broken, patched)
    assert json.loads((broken / "run.json").read_text())["status"] in ("failed", "running")
    assert list((broken / "state").glob("retrain*"))
    assert run(recipe, broken, monkeypatch) == [True, True]
    assert outcome(broken) == outcome(together)
    for name in ("prompts/tuned.safetensors", "prompts/control.safetensors"):
        assert load_file(broken / name)["vectors_PH"].equal(load_file(together / name)["vectors_PH"])


def test_only_the_first_one_touches_the_folder(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are given a folder that can't be."""
    mine = threading.local()
    monkeypatch.setattr(processes_room, "join", lambda: mine.processes)
    (tmp_path / "file").write_text("")

    def work(processes: Processes) -> bool:
        mine.processes = processes
        out = tmp_path / ("file" if processes.rank else "run")
        return execute(recipe.model_copy(update={"kind": "tune"}), out, "test", recipe.dump())

    assert in_parallel(work, 2) == [True, True]
    assert (tmp_path / "run" / "COMPLETE").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "run"]


def test_a_mistake_is_told_by_the_first(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.txt").write_text("not a run")
    with pytest.raises(SoftpruneError, match="holds 1 other things"):
        run(recipe, tmp_path, monkeypatch)
