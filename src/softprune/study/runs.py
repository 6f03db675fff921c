"""The runs of a study: which they are, and how each is made once.

Runs are shared: they lie beside the studies, under names that follow from their recipes, so that a run that several
studies ask for is made by the first of them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from softprune.compare.cells import EXECUTE, forget
from softprune.compare.heading import headed
from softprune.errors import SoftpruneError
from softprune.recipe import Recipe, Study, resolve
from softprune.runs.executors import EXECUTORS, Executor
from softprune.types import WorkItem
from softprune.yamls import yaml_text

RUNS: Final = "runs"
"""The folder of all runs, beside the studies."""
_PLACE: Final = ("executor", "cluster")
_DIGITS: Final = 10
_COMMAND: Final = "softprune study run"


@dataclass(frozen=True, slots=True)
class Spec:
    """One run of a study.

    Attributes:
        task: its id.
        seed: of the run.
        values: the keys of its recipe that were named.
        recipe: all of them.
    """

    task: str
    seed: int
    values: Mapping[str, Any] = field(repr=False)
    recipe: Recipe = field(repr=False)

    @property
    def folder(self) -> str:
        """Its name: what it is, and a digest of its recipe."""
        resolved = {name: value for name, value in self.recipe.resolved().items() if name not in _PLACE}
        digest = hashlib.sha256(json.dumps(resolved, sort_keys=True).encode()).hexdigest()[:_DIGITS]
        names = (Path(self.task).stem, Path(self.recipe.backbone.name).name, self.recipe.kind, str(self.seed), digest)
        return "-".join(re.sub(r"[^\w.+]+", "-", name).strip("-.") for name in names)


def spec_of(study: Study, task: str, seed: int, keys: Mapping[str, Any]) -> Spec:
    """A run of the study; `keys` as of `Study.run`.

    Raises:
        SoftpruneError: with every mistake in its keys.
    """
    values = study.run(task, seed, keys)
    recipe = resolve(base=values, where=f"the recipe of a run ({task}, seed {seed})")
    return Spec(task, seed, values, recipe)


def make_runs(study: Study, root: Path, specs: Sequence[Spec], console: Console | None) -> list[Path]:
    """The folders of runs, in the order of `specs`; what isn't complete is made, or taken up.

    Args:
        study: whose executor makes them.
        root: the folder of all studies.
        specs: may repeat.
        console: where progress is shown.

    Raises:
        SoftpruneError: of a run that fails, with its name.
    """
    places = [root / RUNS / spec.folder for spec in specs]
    missing = {
        spec.folder: spec for spec, place in zip(specs, places, strict=True) if not (place / "COMPLETE").exists()
    }
    if missing:
        with closing(_executor(study)) as executor:
            for number, name in enumerate(_made(study, root, missing, executor, console), start=1):
                if console is not None and executor.elsewhere:
                    console.print(f"{number} of {len(missing)} runs: {name}")
    return places


def _made(
    study: Study, root: Path, missing: Mapping[str, Spec], executor: Executor, console: Console | None
) -> Iterator[str]:
    """Makes the runs; the names of those that are done."""
    if not executor.elsewhere:
        for number, (name, spec) in enumerate(missing.items(), start=1):
            with headed(console, f"{number} of {len(missing)} runs: {name}"):
                _make(root / RUNS / name, spec, console)
            yield name
        return
    items = [WorkItem(name, {"values": dict(spec.values)}) for name, spec in missing.items()]
    cpus = study.cluster.cpus or float(next(iter(missing.values())).recipe.backbone.threads or 1)
    work = partial(make_elsewhere, str(root.resolve()), _mark(root))
    for result in executor.map(work, items, cpus, study.cluster.gpus or 0):
        yield result.id


def make_elsewhere(root: str, mark: str, item: WorkItem) -> None:
    """One run on a worker, straight into the studies' folder, which all nodes must share.

    Raises:
        SoftpruneError: of the run, or where this node sees another folder.
    """
    values: Any = item.payload["values"]
    recipe = resolve(base=values)
    if not _mark_of(Path(root)).is_file() or _mark_of(Path(root)).read_text() != mark:
        found = f"{root} is something else on the node of a worker"
        raise SoftpruneError("an --out that all nodes share", found, "choose one, or leave --executor out")
    spec = Spec(recipe.task.id, recipe.seed, values, recipe)
    _make(Path(root) / RUNS / item.id, spec, None)


def _make(path: Path, spec: Spec, console: Console | None) -> None:
    forget()
    try:
        EXECUTE[spec.recipe.kind](
            spec.recipe, path, _COMMAND, yaml_text(dict(spec.values)), finish=None, console=console
        )
    except SoftpruneError as error:
        raise SoftpruneError(f"{error.expected} (run {path.name})", error.found, error.do) from error


def _executor(study: Study) -> Executor:
    return EXECUTORS[study.executor](study.cluster.address, study.cluster.retries)


def _mark_of(root: Path) -> Path:
    return root / RUNS / ".shared"


def _mark(root: Path) -> str:
    """A text in the studies' folder by which a node knows that it sees the same one."""
    place = _mark_of(root)
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        place.write_text(hashlib.sha256(str(root.resolve()).encode()).hexdigest())
    return place.read_text()
