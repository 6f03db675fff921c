"""Run a recipe of kind adapt from beginning to end, from the command line or from Python."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console

from softprune.adapters.adapter_io import FOLDER, AdapterInfo, SavedAdapter
from softprune.adapters.base import Adaptation, AdapterPlan
from softprune.adapters.build import adapt as make
from softprune.adapters.jobs import WORK, FittedAdapter, fit, measure_latency, scores_of
from softprune.adapters.settings import method_of, mistakes, plan_of, settled
from softprune.config import Recipe, load_recipe, resolve
from softprune.evaluation.baselines import AdapterSize, report_adapted
from softprune.pipelines.xprompt import told
from softprune.runs.executors import EXECUTORS
from softprune.runs.job import Finish, run_into
from softprune.runs.processes import hold_alone
from softprune.runs.record_parts import AdapterRecord
from softprune.runs.run_folder import TRACKERS, RunFolder
from softprune.training.cost import record_totals
from softprune.training.jobs import schedule
from softprune.training.oom_splitting import MEMORY_KEYS
from softprune.training.progress import watching
from softprune.training.session import Workspace, check_unchanged, prepare

AnyRecipe: TypeAlias = Recipe | Mapping[str, Any] | str | Path


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
        recipe: validated settings of kind adapt.
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
    hold_alone(f"for {recipe.adapter.method}")
    recipe = settled(recipe)
    return run_into(
        out,
        lambda run: _run(recipe, run, console),
        recipe_text=recipe_text,
        resolved=recipe.resolved(),
        kind=recipe.kind,
        command=command,
        may_change=MEMORY_KEYS,
        finish=finish,
        told=lambda error, run: told(error, recipe, run),
        done=lambda run: check_unchanged(recipe, run),
    )


def adapt(recipe: AnyRecipe, out: str | Path, *, console: Console | None = None) -> Path:
    """Adapt a model by any method but a prompt, from Python.

    Args:
        recipe: a `Recipe` of kind adapt, the name or file of one, or its keys as a nested mapping.
        out: the run folder; a run that was cut off there is taken up.
        console: where progress is shown; None for silence.

    Returns:
        The run folder.
    """
    kind = ["kind=adapt"]
    if isinstance(recipe, Recipe):
        read = recipe.model_copy(update={"kind": "adapt"})
    else:
        read = resolve(kind, recipe) if isinstance(recipe, Mapping) else load_recipe(recipe, kind)
    # Settled: a dump names every key, so that the method's own values would count as not asked for.
    execute(read, Path(out), "python", settled(read).dump(), console=console)
    return Path(out)


def _run(recipe: Recipe, run: RunFolder, console: Console | None) -> None:
    begun, before = time.perf_counter(), sum(run.record.cost.phases.values())
    method, plan = method_of(recipe), plan_of(recipe)
    watched = watching(console, recipe.tuning.trackers, run.path / TRACKERS, recipe.resolved())
    with watched as watch, closing(EXECUTORS["in-process"]()) as executor:
        workspace = prepare(
            recipe, run, watch, executor, whole=method.whole, mistakes=lambda described: mistakes(recipe, described)
        )
        workspace.backbone.keep_answers(workspace.task.definition.fixed_answers)
        adaptation = make(workspace.backbone, plan, recipe.seed)
        fitted = fit(workspace, adaptation)
        with run.phase("write"):
            saved = _saved(workspace, plan, adaptation, fitted)
            saved.save(run.path / FOLDER)
            adapter = _record(workspace, adaptation, saved, fitted)
        size = AdapterSize(fitted.seconds, adapter.trainable_parameters, plan.tokens or None)
        report_adapted(workspace, size, partial(scores_of, workspace, adaptation), adaptation.off)
        measure_latency(workspace, adaptation)
    record_totals(
        run,
        seconds=before + time.perf_counter() - begun,
        trainable=adapter.trainable_parameters,
        stored=adapter.stored_parameters,
        steps_an_epoch=schedule(workspace).steps(len(workspace.train))[0],
        works=(WORK, "sweep"),
    )


def _saved(workspace: Workspace, plan: AdapterPlan, adaptation: Adaptation, fitted: FittedAdapter) -> SavedAdapter:
    recipe, info = workspace.recipe, workspace.backbone.info
    told_of = AdapterInfo(
        backbone=info.name,
        revision=recipe.backbone.revision,
        family=info.family,
        fingerprint=info.fingerprint,
        task=workspace.task.id,
        score=workspace.scoring.score,
        match=workspace.reporting.match,
        max_answer_length=workspace.scoring.max_answer_length,
        max_length=recipe.task.max_length,
        hidden=info.hidden,
        prompt_tokens=plan.tokens,
        select=fitted.evaluation.score,
    )
    return SavedAdapter(plan, told_of, workspace.task.definition, adaptation.stored(), adaptation.peft_config())


def _record(workspace: Workspace, adaptation: Adaptation, saved: SavedAdapter, fitted: FittedAdapter) -> AdapterRecord:
    """Which parameters were trained and which must be kept, in run.json."""
    named = adaptation.named()
    adapter = AdapterRecord(
        method=saved.plan.method,
        trains=method_of(workspace.recipe).trains,
        lr=fitted.lr,
        trainable_parameters=sum(p.numel() for p in named.values()),
        stored_parameters=sum(t.numel() for t in saved.tensors.values()),
        trained=sorted(named),
    )
    with workspace.run.editing() as record:
        record.adapter = adapter
    return adapter
