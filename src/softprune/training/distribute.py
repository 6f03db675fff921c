"""Training that an executor may do in other processes: each builds what it needs, and only the driver writes.

What is made elsewhere comes back as the run folder would have taken it, and is stored there. Then the stages go on as
in a run that is taken up: every piece is finished and read from the folder. So a finished piece is never made twice,
wherever it was made.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

from softprune.config import Recipe
from softprune.errors import SoftpruneError
from softprune.runs.environment import versions
from softprune.runs.executors import InProcess
from softprune.runs.worker_store import Made, Pinned, StandIn
from softprune.training.jobs import Fitted, Paused, fit, fit_to
from softprune.training.loop import Point, Watch
from softprune.training.oom_splitting import parts_of
from softprune.training.sealed_set import SealedSet
from softprune.training.session import Workspace, prepare
from softprune.types import Result, WorkItem

T = TypeVar("T")
Work = Callable[[Workspace, WorkItem], T]
"""A piece of work on a run; importable, since it may be done in another process."""


def fit_item(workspace: Workspace, item: WorkItem) -> list[Fitted]:
    """`stages.fit` as a piece of work: its arguments are the payload, its name the item's."""
    options: dict[str, Any] = dict(item.payload)
    return fit(workspace, options.pop("starts"), options.pop("names"), work=item.id, **options)


def fit_to_item(workspace: Workspace, item: WorkItem) -> list[Paused]:
    """`stages.fit_to` likewise."""
    options: dict[str, Any] = dict(item.payload)
    first = [options.pop(name) for name in ("starts", "names", "share", "before")]
    return fit_to(workspace, *first, work=item.id, **options)


def spread(workspace: Workspace, work: Work[T], items: Sequence[WorkItem], phase: str) -> list[T]:
    """What `work` gives for each item, in their order.

    Args:
        workspace: what the run shares.
        work: does one piece through the run's store.
        items: with the names of the pieces; none depends on another.
        phase: the run's, meanwhile.
    """
    make_ahead(workspace, work, items, phase)
    executor = InProcess() if workspace.executor.elsewhere else workspace.executor
    with workspace.run.phase(phase):
        return [result.value for result in executor.map(partial(work, workspace), items)]  # type: ignore[misc]


def make_ahead(workspace: Workspace, work: Work[T], items: Sequence[WorkItem], phase: str) -> None:
    """Where the executor's processes are others: has them make what isn't finished, and stores it as it comes."""
    run, executor, watch = workspace.run, workspace.executor, workspace.watch
    # A group that memory has parted here goes on here: its parts have their own names, and a worker knows none of them.
    missing = [item for item in items if not run.has(item.id) and not parts_of(run, item.id, 1)]
    if not executor.elsewhere or not missing:
        return
    sent = [WorkItem(item.id, {"item": item, "begun": run.checkpoint(item.id).load()}) for item in missing]
    cpus, gpus = _takes(workspace)
    title, done = f"{phase}, on workers", len(items) - len(missing)
    with run.phase(phase):
        watch.begin(title, len(items), done)
        try:
            for result in executor.map(partial(_make, _job(workspace), work), sent, cpus, gpus):
                done += 1
                watch.end()
                _store(workspace, result)
                watch.begin(title, len(items), done)
        finally:
            watch.end()


@dataclass(frozen=True, slots=True)
class _Back:
    """What a worker sends back.

    Attributes:
        made: for the run folder.
        title: of the training.
        steps, begun: its steps, and where it began.
        evaluated: the points of each evaluation.
    """

    made: Made
    title: str
    steps: int
    begun: int
    evaluated: tuple[tuple[Point, ...], ...]


class _Seen:
    """Watches on a worker what the driver's watchers are told later."""

    def __init__(self) -> None:
        self.title, self.steps, self.begun = "", 0, 0
        self.evaluations: list[tuple[Point, ...]] = []

    def begin(self, title: str, steps: int, done: int) -> None:
        self.title, self.steps, self.begun = title, steps, done

    def step(self, step: int, loss: float, examples: int) -> None:
        pass

    def evaluated(self, points: Sequence[Point]) -> None:
        self.evaluations.append(tuple(points))

    def end(self) -> None:
        pass


