"""The runs of a study: which they are, and how each is made once.

Runs are shared: they lie beside the studies, under names that follow from their recipes, so that a run that several
studies ask for is made by the first of them, and waited for by the others.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from softprune.config import Recipe, Study, resolve
from softprune.config.yaml_io import yaml_text
from softprune.errors import ManyErrors, SoftpruneError
from softprune.runs import atomic_io
from softprune.runs.executors import EXECUTORS, Executor
from softprune.runs.lock import FolderHeld, is_held
from softprune.studies.execution import execute_run, headed
from softprune.studies.folder import RUNS
from softprune.types import WorkItem

_PLACE: Final = ("executor", "cluster")
_DIGITS: Final = 10
_COMMAND: Final = "softprune study run"
_LOOK: Final = 0.5
"""Seconds between looks at a run that another process makes."""


@dataclass(frozen=True, slots=True)
class Spec:
    """One run of a study.

    Attributes:
        task: its id.
        seed: of the run.
        folder: its name: what it is, and a digest of its recipe.
        values: the keys of its recipe that were named.
        recipe: all of them.
    """

    task: str
    seed: int
    folder: str
    values: Mapping[str, Any] = field(repr=False)
    recipe: Recipe = field(repr=False)


def make_spec(study: Study, root: Path, task: str, seed: int, keys: Mapping[str, Any]) -> Spec:
    """A run of the study; `keys` as of `Study.run`.

    Args:
        study: its settings.
        root: the folder of all studies, absolute.
        task, seed, keys: of the run.

    Raises:
        SoftpruneError: with every mistake in its keys.
    """
    values = study.run(task, seed, keys)
    if isinstance(data := values["task"].get("data"), str):
        values["task"]["data"] = str(Path(data).absolute())  # a worker may stand in another folder
    recipe = resolve(base=values, where=f"the recipe of a run ({task}, seed {seed})")
    names = (Path(task).stem, Path(recipe.backbone.name).name, recipe.kind, str(seed), _digest(recipe, root))
    return Spec(task, seed, "-".join(map(safe, names)), values, recipe)


def safe(name: str) -> str:
    """A name as a part of a file's."""
    return re.sub(r"[^\w.+]+", "-", name).strip("-.")


def _digest(recipe: Recipe, root: Path) -> str:
    """Of all that results depend on. Files of the studies count by their place in `root`, which may be moved."""
    resolved = {name: value for name, value in recipe.resolved().items() if name not in _PLACE}
    for name in ("file", "mask"):
        path = resolved["prompt"][name]
        if path is not None and Path(path).is_relative_to(root):
            resolved["prompt"][name] = Path(path).relative_to(root).as_posix()
    return hashlib.sha256(json.dumps(resolved, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def make_runs(study: Study, root: Path, specs: Sequence[Spec], console: Console | None) -> list[Path]:
    """The folders of runs, in the order of `specs`; what isn't complete is made, or taken up.

    Args:
        study: whose executor makes them.
        root: the folder of all studies, absolute.
        specs: may repeat.
        console: where progress is shown.

    Raises:
        SoftpruneError: of a run that fails, with its name.
    """
    places = [root / RUNS / spec.folder for spec in specs]
    missing = {spec.folder: spec for spec, place in zip(specs, places, strict=True) if not _complete(place)}
    if missing:
        with closing(_executor(study)) as executor:
            make = _made_elsewhere if executor.elsewhere else _made_here
            for number, name in enumerate(make(study, root, missing, executor, console), start=1):
                _say(console, f"{number} of {len(missing)} runs done: {name}" if executor.elsewhere else None)
    return places


def _made_here(
    study: Study, root: Path, missing: Mapping[str, Spec], executor: Executor, console: Console | None
) -> Iterator[str]:
    """Makes the runs one after the other, what others make last; the names of those that are done."""
    left = dict(missing)
    for number in range(1, len(missing) + 1):
        name = next((name for name in left if not is_held(root / RUNS / name)), next(iter(left)))
        with headed(console, f"\n{number} of {len(missing)} runs: {name}"):
            _make(root / RUNS / name, left.pop(name), console)
        yield name


def _made_elsewhere(
    study: Study, root: Path, missing: Mapping[str, Spec], executor: Executor, console: Console | None
) -> Iterator[str]:
    """The same on workers, in whatever order they end."""
    _say(console, f"{len(missing)} runs on {study.executor}")
    items = [WorkItem(name, {"values": dict(spec.values)}) for name, spec in missing.items()]
    threads = next(iter(missing.values())).recipe.backbone.threads
    cpus = study.cluster.cpus or float(1 if threads == "auto" else threads)
    work = partial(make_elsewhere, str(root), _mark(root))
    for result in executor.map(work, items, cpus, study.cluster.gpus or 0):
        yield result.id


def make_elsewhere(root: str, mark: str, item: WorkItem) -> None:
    """One run on a worker, straight into the studies' folder, which all nodes must share.

    Args:
        root: the folder, absolute.
        mark: content of its marker file, by which a worker knows that it sees the same folder.
        item: names the run and holds its keys.

    Raises:
        SoftpruneError: of the run, or where this node sees another folder.
    """
    values: Any = item.payload["values"]
    try:
        seen = _mark_of(Path(root)).read_text(encoding="utf-8")
    except OSError:
        seen = None
    if seen != mark:
        found = f"{root} is something else on the node of a worker"
        raise SoftpruneError("an --out that all nodes share", found, "choose one, or leave --executor out")
    recipe = resolve(base=values)
    _make(Path(root) / RUNS / item.id, Spec(recipe.task.id, recipe.seed, item.id, values, recipe), None)


def _make(path: Path, spec: Spec, console: Console | None) -> None:
    """Makes a run, or waits until the process that makes it has done so, and takes over where that one ends early."""
    is_waiting = False
    while not _complete(path):
        try:
            execute_run(spec.recipe, path, _COMMAND, yaml_text(dict(spec.values)), console)
        except FolderHeld:
            _say(console, None if is_waiting else f"another process makes {path.name}: waiting for it")
            is_waiting = True
            time.sleep(_LOOK)
        except SoftpruneError as error:
            raise _of_run(path.name, error) from error


def _of_run(name: str, error: SoftpruneError) -> SoftpruneError:
    """The error with the run's name."""
    if isinstance(error, ManyErrors):
        return ManyErrors(f"run {name}", error.errors)
    return SoftpruneError(f"{error.expected} (run {name})", error.found, error.do)


def _complete(path: Path) -> bool:
    return (path / "COMPLETE").exists()


def _executor(study: Study) -> Executor:
    return EXECUTORS[study.executor](study.cluster.address, study.cluster.retries)


def _say(console: Console | None, line: str | None) -> None:
    if console is not None and line is not None:
        console.print(Text(line))


def _mark_of(root: Path) -> Path:
    return root / RUNS / ".shared"


def _mark(root: Path) -> str:
    """A text in the studies' folder by which a node knows that it sees the same one; the first writer's stays."""
    place = _mark_of(root)
    if not place.exists():
        own = place.with_name(f".{uuid.uuid4().hex}")
        atomic_io.write_bytes(own, own.name.encode())
        with suppress(OSError):  # another one's is there now, or the file system knows no links
            os.link(own, place)
        if not place.exists():
            atomic_io.write_bytes(place, own.read_bytes())
        own.unlink()
    return place.read_text(encoding="utf-8")
