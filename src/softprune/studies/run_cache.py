"""The runs of a study or a comparison: how each is made once.

A study's runs are shared: they lie beside the studies, under names that follow from their recipes, so that a run that
several studies ask for is made by the first of them, and waited for by the others.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from rich.console import Console, ConsoleRenderable, RenderHook
from rich.text import Text

from softprune.config import Recipe, Study, resolve
from softprune.config.registry import Registry
from softprune.config.yaml_io import yaml_text
from softprune.errors import ManyErrors, SoftpruneError
from softprune.runs import atomic_io
from softprune.runs.executors import EXECUTORS, Executor
from softprune.runs.job_folder import FolderHeld, is_held
from softprune.studies.folder import RUNS
from softprune.terminal import literal
from softprune.training.memory import give_back
from softprune.types import WorkItem

EXECUTE: Final[Registry[Callable[..., bool]]] = Registry(
    "kind of run",
    {
        "tune": "softprune.pipelines.xprompt:execute",
        "xprompt": "softprune.pipelines.xprompt:execute",
        "adapt": "softprune.pipelines.adapt:execute",
    },
)
_PLACE: Final = ("executor", "cluster")  # where the work is done: no result depends on these keys
_COMMAND: Final = "softprune study run"  # in the record of a shared run, which belongs to no single study
_LOOK: Final = 0.5  # seconds between looks at a run that another process makes


@dataclass(frozen=True, slots=True)
class Spec:
    """One run of a study or a comparison."""

    task: str  # its id
    seed: int
    folder: str  # its name: what it is; of a study, with a digest of its recipe
    values: Mapping[str, Any] = field(repr=False)  # the keys of its recipe that were named
    recipe: Recipe = field(repr=False)


def make_spec(study: Study, root: Path, task: str, seed: int, keys: Mapping[str, Any]) -> Spec:
    """A run of the study; `keys` as of `Study.run`.

    Raises:
        SoftpruneError: with every mistake in its keys.
    """
    values = study.run(task, seed, keys)
    if isinstance(data := values["task"].get("data"), str):
        values["task"]["data"] = str(Path(data).absolute())  # a worker may run in another folder
    recipe = resolve(base=values, where=f"the recipe of a run ({task}, seed {seed})")
    # The name has a digest of all that results depend on; the studies' files count by their place in `root`, which may
    # be moved.
    resolved = {name: value for name, value in recipe.resolved().items() if name not in _PLACE}
    for name in ("file", "mask"):
        path = resolved["prompt"][name]
        if path is not None and Path(path).is_relative_to(root):
            resolved["prompt"][name] = Path(path).relative_to(root).as_posix()
    own = digest(json.dumps(resolved, sort_keys=True).encode())
    names = (Path(task).stem, Path(recipe.backbone.name).name, recipe.kind, str(seed), own)
    return Spec(task, seed, "-".join(map(safe, names)), values, recipe)


def safe(name: str) -> str:
    """A name as a part of a file's."""
    return re.sub(r"[^\w.+]+", "-", name).strip("-.")


def digest(data: bytes) -> str:
    """Of a file's or a recipe's content: 40 bits, which differ among the thousands that one folder may hold."""
    return hashlib.sha256(data).hexdigest()[:10]


def make_runs(study: Study, root: Path, specs: Sequence[Spec], console: Console | None) -> list[Path]:
    """The folders of runs, in the order of `specs`, which may repeat; what isn't complete is made, or resumed.

    Raises:
        SoftpruneError: of a run that fails, with its name.
    """
    places = [root / RUNS / spec.folder for spec in specs]
    missing = {spec.folder: spec for spec, place in zip(specs, places, strict=True) if not _is_complete(place)}
    if missing:
        with closing(EXECUTORS[study.executor](study.cluster.address, study.cluster.retries)) as executor:
            if executor.elsewhere:
                _make_on_workers(study, root, missing, executor, console)
                return places
        count = len(missing)
        for number in range(1, count + 1):
            # Those that other processes are making come last, so that they need no waiting for.
            name = next((name for name in missing if not is_held(root / RUNS / name)), next(iter(missing)))
            with under_heading(console, f"\n{number} of {count} runs: {name}"):
                _make_run(root / RUNS / name, missing.pop(name), console)
    return places


