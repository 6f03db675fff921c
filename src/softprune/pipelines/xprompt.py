"""Run a recipe from beginning to end, from the command line or from Python."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console

from softprune.config import Recipe, load_recipe, resolve
from softprune.errors import SoftpruneError, of_the_machine, out_of_memory
from softprune.evaluation.baselines import report_tuned, report_xprompt, train_rivals
from softprune.interpret.run_neighbours import write_neighbours
from softprune.prompts.ticket import CONTROL, DOCUMENT, RESULTS, TENSORS, Ticket, TicketInfo
from softprune.pruning.xprompt import Pruned
from softprune.pruning.xprompt import xprompt as find_ticket
from softprune.runs.executors import EXECUTORS, Executor
from softprune.runs.job import Finish, attempt
from softprune.runs.multiprocess_folder import open_together
from softprune.runs.processes import Processes, join
from softprune.runs.record_parts import ImportanceRecord, ResultRow, TicketRecord
from softprune.runs.run_folder import TRACKERS, RunFolder
from softprune.training.cost import record_totals
from softprune.training.initial_prompt import settled
from softprune.training.jobs import Fitted, schedule, swept
from softprune.training.jobs import tune as tune_prompt
from softprune.training.latency import measure_latency
from softprune.training.oom_splitting import MEMORY_KEYS, side_by_side
from softprune.training.progress import watching
from softprune.training.session import Workspace, check_unchanged, prepare
from softprune.types import Mask

AnyRecipe: TypeAlias = Recipe | Mapping[str, Any] | str | Path

# Nothing but the place of the work and time depend on these: a run may go on with other values of them too.
PLACE_KEYS = ("executor", "cluster.address", "cluster.cpus", "cluster.gpus", "cluster.retries")


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
    processes = join()
    try:
        done = _execute(recipe, out, command, recipe_text, processes, finish, console if processes.rank == 0 else None)
        processes.broadcast(done)  # all of them return when the first one has written everything
        return done
    except Exception as error:
        processes.tell(error)
        raise


def _execute(
    recipe: Recipe,
    out: Path,
    command: str,
    recipe_text: str,
    processes: Processes,
    finish: Finish | None,
    console: Console | None,
) -> bool:
    recipe = settled(recipe, begun=(out / "run.json").exists())
    run = open_together(
        processes,
        out,
        recipe_text=recipe_text,
        resolved=recipe.resolved(),
        kind=recipe.kind,
        command=command,
        may_change=(*MEMORY_KEYS, *PLACE_KEYS),
    )
    first = processes.rank == 0

    def work() -> None:
        _run(recipe, run, console)
        if finish is not None and first:
            with run.phase("write"):
                finish(run.path)

    def done() -> None:
        if first:
            check_unchanged(recipe, run)

    return attempt(run, work, lambda error: told(error, recipe, run), done)


def tune(recipe: AnyRecipe, out: str | Path, *, console: Console | None = None) -> Path:
    """Prompt tuning from Python; see `xprompt`."""
    return _from_python("tune", recipe, out, console)


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
    return _from_python("xprompt", recipe, out, console)


def told(error: Exception, recipe: Recipe, run: RunFolder) -> Exception:
    """The error in a user's words where it has any: memory and disk are a user's business, bugs are ours."""
    if isinstance(error, SoftpruneError):
        return error
    return _no_room(error, recipe, run) if out_of_memory(error) else of_the_machine(error) or error


def _no_room(error: Exception, recipe: Recipe, run: RunFolder) -> SoftpruneError:
    """Out of memory, with smaller values of what nothing but memory and time depends on."""
    tuning, group = recipe.tuning, side_by_side(run) or run.record.K or 1
    smaller = {
        "search.group": (group, max(1, group // 2)) if recipe.kind == "xprompt" else (1, 1),
        "tuning.eval_rows": (tuning.eval_rows, max(1, tuning.eval_rows // 2)),
        "tuning.accumulate": (tuning.accumulate, min(2 * tuning.accumulate, max(tuning.batch_size, tuning.accumulate))),
    }
    advice = " ".join(f"{key}={to}" for key, (now, to) in smaller.items() if to != now)
    do = f"give the same command with {advice} behind it: the run goes on, results stay the same up to rounding"
    return SoftpruneError(
        "room in memory for the model and a batch",
        f"out of memory ({str(error).strip().splitlines()[0][:160] if str(error).strip() else 'no more is known'})",
        do if advice else "choose a smaller model or batch, or --dtype bfloat16, with another --out",
    )


def _from_python(kind: str, recipe: AnyRecipe, out: str | Path, console: Console | None) -> Path:
    folder, overrides = Path(out), [f"kind={kind}"]
    if isinstance(recipe, Recipe):
        read = recipe.model_copy(update={"kind": kind})
    else:
        read = resolve(overrides, recipe) if isinstance(recipe, Mapping) else load_recipe(recipe, overrides)
    execute(read, folder, "python", read.dump(), console=console)
    return folder


def _run(recipe: Recipe, run: RunFolder, console: Console | None) -> None:
    begun = time.perf_counter()
    before = sum(run.record.cost.phases.values())  # of earlier attempts that were cut off
    trackers = () if run.processes.rank else recipe.tuning.trackers
    watched = watching(console, trackers, run.path / TRACKERS, recipe.resolved())
    with watched as watch, closing(_executor(recipe, run.processes)) as executor:
        workspace = prepare(recipe, run, watch, executor)
        workspace = swept(workspace)
        if recipe.kind == "tune":
            tuned = shipped = tune_prompt(workspace)
            _write_prompts(workspace, {"tuned": tuned})
            _write_ticket(workspace, tuned)
            if recipe.prompt.mask is not None:
                _record_ticket(workspace, tuned.state.mask)
            results = report_tuned(workspace, tuned)
            _write_results(workspace, results, "tuned")
        else:
            pruned = find_ticket(workspace)
            tuned = pruned.tuned
            rivals = train_rivals(workspace, pruned)
            with run.phase("ticket"):
                _write_prompts(workspace, {"tuned": tuned, "control": rivals.control})
                _write_importance(workspace, pruned)
                winner = pruned.winner
                assert winner.fitted is not None
                shipped = winner.fitted
                ratios = (winner.candidate.token_ratio, winner.candidate.piece_ratio)
                _write_ticket(workspace, shipped, *ratios)
                _write_ticket(workspace, rivals.control, folder=CONTROL)
                _record_ticket(workspace, winner.mask)
            results = report_xprompt(workspace, pruned, rivals)
            _write_results(workspace, results, "winner")
            _write_results(workspace, results, "control", CONTROL)
        measure_latency(workspace, shipped)
        with run.phase("neighbours"):
            winner_state = None if recipe.kind == "tune" else shipped.state
            write_neighbours(run, workspace.backbone, tuned.state, winner_state)
    hidden = workspace.backbone.info.hidden
    record_totals(
        run,
        seconds=before + time.perf_counter() - begun,
        trainable=workspace.recipe.prompt.tokens * hidden,
        stored=shipped.state.mask.parameters(hidden),
        steps_an_epoch=schedule(workspace).steps(len(workspace.train))[0],
        works=("tune", "sweep"),
    )


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


def _write_prompts(workspace: Workspace, prompts: dict[str, Fitted]) -> None:
    for name, fitted in prompts.items():
        metadata = {"backbone": workspace.backbone.info.name, "fingerprint": workspace.backbone.info.fingerprint}
        workspace.run.write_tensors(f"prompts/{name}.safetensors", {"vectors_PH": fitted.state.vectors_PH}, metadata)


def _write_importance(workspace: Workspace, pruned: Pruned) -> None:
    found = pruned.importance
    measured = ImportanceRecord(method=found.method, examples=found.examples, token_over_piece=found.token_over_piece)
    with workspace.run.editing() as record:
        record.importance = measured
    workspace.run.write_tensors(
        "importance.safetensors",
        {
            "token_P": found.token_P,
            "piece_PS": found.piece_PS,
            "winner_piece_PS": pruned.winner_importance_PS,
        },
        {"method": found.method, "examples": str(found.examples)},
    )


def _write_ticket(
    workspace: Workspace,
    fitted: Fitted,
    token_ratio: float = 0.0,
    piece_ratio: float = 0.0,
    folder: str = "ticket",
) -> None:
    """What the run leaves for use elsewhere: winner and control, or the tuned prompt of a run that only tuned."""
    recipe, info, mask = workspace.recipe, workspace.backbone.info, fitted.state.mask
    ticket = Ticket(
        fitted.state,
        TicketInfo(
            backbone=info.name,
            revision=recipe.backbone.revision,
            family=info.family,
            fingerprint=info.fingerprint,
            task=workspace.task.id,
            task_version=str(workspace.task.version),
            leading=workspace.backbone.leading,
            embedding_scale=workspace.backbone.embedding_scale,
            removal=recipe.pruning.removal,
            score=workspace.scoring.score,
            match=workspace.reporting.match,
            max_answer_length=workspace.scoring.max_answer_length,
            max_length=recipe.task.max_length,
            token_ratio=token_ratio,
            piece_ratio=piece_ratio,
            prompt_tokens=mask.piece_PS.shape[0],
            pieces_per_token=mask.piece_PS.shape[1],
            hidden=info.hidden,
            tokens=mask.tokens,
            pieces=mask.pieces,
            parameters=mask.parameters(info.hidden),
            select=fitted.evaluation.score,
        ),
        workspace.task.definition,
    )
    workspace.run.write_tensors(f"{folder}/{TENSORS}", ticket.tensors(), {"schema": "1"})
    workspace.run.write_json(f"{folder}/{DOCUMENT}", ticket.document())


def _write_results(workspace: Workspace, results: Mapping[str, ResultRow], name: str, folder: str = "ticket") -> None:
    """What was reported goes with the ticket: its own row first, and what it must be held against."""
    names = dict.fromkeys((name, "control", "tuned", "zero_shot", "constant"))
    rows = {row: results[row] for row in names if row in results}
    lines = {row: {"value": found.value, "interval": found.interval, "n": found.n} for row, found in rows.items()}
    workspace.run.write_json(f"{folder}/{RESULTS}", lines)


def _record_ticket(workspace: Workspace, mask: Mask) -> None:
    """The winner's size, in run.json."""
    parameters = mask.parameters(workspace.backbone.info.hidden)
    whole = mask.token_P.shape[0] * workspace.backbone.info.hidden
    ticket = TicketRecord(
        tokens=mask.tokens, pieces=mask.pieces, parameters=parameters, share_of_parameters=parameters / whole
    )
    with workspace.run.editing() as record:
        record.ticket = ticket
