"""What an experiment works with: it asks for runs and for pieces of work, and gets each as it was made once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from softprune.recipe import Study
from softprune.runs import atomic
from softprune.study.made import Made
from softprune.study.runs import Spec, make_runs, spec_of

Keys = Mapping[str, Any]
WORK = "work"
"""The folder of finished pieces of work in a study's."""


@dataclass(frozen=True, slots=True)
class Bench:
    """A study at work.

    Attributes:
        study: its settings.
        root: the folder of all studies, and of their runs.
        folder: this study's.
        console: where progress is shown; None for silence.
    """

    study: Study
    root: Path
    folder: Path
    console: Console | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Ids of the tasks."""
        return self.study.size.tasks

    @property
    def seeds(self) -> range:
        """The seeds of each sort of run."""
        return range(self.study.seed, self.study.seed + self.study.size.seeds)

    @property
    def options(self) -> dict[str, Any]:
        """The experiment's."""
        return self.study.settings

    def spec(self, task: str, seed: int, keys: Keys | None = None) -> Spec:
        """A run of the study: `keys` in place of the study's own, nested or dotted; they may name its kind."""
        return spec_of(self.study, task, seed, keys or {})

    def make(self, specs: Sequence[Spec]) -> list[Made]:
        """Runs, each made once, all that don't hang on each other together.

        Raises:
            SoftpruneError: of a run that fails.
        """
        places = make_runs(self.study, self.root, specs, self.console)
        return [Made(place, spec.task, spec.seed) for place, spec in zip(places, specs, strict=True)]

    def grid(self, keys: Keys | None = None) -> dict[tuple[str, int], Made]:
        """A run for each task and seed, by both."""
        specs = [self.spec(task, seed, keys) for task in self.tasks for seed in self.seeds]
        return {(made.task, made.seed): made for made in self.make(specs)}

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """A piece of work, as JSON holds it: made once, read back ever after, so that both are the same bits.

        Args:
            name: unique in the study; letters, digits, dots and hyphens.
            compute: makes it.
        """
        path = self.folder / WORK / f"{name}.json"
        if not path.exists():
            self.say(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_bytes(path, atomic.json_text(compute()).encode())
        return json.loads(path.read_text(encoding="utf-8"))

    def keep(self, name: str, data: bytes) -> Path:
        """A file that later runs read, such as a mask; written once. Its path, which names it in their recipes.

        The name must tell its content (of which run, which seed): runs of other studies may ask for it.
        """
        path = self.root / "files" / name
        if not path.exists() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_bytes(path, data)
        return path

    def say(self, line: str) -> None:
        """Tells what is being done."""
        if self.console is not None:
            self.console.print(line, highlight=False, markup=False)