def _store(workspace: Workspace, result: Result) -> None:
    """Write what came back, and tell it."""
    back, watch = result.value, workspace.watch
    assert isinstance(back, _Back)
    back.made.store(workspace.run)
    watch.begin(back.title, back.steps, back.begun)
    for points in back.evaluated:
        watch.evaluated(points)
    watch.end()


def _takes(workspace: Workspace) -> tuple[float, float]:
    """CPUs and GPUs of a piece of work."""
    asked, on_gpu = workspace.recipe.cluster, workspace.backbone.device.type == "cuda"
    cpus = asked.cpus if asked.cpus is not None else workspace.run.record.threads or 1
    return float(cpus), float(on_gpu) if asked.gpus is None else asked.gpus


def _job(workspace: Workspace) -> str:
    """What a worker must know of the run, as JSON: equal texts need the same things loaded."""
    record = workspace.run.record
    # A worker starts from prompts that are handed to it: it needs no prompt file.
    prompt = workspace.recipe.prompt.model_copy(update={"init": "vocabulary", "file": None, "text": None})
    # Nor does it sweep: its learning rate is the driver's.
    tuning = workspace.recipe.tuning.model_copy(update={"lr": workspace.lr, "sweep": None})
    recipe = workspace.recipe.model_copy(update={"prompt": prompt, "tuning": tuning})
    device = workspace.backbone.device.type  # a worker sees no other GPUs than its own
    known = {
        "threads": record.threads,
        "device": device,
        "dtype": record.backbone.dtype,
        "K": record.K,
        "inputs": {name: digest for name, digest in (record.inputs or {}).items() if name != "prompt"},
    }
    job = {
        "recipe": recipe.resolved(),
        "known": known,
        "path": str(workspace.run.path),
        "versions": versions(),
        "folder": str(Path.cwd()),
    }
    return json.dumps(job, sort_keys=True)


def _make(job: str, work: Work[object], item: WorkItem) -> _Back:
    """One piece, on a worker."""
    known, seen = json.loads(job), _Seen()
    piece, begun = item.payload["item"], item.payload["begun"]
    store = StandIn(Path(known["path"]), Pinned(**known["known"]), begun)  # type: ignore[arg-type]
    work(replace(_workspace(job), run=store, watch=seen), piece)  # type: ignore[arg-type]
    return _Back(store.made, seen.title, seen.steps, seen.begun, tuple(seen.evaluations))


@lru_cache(maxsize=1)
def _workspace(job: str) -> Workspace:
    """A worker's own, loaded once: the driver's recipe, data and weights, held to what the run was begun with.

    Raises:
        SoftpruneError: something there isn't as the driver has it.
    """
    known = json.loads(job)
    with suppress(OSError):  # paths of a recipe are relative to it; a machine without it may need none
        os.chdir(known["folder"])
    try:
        _same_versions(known["versions"])
        recipe = Recipe.model_validate(known["recipe"])
        watch: Watch = _Seen()
        made = prepare(recipe, StandIn(Path(known["path"]), Pinned(**known["known"])), watch, InProcess())
    except SoftpruneError as error:
        raise SoftpruneError(error.expected, f"on {platform.node()}: {error.found}", error.do) from error
    return replace(made, report=SealedSet(()))  # no worker has any use for `report`


def _same_versions(driver: dict[str, str | None]) -> None:
    """Hold a worker to the driver's versions: bits depend on them."""
    here = versions()
    other = [f"{name} {here.get(name)} instead of {wanted}" for name, wanted in driver.items() if here[name] != wanted]
    if other:
        do = "install the same versions on every node"
        raise SoftpruneError("the driver's versions on its workers", ", ".join(other), do)
