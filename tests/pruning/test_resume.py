"""Whole runs that are broken off and taken up: the same bits at the end, and never on other data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toys import distance
from whole_runs import Models, Run, Witness, recipe_of

from killing import finish_in_tries
from softprune.config import Recipe
from softprune.errors import SoftpruneError
from softprune.pipelines.xprompt import execute
from softprune.pipelines.xprompt import tune as tune_from_python
from softprune.training import jobs
from softprune.training.loop import Trained

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.mark.parametrize(
    ("case", "every"),
    [("grid, zero", 1), ("random, drop", 3), ("learned, drop", 3), ("taught, drop", 3), ("gradual, drop", 3)],
)
def test_a_run_taken_up_after_any_save_ends_with_the_same_bits(
    case: str, every: int, run_of: Callable[[str], Run], tmp_path: Path
) -> None:
    """Each try dies after its next saved evaluation, or its next but two, until none is left to make."""
    out, recipe = tmp_path / "broken", run_of(case).recipe
    words = ("softprune run mine.yaml", "# mine\n" + recipe.dump())
    tries = finish_in_tries(lambda: execute(recipe, out, *words), out, every)
    assert tries > 10 // every
    assert Run(out, recipe, Witness(out)).bits() == run_of(case).bits()


@pytest.mark.parametrize("groups", [(3, 1), (1, 3)])
def test_a_run_taken_up_with_another_group_ends_alike(
    groups: tuple[int, int], run_of: Callable[[str], Run], tmp_path: Path
) -> None:
    """Killed in its first retraining: no group takes up another one's state, and no point is on a curve twice."""
    recipe, out, save = run_of("grid, zero").recipe, tmp_path / "run", jobs.FolderKeeper.save

    def of_group(size: int) -> Recipe:
        return recipe.model_copy(update={"search": recipe.search.model_copy(update={"group": size})})

    def die_in_retraining(keeper: jobs.FolderKeeper, *arguments: Any) -> None:
        save(keeper, *arguments)
        if (out / "state" / "tune.safetensors").exists():
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs.FolderKeeper, "save", die_in_retraining)
        with pytest.raises(KeyboardInterrupt):
            execute(of_group(groups[0]), out, "test", "")
    execute(of_group(groups[1]), out, "test", "")
    found, wanted = (load_file(folder / "ticket" / "ticket.safetensors") for folder in (out, run_of("grid, zero").out))
    assert torch.equal(found["piece_PS"], wanted["piece_PS"])
    assert distance(found["vectors_QH"], wanted["vectors_QH"]) <= 1e-4
    started = load_file(out / "prompts" / "tuned.safetensors")["vectors_PH"][wanted["index_Q"]]
    assert distance(started, wanted["vectors_QH"]) > 1e-2, "retraining moved it"
    points = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    places = [(point["phase"], point["candidate"], point["step"]) for point in points]
    assert len(set(places)) == len(places)


def test_a_complete_run_is_left_as_it_is(run_of: Callable[[str], Run]) -> None:
    run = run_of("tune")

    def written() -> dict[Path, int]:
        files = (path for path in run.out.rglob("*") if path.is_file() and path.name != ".lock")
        return {path: path.stat().st_mtime_ns for path in files}

    before = written()
    execute(run.recipe, run.out, "again", "")
    assert written() == before


def test_failures_are_told_and_can_be_taken_up(
    tmp_path: Path, tiny_models: Models, task_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(tiny_models("sentence"), task_file, "kind=tune", "tuning.epochs=1")

    def no_room(*_: object, **__: object) -> Trained:
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "train", no_room)
        with pytest.raises(SoftpruneError, match=r"out of memory[\s\S]*tuning\.eval_rows=128"):
            tune_from_python(recipe, tmp_path / "run")
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "failed"
    tune_from_python(recipe, tmp_path / "run")
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "complete"


def test_a_run_is_not_taken_up_on_other_data(
    tmp_path: Path, tiny_models: Models, task_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored pieces of work of one data set never mix with another's."""
    own, model = (
        shutil.copytree(task_file.parent, tmp_path / "own"),
        shutil.copytree(tiny_models("sentence"), tmp_path / "model"),
    )
    recipe = recipe_of(model, own / "mood.yaml", "kind=tune", "tuning.epochs=1")

    def die(*_: object, **__: object) -> Trained:
        raise SoftpruneError("a", "b", "c")

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "train", die)
        with pytest.raises(SoftpruneError):
            tune_from_python(recipe, tmp_path / "run")
    data, task, words = own / "train.csv", own / "mood.yaml", tmp_path / "model" / "tokenizer.json"
    edits = {
        "the data": (data, "quiet joy", "quiet film"),
        "the task's YAML": (task, "it was", "that is"),
        "the tokenizer": (words, '"##e":', '"##ë":'),
    }

    def refused(name: str) -> None:
        path, before, after = edits[name]
        as_it_was = path.read_text()
        assert before in as_it_was
        path.write_text(as_it_was.replace(before, after))
        with pytest.raises(SoftpruneError, match=rf"^expected: {name} as .* was begun with\nfound:    {name} changed"):
            tune_from_python(recipe, tmp_path / "run")
        path.write_text(as_it_was)

    for name in edits:
        refused(name)
    tune_from_python(recipe, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    for name in ("the data", "the task's YAML"):  # a complete run's results are of these, too
        refused(name)
    data.rename(tmp_path / "elsewhere.csv")
    tune_from_python(recipe, tmp_path / "run")
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