def _make_on_workers(
    study: Study, root: Path, missing: Mapping[str, Spec], executor: Executor, console: Console | None
) -> None:
    say(console, f"{len(missing)} runs on {study.executor}")
    items = [WorkItem(name, {"values": dict(spec.values)}) for name, spec in missing.items()]
    threads = next(iter(missing.values())).recipe.backbone.threads  # of the first run, for all
    cpus = study.cluster.cpus or float(1 if threads == "auto" else threads)
    work = partial(make_elsewhere, str(root), _write_mark(root))
    for number, result in enumerate(executor.map(work, items, cpus, study.cluster.gpus or 0), start=1):
        say(console, f"{number} of {len(missing)} runs done: {result.id}")


def make_elsewhere(root: str, mark: str, item: WorkItem) -> None:
    """One run on a worker, straight into the studies' folder; by `mark` a worker knows that it sees the same one."""
    values: Any = item.payload["values"]
    try:
        seen = _mark_file(Path(root)).read_text(encoding="utf-8")
    except OSError:
        seen = None
    if seen != mark:
        found = f"{root} is something else on the node of a worker"
        raise SoftpruneError("an --out that all nodes share", found, "choose one, or leave --executor out")
    recipe = resolve(base=values)
    _make_run(Path(root) / RUNS / item.id, Spec(recipe.task.id, recipe.seed, item.id, values, recipe), None)


def _make_run(path: Path, spec: Spec, console: Console | None) -> None:
    """Makes a run, or waits until the process that makes it has done so, and takes over where that one ends early."""
    is_waiting = False
    while not _is_complete(path):
        try:
            execute_run(spec, path, _COMMAND, console)
        except FolderHeld:
            if not is_waiting:
                say(console, f"another process makes {path.name}: waiting for it")
            is_waiting = True
            time.sleep(_LOOK)
        except ManyErrors as error:
            raise ManyErrors(f"run {path.name}", error.errors) from error
        except SoftpruneError as error:
            raise SoftpruneError(f"{error.expected} (run {path.name})", error.found, error.do) from error


def execute_run(spec: Spec, path: Path, command: str, console: Console | None) -> None:
    """Makes a run in this process, or leaves it as it is where it is complete; `command` is what the user typed."""
    # What an earlier run held must not count as memory of this one.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    give_back()
    EXECUTE[spec.recipe.kind](spec.recipe, path, command, yaml_text(dict(spec.values)), finish=None, console=console)


def _is_complete(path: Path) -> bool:
    return (path / "COMPLETE").exists()


def _mark_file(root: Path) -> Path:
    return root / RUNS / ".shared"


def _write_mark(root: Path) -> str:
    """A text in the studies' folder by which a node knows that it sees the same one; the first writer's stays."""
    place = _mark_file(root)
    if not place.exists():
        own = place.with_name(f".{uuid.uuid4().hex}")
        atomic_io.write_bytes(own, own.name.encode())
        with suppress(OSError):  # another one's is there now, or the file system knows no links
            os.link(own, place)
        if not place.exists():
            atomic_io.write_bytes(place, own.read_bytes())
        own.unlink()
    return place.read_text(encoding="utf-8")


def say(console: Console | None, line: str) -> None:
    """Shows a line of progress."""
    if console is not None:
        console.print(Text(line))


class _Heading(RenderHook):
    """Puts its line before what is printed next, once."""

    def __init__(self, line: str) -> None:
        self.line: str | None = line

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        line, self.line = self.line, None
        return renderables if line is None else [literal(line), *renderables]


@contextmanager
def under_heading(console: Console | None, line: str) -> Iterator[None]:
    """Puts this line over the first thing that is printed meanwhile; where nothing is printed, nor is the line.

    So a run that is refused before it shows anything leaves no line.
    """
    if console is None:
        yield
        return
    heading = _Heading(line)
    console.push_render_hook(heading)
    try:
        yield
    finally:
        heading.line = None  # a live display that was broken off leaves its own hook, and that one is taken away here
        console.pop_render_hook()
