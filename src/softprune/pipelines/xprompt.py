"""Run a recipe that tunes or prunes a prompt, from beginning to end, from the command line or from Python."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from rich.console import Console

from softprune.config import Recipe
from softprune.config.schema import MEMORY_KEYS
from softprune.errors import SoftpruneError
from softprune.evaluation.baselines import report_tuned, report_xprompt, train_rivals
from softprune.interpret.run_neighbours import write_neighbours
from softprune.pipelines.errors import explain
from softprune.pipelines.outputs import (
    record_ticket_size,
    write_prompts,
    write_pruned,
    write_ticket,
    write_ticket_results,
)
from softprune.pipelines.recipes import AnyRecipe, read_recipe
from softprune.prompts.ticket_io import CONTROL
from softprune.pruning.xprompt import xprompt as find_ticket
from softprune.runs.executors import EXECUTORS, Executor
from softprune.runs.job import Finish, run_clock, run_job
from softprune.runs.processes import Processes, joined
from softprune.runs.run_folder import TRACKERS, RunFolder
from softprune.training.cost import record_totals
from softprune.training.initial_prompt import settled
from softprune.training.jobs import Fitted, schedule, swept
from softprune.training.jobs import tune as tune_prompt
from softprune.training.latency import measure_latency
from softprune.training.progress import watching
from softprune.training.session import Workspace, check_unchanged, prepare

# Nothing but the place of the work and time depend on these: a run may go on with other values of them too.
PLACE_KEYS = ("executor", "cluster.address", "cluster.cpus", "cluster.gpus", "cluster.retries")


def tune(recipe: AnyRecipe, out: str | Path, *, console: Console | None = None) -> Path:
    """Prompt tuning from Python; see `xprompt`."""
    settings = read_recipe(recipe, "tune")
    execute(settings, Path(out), "python", settings.dump(), console=console)
    return Path(out)


def xprompt(recipe: AnyRecipe, out: str | Path, *, console: Console | None = None) -> Path:
    """XPrompt from Python. A run that was cut off is taken up; a complete one is left as it is.

    Args:
        recipe: a `Recipe`, the name or file of one, or its keys as a nested mapping.
        out: the run folder.
        console: where progress is shown; None for silence.

    Returns:
        The run folder.

    Raises:
        SoftpruneError: for anything that a user can fix.
    """
    settings = read_recipe(recipe, "xprompt")
    execute(settings, Path(out), "python", settings.dump(), console=console)
    return Path(out)


def execute(
    recipe: Recipe,
    out: Path,
    command: str,
    recipe_text: str,
    *,
    finish: Finish | None = None,
    console: Console | None = None,
) -> bool:
    """Run a recipe into a folder, or take up a run that was cut off there; a complete one is left as it is.

    Args:
        recipe: validated settings.
        out: the run folder.
        command: what the user typed, for run.json.
        recipe_text: the recipe as it was given.
        finish: called with the folder before the run is marked complete (the command line writes the report).
        console: where progress is shown; None for silence.

    Returns:
        Whether anything was left to do.

    Raises:
        SoftpruneError: for anything that a user can fix. The run is marked failed and can be taken up again; one that
            failed before its first piece of work leaves nothing.
    """
    with joined() as processes:
        recipe = settled(recipe, begun=(out / "run.json").exists())
        return run_job(
            out,
            lambda run: _run(recipe, run, None if processes.rank else console),
            recipe_text=recipe_text,
            resolved=recipe.resolved(),
            kind=recipe.kind,
            command=command,
            may_change=(*MEMORY_KEYS, *PLACE_KEYS),
            explain=lambda error, run: explain(error, recipe, run),
            finish=finish,
            check=lambda run: check_unchanged(recipe, run),
            processes=processes,
        )


def _run(recipe: Recipe, run: RunFolder, console: Console | None) -> None:
    seconds = run_clock(run)
    trackers = () if run.processes.rank else recipe.tuning.trackers
    watched = watching(console, trackers, run.path / TRACKERS, recipe.resolved())
    with watched as watch, closing(_executor(recipe, run.processes)) as executor:
        workspace = swept(prepare(recipe, run, watch, executor))
        tuned, winner = (_tune(workspace), None) if recipe.kind == "tune" else _prune(workspace)
        shipped = winner or tuned
        measure_latency(workspace, shipped)
        with run.phase("neighbours"):
            write_neighbours(run, workspace.backbone, tuned.state, None if winner is None else winner.state)
    hidden = workspace.backbone.info.hidden
    record_totals(
        run,
        seconds=seconds(),
        trainable=workspace.recipe.prompt.tokens * hidden,
        stored=shipped.state.mask.parameters(hidden),
        steps_an_epoch=schedule(workspace).steps(len(workspace.train))[0],
        works=("tune", "sweep"),
    )


def _tune(workspace: Workspace) -> Fitted:
    tuned = tune_prompt(workspace)
    write_prompts(workspace, {"tuned": tuned})
    write_ticket(workspace, tuned)
    if workspace.recipe.prompt.mask is not None:
        record_ticket_size(workspace, tuned.state.mask)
    results = report_tuned(workspace, tuned)
    write_ticket_results(workspace, results, "tuned")
    return tuned


def _prune(workspace: Workspace) -> tuple[Fitted, Fitted]:
    """The tuned prompt and the winner."""
    pruned = find_ticket(workspace)
    rivals = train_rivals(workspace, pruned)
    with workspace.run.phase("ticket"):
        write_pruned(workspace, pruned, rivals.control)
    results = report_xprompt(workspace, pruned, rivals)
    write_ticket_results(workspace, results, "winner")
    write_ticket_results(workspace, results, "control", CONTROL)
    return pruned.tuned, pruned.winner.fitted


def _executor(recipe: Recipe, processes: Processes) -> Executor:
    """What the recipe names; tuning alone has nothing to spread.

    Raises:
        SoftpruneError: several processes share every step, so none of them can hand work on.
    """
    if recipe.kind == "tune" or recipe.executor == "in-process":
        return EXECUTORS["in-process"]()
    if processes.size > 1:
        raise SoftpruneError(
            f"one process with --executor {recipe.executor}",
            f"{processes.size}, launched together",
            "leave out the launcher, or --executor",
        )
    return EXECUTORS[recipe.executor](recipe.cluster.address, recipe.cluster.retries)
