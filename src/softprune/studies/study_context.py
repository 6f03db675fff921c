"""What an experiment works with: it asks for runs and for pieces of work, and gets each as it was made once.

Runs are shared: they lie beside the studies, under names that follow from their recipes, so that a run that several
studies ask for is made by the first of them, and waited for by the others.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Final, TypeVar

from rich.console import Console

from softprune.config import Recipe, Study, resolve
from softprune.errors import SoftpruneError
from softprune.runs import atomic_io
from softprune.runs.comparison_record import StudyRun
from softprune.runs.executors import EXECUTORS, Executor
from softprune.runs.job_folder import is_held
from softprune.studies.folder import RUNS, WORK, safe
from softprune.studies.run_cache import Spec, is_complete, make_run, say, under_heading
from softprune.studies.run_result import FinishedRun
from softprune.types import WorkItem

Keys = Mapping[str, Any]
Name = TypeVar("Name")
FILES: Final = "files"  # that runs begin with, beside the studies' folders
_MARK: Final = ".shared"  # beside the runs
_PLACE: Final = ("executor", "cluster")  # where the work is done: no result depends on these keys


def task_label(task: str) -> str:
    """A task's id, or the name of its file."""
    return Path(task).stem


def _digest(data: bytes) -> str:
    """Of a file's or a recipe's content: 40 bits, which differ among the thousands that one folder may hold."""
    return hashlib.sha256(data).hexdigest()[:10]


