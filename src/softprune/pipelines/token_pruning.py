"""Run a recipe of learned token pruning from beginning to end, from the command line or from Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from rich.console import Console

from softprune.config import TokensRecipe, load_tokens_recipe, resolve_tokens
from softprune.data import Selection, Splits, Task, load_task, select_sets
from softprune.errors import ManyErrors, SoftpruneError, gathered, of_the_machine, out_of_memory
from softprune.models.tokenization import check_rows
from softprune.runs.job import Finish, run_clock, run_job
from softprune.runs.processes import hold_alone
from softprune.runs.record_parts import ConventionRecord, SelectionRecord, SetSizes, TaskRecord, Truncation
from softprune.runs.run_folder import TRACKERS, RunFolder
from softprune.token_pruning.experiment import BASELINE, experiment
from softprune.token_pruning.families import Anatomy
from softprune.token_pruning.jobs import TextSet, TokenWorkspace, read_texts, take
from softprune.token_pruning.loading import (
    DescribedEncoder,
    check_head,
    check_length,
    describe_encoder,
    load_classifier,
    load_tokenizer,
)
from softprune.token_pruning.model import TokenModel
from softprune.token_pruning.rules import OFFICIAL_LENGTH, Convention
from softprune.training.hardware import settle_machine
from softprune.training.input_checks import data_inputs, hold
from softprune.training.loop import Watch
from softprune.training.progress import watching
from softprune.training.sealed_set import SealedSet
from softprune.types import Example

AnyRecipe: TypeAlias = TokensRecipe | Mapping[str, Any] | str | Path
MODELS = "models"
"""The folder in a run's for the models that it leaves."""
MAY_CHANGE = ("tuning.eval_rows", "tuning.accumulate")
"""A run may go on with other values: nothing but memory and time depends on them, up to rounding."""


