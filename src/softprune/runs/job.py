"""One attempt at a run: it ends complete, or with a note of why it didn't."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path

from softprune.runs.folder_checks import JSON
from softprune.runs.multiprocess_folder import open_together
from softprune.runs.processes import ALONE, Processes
from softprune.runs.record import Kind
from softprune.runs.run_folder import RunFolder

Finish = Callable[[Path], object]  # called with the folder before the run is marked complete


def run_job(
    out: Path,
    work: Callable[[RunFolder], None],
    *,
    recipe_text: str,
    resolved: dict[str, JSON],
    kind: Kind,
    command: str,
    may_change: Collection[str],
    explain: Callable[[Exception, RunFolder], Exception],
    finish: Finish | None = None,
    check: Callable[[RunFolder], None] | None = None,
    processes: Processes = ALONE,
) -> bool:
    """Runs into a folder, or resumes what was cut off there; False where the run was complete already.

    Args:
        out: the folder.
        work: everything but `finish`.
        recipe_text, resolved, kind, command, may_change: as of `RunFolder.open`.
        explain: an error in a user's words, or the error itself.
        finish: the last thing that is done, by the first process alone.
        check: compares a complete run with the data that it was made from, by the first process alone.
        processes: which do the work together.
    """
    run = open_together(
        processes,
        out,
        recipe_text=recipe_text,
        resolved=resolved,
        kind=kind,
        command=command,
        may_change=may_change,
    )
    is_first, is_new = processes.rank == 0, not run.is_complete
    with run.hold(lambda error: explain(error, run)):
        if is_new:
            work(run)
            if is_first and finish is not None:
                with run.phase("write"):
                    finish(run.path)
            run.complete()
        elif is_first and check is not None:
            check(run)
    processes.broadcast(is_new)  # all of them return when the first one has written everything
    return is_new


def run_clock(run: RunFolder) -> Callable[[], float]:
    """What counts a run's wall seconds from now on, and those of earlier attempts that were cut off."""
    begun, earlier = time.perf_counter(), sum(run.record.cost.phases.values())
    return lambda: earlier + time.perf_counter() - begun
