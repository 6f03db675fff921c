"""Whole runs whose groups are trained elsewhere: everything travels, only the driver writes, the bits stay."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from whole_runs import CASES, Models, Run, Witness, execute_one, recipe_of

from softprune.config import Recipe
from softprune.errors import ManyErrors, SoftpruneError
from softprune.pipelines.xprompt import execute
from softprune.runs import atomic_io, executors
from softprune.runs.executors import Executor
from softprune.runs.run_folder import RunFolder, Saved
from softprune.runs.worker_store import Pinned, StandIn
from softprune.training import distribute, hardware, jobs, session
from softprune.types import Result, WorkItem

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread", "elsewhere")]


class Elsewhere(Executor):
    """What Ray does, without its processes: whatever goes to a worker or comes back is pickled, no file is written."""

    elsewhere = True
    sent: list[str]
    refuses_after: int | None
    damages: bool

    def map(
        self, function: Callable[[WorkItem], object], items: Any, cpus: float = 1, gpus: float = 0
    ) -> Iterator[Result]:
        assert (cpus, gpus) == (1, 0)
        for item in items:
            if len(self.sent) == self.refuses_after:
                raise KeyboardInterrupt
            self.sent.append(item.id)
            there, what = pickle.loads(pickle.dumps((function, item)))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(atomic_io, "write_bytes", refuse)
                patch.setattr(RunFolder, "append_metrics", refuse)
                back = pickle.loads(pickle.dumps(there(what)))
            if self.damages:
                for saved in back[0].pieces.values():
                    nudge(saved)
            yield Result(item.id, back)


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("a worker wrote into the run folder")


def nudge(saved: Saved) -> None:
    vectors = saved.tensors["vectors_KPH"]
    vectors.copy_(torch.nextafter(vectors, vectors + 1))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Elsewhere]]:
    """The double in Ray's place; what its workers have loaded goes with each test."""
    Elsewhere.sent, Elsewhere.refuses_after, Elsewhere.damages = [], None, False
    monkeypatch.setattr(executors, "RayCluster", Elsewhere)
    yield Elsewhere
    distribute._workspace.cache_clear()


def on_workers(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"executor": "ray"})


