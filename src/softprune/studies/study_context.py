"""What an experiment works with: it asks for runs and for pieces of work, and gets each as it was made once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from softprune.config import Recipe, Study
from softprune.runs import atomic_io
from softprune.runs.comparison_record import StudyRun
from softprune.studies.folder import WORK
from softprune.studies.run_cache import Spec, digest, make_runs, make_spec, safe, say
from softprune.studies.run_result import FinishedRun

Keys = Mapping[str, Any]
FILES: Final = "files"  # that runs begin with, beside the studies' folders


def task_label(task: str) -> str:
    """A task's id, or the name of its file."""
    return Path(task).stem


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

    def spec(self, task: str, seed: int, keys: Keys | None = None) -> Spec:
        """A run of the study: `keys` in place of the study's own, nested or dotted; they may name its kind."""
        return make_spec(self.config, self.root, task, seed, keys or {})

    def make(self, specs: Sequence[Spec]) -> list[FinishedRun]:
        """Runs, each made once, all that don't depend on each other together."""
        places = make_runs(self.config, self.root, specs, self.console)
        runs = [FinishedRun(place, spec.task, spec.seed) for place, spec in zip(places, specs, strict=True)]
        self.used.update({run.path.name: run for run in runs})
        return runs

    def grid(self, keys: Keys | None = None) -> dict[tuple[str, int], FinishedRun]:
        """A run for each task and seed, by both."""
        runs = self.make([self.spec(*place, keys) for place in self.tasks_and_seeds])
        return {(run.task, run.seed): run for run in runs}

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
        path = self.root / FILES / f"{safe(stem)}-{digest(data)}{ending}"
        if not path.exists():
            atomic_io.write_bytes(path, data)
        return path

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