def execute(
    recipe: TokensRecipe,
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
        finish: called with the folder before the run is marked complete.
        console: where progress is shown; None for silence.

    Returns:
        Whether anything was left to do.

    Raises:
        SoftpruneError: for anything that a user can fix.
    """
    hold_alone("to prune input tokens")
    return run_job(
        out,
        lambda run: _run(recipe, run, console),
        recipe_text=recipe_text,
        resolved=recipe.resolved(),
        kind=recipe.kind,
        command=command,
        may_change=MAY_CHANGE,
        explain=lambda error, run: _explain(error, recipe),
        finish=finish,
    )


def prune_tokens(recipe: AnyRecipe, out: str | Path, *, console: Console | None = None) -> Path:
    """Learned token pruning from Python.

    Args:
        recipe: a `TokensRecipe`, the name or file of one, or its keys as a nested mapping.
        out: the run folder; a run that was cut off there is taken up.
        console: where progress is shown; None for silence.

    Returns:
        The run folder.
    """
    if isinstance(recipe, TokensRecipe):
        read = recipe
    else:
        read = resolve_tokens((), recipe) if isinstance(recipe, Mapping) else load_tokens_recipe(recipe)
    execute(read, Path(out), "python", read.dump(), console=console)
    return Path(out)


def _run(recipe: TokensRecipe, run: RunFolder, console: Console | None) -> None:
    seconds = run_clock(run)
    with watching(console, recipe.tuning.trackers, run.path / TRACKERS, recipe.resolved()) as watch:
        workspace = prepare(recipe, run, watch)
        found, chosen = experiment(workspace)
        with run.phase("models"):
            anatomy = Anatomy(workspace.make())
            length, base = recipe.task.max_length, recipe.backbone.name
            for name in (BASELINE, *(name for name in found if name.startswith("lambda-"))):
                take(anatomy, found[name].weights)
                rule = found[name].rule
                saved = TokenModel(name, anatomy, workspace.tokenizer, rule, workspace.convention, length, base)
                saved.save(run.path / MODELS / name)
            with run.editing() as record:
                record.model = f"{MODELS}/{chosen}"
    training = run.record.cost.training.values()
    spent = sum(stage.seconds for stage in training)
    with run.editing() as record:
        record.cost.seconds = seconds()
        record.cost.steps = sum(stage.steps for stage in training)
        record.cost.examples_per_second = sum(stage.examples for stage in training) / spent if spent else None


def prepare(recipe: TokensRecipe, run: RunFolder, watch: Watch) -> TokenWorkspace:
    """Load data, check the recipe against data and model, load the tokenizer, record what results depend on.

    Raises:
        ManyErrors: with every disagreement, before any weight is loaded.
    """
    errors: list[SoftpruneError] = []
    data = described = None
    with gathered(errors):
        data = _read_data(recipe)
        errors += _label_mistakes(data[2])
    with gathered(errors):
        described = describe_encoder(recipe.backbone.name, recipe.backbone.revision)
        check_length(described, recipe.task.max_length)
        if not recipe.tuning.epochs:  # the checkpoint's head is used as it is
            check_head(described)
    if data is None or described is None or errors:
        raise errors[0] if len(errors) == 1 else ManyErrors("recipe for this data and model", errors)
    task, splits, sets = data
    machine = recipe.backbone
    device, compute = settle_machine(run, machine.device, machine.dtype, machine.threads)
    labels, tokenizer, known = sets.train[0].answers, load_tokenizer(described), described
    length = recipe.task.max_length
    for example, ids in ((e, tokenizer(e.content)["input_ids"]) for e in _to_check(tokenizer, described, sets)):
        check_rows(tokenizer, ids[:length], described.config.vocab_size, f"row {example.index}")
    workspace = TokenWorkspace(
        recipe=recipe,
        run=run,
        watch=watch,
        task=task,
        labels=labels,
        tokenizer=tokenizer,
        train=read_texts(tokenizer, sets.train, length),
        select=read_texts(tokenizer, sets.select, length),
        report=SealedSet(sets.report),
        make=lambda: load_classifier(known, labels, device, torch.float32, recipe.seed),
        compute=compute,
        convention=convention_of(recipe),
    )
    hold(run, data_inputs(task, sets))
    _record(workspace, described, splits, sets)
    return workspace


def _to_check(tokenizer: Any, described: DescribedEncoder, sets: Selection) -> tuple[Example, ...]:
    """All examples where the tokenizer has words beyond the embedding table, else none."""
    return (*sets.train, *sets.select, *sets.report) if len(tokenizer) > described.config.vocab_size else ()


def convention_of(recipe: TokensRecipe) -> Convention:
    """How a recipe counts importance, and who is safe."""
    divisor = 1.0 if recipe.pruning.divisor == "relative" else float(OFFICIAL_LENGTH)
    return Convention(divisor, recipe.pruning.protect)


def _read_data(recipe: TokensRecipe) -> tuple[Task, Splits, Selection]:
    task = load_task(recipe.task.id)
    splits = task.load(Path(recipe.task.data) if recipe.task.data else None)
    sets = select_sets(
        splits,
        "held-out",
        recipe.task.shots,
        recipe.selection.fraction,
        seed=recipe.seed,
        limit_report=recipe.task.limit_report,
    )
    return task, splits, sets


def _label_mistakes(sets: Selection) -> list[SoftpruneError]:
    """What keeps the examples from being a classification of texts."""
    examples = (*sets.train, *sets.select, *sets.report)
    kinds = {example.answers for example in examples}
    if len(kinds) > 1:
        joined = "several tasks" if examples[0].task else "answers that depend on the example"
        found = "texts to be written" if examples[0].writes else joined
        return [SoftpruneError("a task with the same classes for every text", found, "choose another task")]
    empty = next((example for example in examples if not example.content), None)
    if empty is not None:
        return [SoftpruneError("text in every example", f"none in row {empty.index}", "leave that row out")]
    return []


def _record(workspace: TokenWorkspace, described: DescribedEncoder, splits: Splits, sets: Selection) -> None:
    task = workspace.task
    parts: dict[str, TextSet] = {"train": workspace.train, "select": workspace.select}
    cut = [tokens for part in parts.values() for tokens in part.cut if tokens]
    config = described.config
    task_record = TaskRecord(
        id=task.id,
        version=task.version,
        title=task.definition.title,
        metric=workspace.metric.name,
        answers=list(workspace.labels),
        indices={name: list(indices) for name, indices in sets.indices.items()},
        sizes=SetSizes(train=len(sets.train), select=len(sets.select), report=len(sets.report)),
        tokens={name: sum(map(len, part.ids)) for name, part in parts.items()},
        truncated=Truncation(examples=len(cut), tokens=sum(cut)),
        source=splits.source,
    )
    convention = workspace.convention
    with workspace.run.editing() as record:
        record.backbone.name, record.backbone.family = described.name, str(config.model_type)
        record.backbone.layers = int(config.num_hidden_layers)
        record.task = task_record
        record.selection = SelectionRecord(protocol="held-out", description=sets.description)
        record.convention = ConventionRecord(divisor=convention.divisor, protect=convention.protect)


def _explain(error: Exception, recipe: TokensRecipe) -> Exception:
    """The error in a user's words where it has any."""
    if isinstance(error, SoftpruneError):
        return error
    if not out_of_memory(error):
        return of_the_machine(error) or error
    parts = min(2 * recipe.tuning.accumulate, recipe.tuning.batch_size)
    do = f"give the same command with tuning.accumulate={parts} tuning.eval_rows={max(1, recipe.tuning.eval_rows // 2)}"
    return SoftpruneError("room in memory for the model and a batch", "out of memory", f"{do} behind it")
