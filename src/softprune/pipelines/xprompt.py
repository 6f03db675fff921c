"""Run a recipe that tunes or prunes a prompt, from beginning to end, from the command line or from Python."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

from rich.console import Console

from softprune.config import Recipe, load_config
from softprune.config.schema import MEMORY_KEYS
from softprune.errors import SoftpruneError
from softprune.evaluation.baselines import report_tuned, report_xprompt, train_rivals
from softprune.interpret.run_neighbours import write_neighbours
from softprune.prompts.initialization import settle_tokens
from softprune.prompts.ticket import CONTROL, DOCUMENT, RESULTS, TENSORS, Reported, Ticket, TicketInfo
from softprune.pruning.xprompt import xprompt as find_ticket
from softprune.runs.executors import EXECUTORS, Executor
from softprune.runs.job import Finish, run_clock, run_job
from softprune.runs.processes import Processes, joined
from softprune.runs.record_parts import ImportanceRecord, ResultRow, TicketRecord
from softprune.runs.run_folder import TRACKERS, RunFolder
from softprune.training.cost import behind_prompt, latency, record_totals
from softprune.training.input_checks import check_unchanged
from softprune.training.jobs import Fitted, schedule, sweep
from softprune.training.jobs import tune as tune_prompt
from softprune.training.progress import watching
from softprune.training.session import Workspace, prepare
from softprune.types import Mask

AnyRecipe: TypeAlias = Recipe | Mapping[str, Any] | str | Path

# Nothing but the place of the work and time depend on these: a run may go on with other values of them too.
PLACE_KEYS = ("executor", "cluster.address", "cluster.cpus", "cluster.gpus", "cluster.retries")


def tune(recipe: AnyRecipe, out: str | Path, *, console: Console | None = None) -> Path:
    """Prompt tuning from Python; see `xprompt`."""
    settings = read_recipe(recipe, "tune")
    execute(settings, Path(out), "python", settings.dump(), console=console)
    return Path(out)


def xprompt(recipe: AnyRecipe, out: str | Path, *, console: Console | None = None) -> Path:
    """XPrompt from Python. A run that was interrupted is resumed; a complete one is left as it is.

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


def read_recipe(recipe: AnyRecipe, kind: Literal["tune", "xprompt", "adapt"]) -> Recipe:
    """The recipe with this kind, whatever kind it names itself.

    Raises:
        ManyErrors: with everything that is wrong with it.
    """
    if isinstance(recipe, Recipe):
        return recipe.model_copy(update={"kind": kind})
    return load_config(Recipe, recipe, [f"kind={kind}"])


def execute(
    recipe: Recipe,
    out: Path,
    command: str,
    recipe_text: str,
    *,
    finish: Finish | None = None,
    console: Console | None = None,
) -> bool:
    """Run a recipe into a folder, or resume a run that was interrupted there; a complete one is left as it is.

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
        SoftpruneError: for anything that a user can fix. The run is marked failed and can be resumed; one that
            failed before its first piece of work leaves nothing.
    """
    with joined() as processes:
        recipe = settle_tokens(recipe, begun=(out / "run.json").exists())
        return run_job(
            recipe,
            out,
            command,
            recipe_text,
            partial(_run, recipe, None if processes.rank else console),
            may_change=(*MEMORY_KEYS, *PLACE_KEYS),
            finish=finish,
            check=partial(check_unchanged, recipe),
            processes=processes,
        )


