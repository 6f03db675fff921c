"""Training that an executor may do in other processes: each builds what it needs, and only the driver writes.

What is made elsewhere comes back as the run folder would have taken it, and is stored there. Then the stages go on as
in a resumed run: every piece is finished and read from the folder. So a finished piece is never made twice,
wherever it was made.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from softprune.config import Recipe
from softprune.errors import SoftpruneError
from softprune.runs.executors import Executor
from softprune.runs.record import versions
from softprune.runs.worker_store import Pinned, StandIn, WorkerOutput
from softprune.training.loop import Point, Watch
from softprune.training.scoring import SealedSet
from softprune.training.session import Workspace, prepare
from softprune.types import WorkItem


class Named(Protocol):
    """A piece of work."""

    @property
    def work(self) -> str:
        """Its name, unique in the run."""


W = TypeVar("W", bound=Named)
# Does a piece of work through a run's store; importable, since another process may call it.
Do = Callable[[Workspace, W], object]


def finish_on_workers(workspace: Workspace, do: Do[W], pieces: Sequence[W], phase: str) -> None:
    """Where the run's executor has processes of its own: has them do what isn't finished, and stores it as it comes.

    None of the pieces depends on another; `phase` is the run's meanwhile.
    """
    run, executor, watch, cluster = workspace.run, workspace.executor, workspace.watch, workspace.recipe.cluster
    if not executor.elsewhere:
        return
    missing = [piece for piece in pieces if not run.has(piece.work)]
    if not missing:
        return
    sent = [WorkItem(piece.work, {"piece": piece, "begun": run.load_checkpoint(piece.work)}) for piece in missing]
    cpus = float(cluster.cpus if cluster.cpus is not None else run.record.threads or 1)
    gpus = float(workspace.backbone.device.type == "cuda") if cluster.gpus is None else cluster.gpus
    title, done = f"{phase}, on workers", len(pieces) - len(missing)
    with run.phase(phase):
        watch.begin(title, len(pieces), done)
        try:
            for result in executor.map(partial(_make, _job(workspace), do), sent, cpus, gpus):
                done += 1
                watch.end()
                _store(workspace, cast(_Back, result.value))
                watch.begin(title, len(pieces), done)
        finally:
            watch.end()


class _Seen(Watch):
    """Notes on a worker what the driver's watch is shown later."""

    def __init__(self) -> None:
        self.title, self.steps, self.begun = "", 0, 0
        self.evaluations: list[tuple[Point, ...]] = []

    def begin(self, title: str, steps: int, done: int) -> None:
        self.title, self.steps, self.begun = title, steps, done

    def evaluated(self, points: Sequence[Point]) -> None:
        self.evaluations.append(tuple(points))


# What a worker sends back: files for the run folder, and what there was to watch.
_Back = tuple[WorkerOutput, _Seen]


def _store(workspace: Workspace, back: _Back) -> None:
    """Write what came back, and show it."""
    (output, seen), watch = back, workspace.watch
    output.store(workspace.run)
    watch.begin(seen.title, seen.steps, seen.begun)
    for points in seen.evaluations:
        watch.evaluated(points)
    watch.end()


def _job(workspace: Workspace) -> str:
    """What a worker must know of the run, as JSON: equal texts need the same things loaded."""
    recipe, record = workspace.recipe, workspace.run.record
    # A worker starts from prompts that are handed to it: it needs no prompt file. Nor does it sweep: its rate is given.
    start = {"init": "vocabulary", "file": None, "text": None}
    form = {"form": "plain", "bottleneck": None, "words": None, "radius": None}  # of the prompt that they come from
    prompt = recipe.prompt.model_copy(update=start | form)
    tuning = recipe.tuning.model_copy(update={"lr": workspace.lr, "sweep": None})
    known = {
        "threads": record.threads,
        "device": workspace.backbone.device.type,  # a worker sees no other GPUs than its own
        "dtype": record.backbone.dtype,
        "K": record.K,
        "inputs": {name: digest for name, digest in (record.inputs or {}).items() if name != "prompt"},
    }
    job = {
        "recipe": recipe.model_copy(update={"prompt": prompt, "tuning": tuning}).resolved(),
        "known": known,
        "path": str(workspace.run.path),
        "versions": versions(),
        "folder": str(Path.cwd()),
    }
    return json.dumps(job, sort_keys=True)


def _make(job: str, do: Do[Any], item: WorkItem) -> _Back:
    """One piece, on a worker."""
    known, seen = json.loads(job), _Seen()
    store = StandIn(Path(known["path"]), Pinned(**known["known"]), item.payload["begun"])  # type: ignore[arg-type]
    do(replace(_workspace(job), run=store, watch=seen), item.payload["piece"])
    return store.output, seen


@lru_cache(maxsize=1)
def _workspace(job: str) -> Workspace:
    """A worker's own, loaded once; a SoftpruneError where something there isn't as the driver has it."""
    known = json.loads(job)
    with suppress(OSError):  # paths of a recipe are relative to it; a machine without it may need none
        os.chdir(known["folder"])
    try:
        here, driver = versions(), known["versions"]  # bits depend on them
        other = [f"{name} {here[name]} instead of {wanted}" for name, wanted in driver.items() if here[name] != wanted]
        if other:
            do = "install the same versions on every node"
            raise SoftpruneError("the driver's versions on its workers", ", ".join(other), do)
        store = StandIn(Path(known["path"]), Pinned(**known["known"]))
        workspace = prepare(Recipe.model_validate(known["recipe"]), store, Watch(), Executor())
    except SoftpruneError as error:
        raise SoftpruneError(error.expected, f"on {platform.node()}: {error.found}", error.do) from error
    return replace(workspace, report=SealedSet(()))  # no worker has any use for `report`