@dataclass(frozen=True, slots=True)
class StudyContext:
    """A study at work."""

    config: Study
    root: Path  # the folder of all studies, and of their runs; absolute
    folder: Path  # this study's
    console: Console | None = None  # where progress is shown; None for silence
    used: dict[str, FinishedRun] = field(default_factory=dict)  # the runs that were asked for, by name

    @property
    def tasks(self) -> tuple[str, ...]:
        """Ids of the tasks."""
        return self.config.size.tasks

    @property
    def seeds(self) -> range:
        """The seeds of each sort of run."""
        return range(self.config.seed, self.config.seed + self.config.size.seeds)

    @property
    def tasks_and_seeds(self) -> list[tuple[str, int]]:
        """Every task with every seed."""
        return list(product(self.tasks, self.seeds))

    @property
    def options(self) -> dict[str, Any]:
        """The experiment's."""
        return self.config.settings

    @property
    def recipe(self) -> Recipe:
        """That of the first task and seed, for what all runs have in common."""
        return self.spec(self.tasks[0], self.config.seed).recipe

    @property
    def resamples(self) -> int:
        """Of intervals."""
        return self.recipe.selection.resamples

    @property
    def chosen_on_report(self) -> bool:
        """Whether runs choose on the very examples that they report, as the paper does."""
        return self.recipe.selection.protocol == "paper"

    def spec(self, task: str, seed: int, keys: Keys | None = None) -> Spec:
        """A run of the study: `keys` in place of the study's own, nested or dotted; they may name its kind.

        Raises:
            SoftpruneError: with every mistake in its keys.
        """
        values = self.config.run(task, seed, keys or {})
        if isinstance(data := values["task"].get("data"), str):
            values["task"]["data"] = str(Path(data).absolute())  # a worker may run in another folder
        recipe = resolve(base=values, where=f"the recipe of a run ({task}, seed {seed})")
        # The name has a digest of all that results depend on; the studies' files count by their place in `root`, which
        # may be moved.
        resolved = {name: value for name, value in recipe.resolved().items() if name not in _PLACE}
        for name in ("file", "mask"):
            path = resolved["prompt"][name]
            if path is not None and Path(path).is_relative_to(self.root):
                resolved["prompt"][name] = Path(path).relative_to(self.root).as_posix()
        own = _digest(json.dumps(resolved, sort_keys=True).encode())
        names = (task_label(task), Path(recipe.backbone.name).name, recipe.kind, str(seed), own)
        return Spec(task, seed, "-".join(map(safe, names)), values, recipe)

    def make(self, specs: Mapping[Name, Spec]) -> dict[Name, FinishedRun]:
        """Runs by the names that they are asked for under, all that don't depend on each other together.

        What isn't complete is made, or resumed.

        Raises:
            SoftpruneError: of a run that fails, with its name.
        """
        runs: dict[Name, FinishedRun] = {}
        missing: dict[str, Spec] = {}
        for name, spec in specs.items():
            runs[name] = FinishedRun(self.root / RUNS / spec.folder, spec.task, spec.seed)
            if not is_complete(runs[name].path):
                missing[spec.folder] = spec
        if missing:
            cluster = self.config.cluster
            with closing(EXECUTORS[self.config.executor](cluster.address, cluster.retries)) as executor:
                if executor.elsewhere:
                    self._make_on_workers(executor, missing)
                else:
                    self._make_here(missing)
        self.used.update({run.path.name: run for run in runs.values()})
        return runs

    def _make_here(self, missing: dict[str, Spec]) -> None:
        count = len(missing)
        for number in range(1, count + 1):
            # Those that other processes are making come last, so that they need no waiting for.
            folder = next((name for name in missing if not is_held(self.root / RUNS / name)), next(iter(missing)))
            with under_heading(self.console, f"\n{number} of {count} runs: {folder}"):
                make_run(self.root / RUNS / folder, missing.pop(folder), self.console)

    def _make_on_workers(self, executor: Executor, missing: Mapping[str, Spec]) -> None:
        self.say(f"{len(missing)} runs on {self.config.executor}")
        items = [WorkItem(name, {"values": dict(spec.values)}) for name, spec in missing.items()]
        threads = next(iter(missing.values())).recipe.backbone.threads  # of the first run, for all
        cpus = self.config.cluster.cpus or float(1 if threads == "auto" else threads)
        work = partial(make_elsewhere, str(self.root), _write_mark(self.root))
        for number, result in enumerate(executor.map(work, items, cpus, self.config.cluster.gpus or 0), start=1):
            self.say(f"{number} of {len(missing)} runs done: {result.id}")

    def grid(self, keys: Keys | None = None) -> dict[tuple[str, int], FinishedRun]:
        """A run for each task and seed, by both."""
        return self.make({place: self.spec(*place, keys) for place in self.tasks_and_seeds})

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """A piece of work, unique by its name: made once, then read back from JSON, so that both are the same bits."""
        path = self.folder / WORK / f"{safe(name)}.json"
        if not path.exists():
            self.say(name)
            begun = time.perf_counter()
            result = compute()
            text = atomic_io.json_text({"seconds": time.perf_counter() - begun, "found": result})
            atomic_io.write_bytes(path, text.encode())
        return json.loads(path.read_text(encoding="utf-8"))["found"]

    def keep(self, name: str, data: bytes) -> Path:
        """Writes a file that later runs read, such as a mask; its path, which names it in their recipes."""
        # Other content is another file, and so another run.
        stem, ending = Path(name).stem, Path(name).suffix
        path = self.root / FILES / f"{safe(stem)}-{_digest(data)}{ending}"
        if not path.exists():
            atomic_io.write_bytes(path, data)
        return path

    def say(self, line: str) -> None:
        """Shows what is being done."""
        say(self.console, line)

    def list_runs(self) -> list[StudyRun]:
        """The runs that were asked for, with the seconds that they took, in this study or another."""
        runs = []
        for name, run in sorted(self.used.items()):
            kind, seconds = run.record.kind, run.record.cost.seconds
            runs.append(StudyRun(folder=name, task=run.task, seed=run.seed, kind=kind, seconds=seconds))
        return runs

    def list_work(self) -> dict[str, float]:
        """The seconds of the study's own pieces of work, by name."""
        pieces = sorted((self.folder / WORK).glob("*.json"))
        return {path.stem: json.loads(path.read_text(encoding="utf-8"))["seconds"] for path in pieces}


def make_elsewhere(root: str, mark: str, item: WorkItem) -> None:
    """One run on a worker, straight into the studies' folder; by `mark` a worker knows that it sees the same one."""
    values: Any = item.payload["values"]
    try:
        seen = (Path(root) / RUNS / _MARK).read_text(encoding="utf-8")
    except OSError:
        seen = None
    if seen != mark:
        found = f"{root} is something else on the node of a worker"
        raise SoftpruneError("an --out that all nodes share", found, "choose one, or leave --executor out")
    recipe = resolve(base=values)
    make_run(Path(root) / RUNS / item.id, Spec(recipe.task.id, recipe.seed, item.id, values, recipe), None)


def _write_mark(root: Path) -> str:
    """A text in the studies' folder by which a node knows that it sees the same one; the first writer's stays."""
    place = root / RUNS / _MARK
    if not place.exists():
        own = place.with_name(f".{uuid.uuid4().hex}")
        atomic_io.write_bytes(own, own.name.encode())
        with suppress(OSError):  # another one's is there now, or the file system knows no links
            os.link(own, place)
        if not place.exists():
            atomic_io.write_bytes(place, own.read_bytes())
        own.unlink()
    return place.read_text(encoding="utf-8")