def _run(recipe: Recipe, console: Console | None, run: RunFolder) -> None:
    seconds = run_clock(run)
    trackers = () if run.processes.rank else recipe.tuning.trackers
    watched = watching(console, trackers, run.path / TRACKERS, recipe.resolved())
    with watched as watch, closing(_executor(recipe, run.processes)) as executor:
        workspace = sweep(prepare(recipe, run, watch, executor))
        if recipe.kind == "tune":
            tuned, winner = _tune(workspace), None
        else:
            tuned, winner = _prune(workspace)
        state = (winner or tuned).state
        if recipe.tuning.latency:
            backbone, prompt_QH = workspace.backbone, workspace.prompt(state)
            ways = {"with": behind_prompt(backbone, prompt_QH), "without": behind_prompt(backbone, prompt_QH[:0])}
            with run.phase("latency"):
                run.pin("cost.latency", lambda: latency(backbone, workspace.select, ways))
        with run.phase("neighbours"):
            write_neighbours(run, workspace.backbone, tuned.state, None if winner is None else winner.state)
    hidden, examples = workspace.backbone.info.hidden, len(workspace.train)
    formed = None if run.record.prompt is None else run.record.prompt.trained
    record_totals(
        run,
        seconds=seconds(),
        trainable=formed or recipe.prompt.tokens * hidden,
        stored=state.mask.parameters(hidden),
        steps_an_epoch=schedule(recipe, examples).steps(examples)[0],
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
    run, pruned = workspace.run, find_ticket(workspace)
    rivals = train_rivals(workspace, pruned)
    winner, importance = pruned.winner, pruned.importance
    with run.phase("ticket"):
        write_prompts(workspace, {"tuned": pruned.tuned, "control": rivals.control})
        with run.editing() as record:
            record.importance = ImportanceRecord(
                method=importance.method,
                examples=importance.examples,
                token_over_piece=importance.token_over_piece,
            )
        tensors = {
            "token_P": importance.token_P,
            "piece_PS": importance.piece_PS,
            "winner_piece_PS": pruned.winner_importance_PS,
        }
        metadata = {"method": importance.method, "examples": str(importance.examples)}
        run.write_tensors("importance.safetensors", tensors, metadata)
        write_ticket(workspace, winner.fitted, winner.candidate.token_ratio, winner.candidate.piece_ratio)
        write_ticket(workspace, rivals.control, folder=CONTROL)
        record_ticket_size(workspace, winner.mask)
    results = report_xprompt(workspace, pruned, rivals)
    write_ticket_results(workspace, results, "winner")
    write_ticket_results(workspace, results, "control", CONTROL)
    return pruned.tuned, winner.fitted


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


# --- what a run leaves for use elsewhere ---


def write_prompts(workspace: Workspace, prompts: dict[str, Fitted]) -> None:
    """Write prompts to `prompts/NAME.safetensors`."""
    info = workspace.backbone.info
    metadata = {"backbone": info.name, "fingerprint": info.fingerprint}
    for name, fitted in prompts.items():
        workspace.run.write_tensors(f"prompts/{name}.safetensors", {"vectors_PH": fitted.state.vectors_PH}, metadata)


def write_ticket(
    workspace: Workspace,
    fitted: Fitted,
    token_ratio: float = 0.0,
    piece_ratio: float = 0.0,
    folder: str = "ticket",
) -> None:
    """Write a ticket: of winner and control, or the tuned prompt of a run that only tuned."""
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
            leading=workspace.train.encoded[0].place or workspace.backbone.leading,
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
            has_layer_embeddings=workspace.backbone.has_layer_embeddings,
        ),
        workspace.task.definition,
    )
    workspace.run.write_tensors(f"{folder}/{TENSORS}", ticket.tensors(), {"schema": "1"})
    workspace.run.write_json(f"{folder}/{DOCUMENT}", ticket.document())


def write_ticket_results(
    workspace: Workspace, results: Mapping[str, ResultRow], name: str, folder: str = "ticket"
) -> None:
    """Write what was reported beside its ticket: its own row first, then what it must be compared with."""
    rows = {}
    for row in dict.fromkeys((name, "control", "tuned", "zero_shot", "constant")):
        if row in results:
            rows[row] = {field: getattr(results[row], field) for field in Reported.__dataclass_fields__}
    workspace.run.write_json(f"{folder}/{RESULTS}", rows)


def record_ticket_size(workspace: Workspace, mask: Mask) -> None:
    """Record how much of the prompt is left."""
    hidden = workspace.backbone.info.hidden
    parameters = mask.parameters(hidden)
    with workspace.run.editing() as record:
        record.ticket = TicketRecord(
            tokens=mask.tokens,
            pieces=mask.pieces,
            parameters=parameters,
            share_of_parameters=parameters / (mask.token_P.shape[0] * hidden),
        )