@pytest.mark.parametrize("case", ["grid, drop", "random, drop"])
def test_the_bits_are_those_of_one_process(
    case: str,
    run_of: Callable[[str], Run],
    tmp_path: Path,
    tiny_models: Models,
    task_file: Path,
    elsewhere: type[Elsewhere],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted, loaded, load = run_of(case), [], hardware.load_backbone
    monkeypatch.setattr(hardware, "load_backbone", lambda *a, **k: (loaded.append(a), load(*a, **k))[1])
    found = execute_one(tiny_models("sentence"), task_file, tmp_path / "run", *CASES[case], "executor=ray")
    assert found.bits() == wanted.bits()
    assert set(elsewhere.sent) == set(wanted.info["cost"]["training"]) - {"tune"}
    assert len(elsewhere.sent) > 3
    assert len(loaded) == 2, "the driver loads once, and a worker once for all its pieces"
    assert [phase for phase, _ in found.witness.opened] == ["report"], "no worker opens it"
    spent = [{k: {**v, "seconds": 0} for k, v in run.info["cost"]["training"].items()} for run in (found, wanted)]
    assert spent[0] == spent[1]


def test_workers_train_with_the_rate_that_the_driver_swept(
    tmp_path: Path, tiny_models: Models, task_file: Path, elsewhere: type[Elsewhere]
) -> None:
    changes = (*CASES["grid, drop"], "tuning.sweep=0.1,3", "selection.seeds=0")  # so that 1 can't be chosen
    wanted = execute_one(tiny_models("sentence"), task_file, tmp_path / "here", *changes)
    found = execute_one(tiny_models("sentence"), task_file, tmp_path / "there", *changes, "executor=ray")
    assert found.bits() == wanted.bits()
    assert found.info["settings"]["lr"] == wanted.info["settings"]["lr"] != pytest.approx(0.3)
    assert elsewhere.sent
    assert not any(work.startswith("sweep") for work in elsewhere.sent)


def test_the_comparison_sees_one_last_bit(
    run_of: Callable[[str], Run], tmp_path: Path, tiny_models: Models, task_file: Path, elsewhere: type[Elsewhere]
) -> None:
    elsewhere.damages = True
    case = CASES["grid, drop"]
    found = execute_one(tiny_models("sentence"), task_file, tmp_path / "run", *case, "executor=ray")
    assert found.bits() != run_of("grid, drop").bits()


@pytest.mark.parametrize("case", ["random, drop"])
def test_what_came_back_is_never_sent_again(
    case: str, run_of: Callable[[str], Run], tmp_path: Path, elsewhere: type[Elsewhere]
) -> None:
    """The driver dies after every piece in turn."""
    recipe, out, before = on_workers(run_of(case).recipe), tmp_path / "run", 0
    while not (out / "COMPLETE").exists():
        elsewhere.refuses_after = len(elsewhere.sent) + 1
        try:
            execute(recipe, out, "softprune run mine.yaml", "# mine\n" + recipe.dump())
        except KeyboardInterrupt:
            assert len(elsewhere.sent) == before + 1
            before += 1
    assert before > 3
    assert len(set(elsewhere.sent)) == len(elsewhere.sent)
    # The lines stand in the order in which pieces came back.
    assert sorted_bits(Run(out, recipe, Witness(out))) == sorted_bits(run_of(case))


def sorted_bits(run: Run) -> dict[str, Any]:
    bits: dict[str, Any] = run.bits()
    return bits | {"curves": sorted(json.dumps(line, sort_keys=True) for line in bits["curves"])}


def test_a_worker_goes_on_where_the_driver_left_off(
    run_of: Callable[[str], Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun in one process, cut off within a group, gone on with elsewhere: `executor` may change."""
    recipe, out, save = run_of("grid, zero").recipe, tmp_path / "run", jobs.FolderKeeper.save
    begun = []

    def die_in_retraining(keeper: jobs.FolderKeeper, *arguments: Any) -> None:
        save(keeper, *arguments)
        if (out / "state" / "tune.safetensors").exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(jobs.FolderKeeper, "save", die_in_retraining)
        with pytest.raises(KeyboardInterrupt):
            execute(recipe, out, "softprune run mine.yaml", "# mine\n" + recipe.dump())
    store = distribute._store
    monkeypatch.setattr(distribute, "_store", lambda w, r: (begun.append(r[1].begun), store(w, r))[1])
    execute(on_workers(recipe), out, "softprune run mine.yaml", "")
    assert begun[0] > 0
    assert set(begun[1:]) == {0}
    assert Run(out, recipe, Witness(out)).bits() == run_of("grid, zero").bits()
    assert json.loads((out / "run.json").read_text())["attempts"][1]["changed"] == {"executor": ["in-process", "ray"]}


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (("known", "inputs", "data"), "another", "found:    on .*: the data changed since"),
        (("known", "inputs", "backbone"), "another", "found:    on .*: the backbone's weights changed since"),
        (("versions", "torch"), "1.0", "found:    on .*: torch .* instead of 1.0"),
    ],
)
def test_a_worker_with_other_things_than_the_driver_is_told(
    place: tuple[str, ...],
    value: str,
    told: str,
    tmp_path: Path,
    tiny_models: Models,
    task_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = distribute._job

    def changed(workspace: session.Workspace) -> str:
        known = json.loads(job(workspace))
        inner = known
        for key in place[:-1]:
            inner = inner[key]
        assert inner[place[-1]] != value
        inner[place[-1]] = value
        return json.dumps(known)

    monkeypatch.setattr(distribute, "_job", changed)
    recipe = recipe_of(tiny_models("sentence"), task_file, "executor=ray", "search.strategy=grid")
    with pytest.raises(SoftpruneError, match=told):
        execute(recipe, tmp_path / "run", "test", "")


def test_a_group_too_large_for_a_worker_is_told(
    tmp_path: Path, tiny_models: Models, task_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = jobs.train

    def no_room(*arguments: Any, **options: Any) -> Any:
        if options["title"].startswith("retraining"):
            raise torch.OutOfMemoryError
        return train(*arguments, **options)

    monkeypatch.setattr(jobs, "train", no_room)
    recipe = recipe_of(tiny_models("sentence"), task_file, "executor=ray", "search.strategy=grid")
    with pytest.raises(SoftpruneError, match=r"out of memory[\s\S]*search\.group=1"):
        execute(recipe, tmp_path / "run", "test", "")


def test_a_stand_in_writes_nothing_and_makes_up_nothing() -> None:
    store = StandIn(Path("run"), Pinned(threads=1, device="cpu", dtype="float32", K=3, inputs={}))
    assert store.pin("K", lambda: 4) == 3
    with pytest.raises(RuntimeError, match=r"no search\.strategy"):
        store.pin("search.strategy", lambda: "grid")
    for write in (store.write_json, store.write_jsonl):
        with pytest.raises(RuntimeError, match="only the driver writes"):
            write("a.json", {})  # type: ignore[operator]
    with pytest.raises(RuntimeError, match="only the driver writes"):
        store.write_tensors("a", {}, {})


def test_errors_travel() -> None:
    error = SoftpruneError("a", "b", "c")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    many = pickle.loads(pickle.dumps(ManyErrors("recipe", [error, SoftpruneError("d", "e", "f")])))
    assert [e.found for e in many.errors] == ["b", "e"]
    assert "2 mistakes in recipe" in str(many)
