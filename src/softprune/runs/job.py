"""One attempt at a run: it ends complete, or with a note of why it didn't."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path

from softprune.config import Recipe, TokensRecipe
from softprune.errors import SoftpruneError, explain_system_error, out_of_memory
from softprune.runs.processes import ALONE, Processes
from softprune.runs.run_folder import RunFolder

Finish = Callable[[Path], object]  # called with the folder before the run is marked complete


def run_job(
    recipe: Recipe | TokensRecipe,
    out: Path,
    command: str,
    recipe_text: str,
    work: Callable[[RunFolder], None],
    *,
    may_change: Collection[str],
    finish: Finish | None = None,
    check: Callable[[RunFolder], None] | None = None,
    processes: Processes = ALONE,
) -> bool:
    """Runs into a folder, or resumes what was cut off there; False where the run was complete already.

    `finish` is called last, and `check` compares a complete run with the data that it was made from: both by the first
    of the processes alone. The other arguments are as of `RunFolder.open`.
    """
    run = RunFolder.open(
        out,
        recipe_text=recipe_text,
        resolved=recipe.resolved(),
        kind=recipe.kind,
        command=command,
        may_change=may_change,
        processes=processes,
    )
    is_first = processes.rank == 0
    is_new: bool = processes.broadcast(not run.is_complete)
    with run.hold(lambda error: _explain(error, recipe, run)):
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


def _explain(error: Exception, recipe: Recipe | TokensRecipe, run: RunFolder) -> Exception:
    """The error in a user's words where it has any: memory and disk are a user's business, bugs are ours.

    Out of memory, the advice has smaller values of the keys on which only memory and time depend, as a command line has
    them.
    """
    if isinstance(error, SoftpruneError):
        return error
    if not out_of_memory(error):
        return explain_system_error(error) or error
    tuning, group, smaller = recipe.tuning, run.record.K or 1, []
    if recipe.kind == "xprompt" and group > 1:  # a run that only tunes saves no memory by another K
        smaller.append(f"search.group={group // 2}")
    if tuning.eval_rows > 1:
        smaller.append(f"tuning.eval_rows={tuning.eval_rows // 2}")
    parts = min(2 * tuning.accumulate, tuning.batch_size)
    if parts > tuning.accumulate:
        smaller.append(f"tuning.accumulate={parts}")
    do = "choose a smaller model or batch, or --dtype bfloat16, with another --out"
    if smaller:
        do = f"give the same command with {' '.join(smaller)} behind it: the run goes on, "
        do += "results stay the same up to rounding"
    lines = str(error).strip().splitlines() or ["no more is known"]
    return SoftpruneError("room in memory for the model and a batch", f"out of memory ({lines[0][:160]})", do)


def run_clock(run: RunFolder) -> Callable[[], float]:
    """What counts a run's wall seconds from now on, and those of earlier attempts that were cut off."""
    begun, earlier = time.perf_counter(), sum(run.record.cost.phases.values())
    return lambda: earlier + time.perf_counter() - begun
