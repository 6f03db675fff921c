"""Run a recipe of kind adapt from beginning to end, from the command line or from Python."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console

from softprune.adapters.adapter_io import FOLDER, AdapterInfo, SavedAdapter
from softprune.adapters.base import Adaptation, AdapterPlan
from softprune.adapters.cartridge import Cartridge, document_ids
from softprune.adapters.jobs import (
    WORK,
    FittedAdapter,
    find_mistakes,
    fit,
    measure_latency,
    score_adapted,
    settle_recipe,
)
from softprune.adapters.registry import METHODS
from softprune.adapters.registry import adapt as build_adapter
from softprune.adapters.self_study import as_examples, write_rows
from softprune.config import Recipe
from softprune.config.adapter_schema import WITH_PROMPT
from softprune.config.schema import MEMORY_KEYS
from softprune.data.document import read_document
from softprune.evaluation.baselines import Document, report_adapted
from softprune.pipelines.xprompt import AnyRecipe, read_recipe
from softprune.prompts.initialization import initial_prompt
from softprune.runs.executors import EXECUTORS
from softprune.runs.job import Finish, run_clock, run_job
from softprune.runs.processes import hold_alone
from softprune.runs.record_parts import AdapterRecord
from softprune.runs.run_folder import TRACKERS, RunFolder, Saved
from softprune.training.cost import record_totals
from softprune.training.input_checks import answer_length, check_unchanged
from softprune.training.jobs import schedule
from softprune.training.progress import watching
from softprune.training.scoring import ScoredSet
from softprune.training.session import Workspace, prepare

# Keys that nothing of an adapter depends on once it is trained.
_OF_TRAINING = {"start", "offset_lr", "document", "self_study", "warmup", "decay", "clip_norm"}


def adapt(recipe: AnyRecipe, out: str | Path, *, console: Console | None = None) -> Path:
    """Adapt a model by any method but a prompt, from Python; arguments, result and errors as of `xprompt`."""
    settings = read_recipe(recipe, "adapt")
    # Settled: a dump names every key, so that the method's own values would count as not asked for.
    execute(settings, Path(out), "python", settle_recipe(settings).dump(), console=console)
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
    """Run a recipe of kind adapt into a folder; arguments, result and errors as of `pipelines.xprompt.execute`."""
    hold_alone(f"for {recipe.adapter.method}")
    recipe = settle_recipe(recipe)
    work, check = partial(_run, recipe, console), partial(check_unchanged, recipe)
    return run_job(recipe, out, command, recipe_text, work, may_change=MEMORY_KEYS, finish=finish, check=check)


def _run(recipe: Recipe, console: Console | None, run: RunFolder) -> None:
    seconds = run_clock(run)
    method, asked = METHODS[recipe.adapter.method], recipe.adapter
    plan = AdapterPlan(
        tokens=recipe.virtual_tokens, longest=recipe.task.max_length, **asked.model_dump(exclude=_OF_TRAINING)
    )
    watched = watching(console, recipe.tuning.trackers, run.path / TRACKERS, recipe.resolved())
    with watched as watch, closing(EXECUTORS["in-process"]()) as executor:
        workspace = prepare(recipe, run, watch, executor, whole=method.whole, mistakes=partial(find_mistakes, recipe))
        workspace.backbone.keep_answers(workspace.task.definition.fixed_answers)
        adaptation = build_adapter(workspace.backbone, plan, recipe.seed)
        if asked.start == "prompt" or plan.method in WITH_PROMPT:
            _start(workspace, adaptation)
        cartridge = adaptation if isinstance(adaptation, Cartridge) else None
        if cartridge is not None:
            workspace = _study_document(workspace, cartridge)
        fitted = fit(workspace, adaptation, None if cartridge is None else cartridge.teacher())
        trainable = {name: parameter.numel() for name, parameter in adaptation.named().items()}
        with run.phase("write"):
            saved = _saved(workspace, plan, adaptation, fitted)
            saved.save(run.path / FOLDER)
            stored = sum(tensor.numel() for tensor in saved.tensors.values())
            with run.editing() as record:
                record.adapter = AdapterRecord(
                    method=plan.method,
                    trains=method.trains,
                    lr=fitted.lr,
                    trainable_parameters=sum(trainable.values()),
                    stored_parameters=stored,
                    trained=sorted(trainable),
                )
        report_adapted(
            workspace,
            partial(score_adapted, workspace, adaptation),
            adaptation.off,
            seconds=fitted.seconds,
            parameters=sum(trainable.values()),
            tokens=plan.tokens or None,
            document=None if cartridge is None else Document(cartridge.document_tokens, cartridge.score_document),
        )
        measure_latency(workspace, adaptation)
    rows = len(workspace.train if cartridge is None else workspace.lessons)
    record_totals(
        run,
        seconds=seconds(),
        trainable=sum(trainable.values()),
        stored=stored,
        steps_an_epoch=schedule(recipe, rows).steps(rows)[0],
        works=(WORK, "sweep"),
    )


def _start(workspace: Workspace, adaptation: Adaptation) -> None:
    """Begin as the prompt that the recipe starts from, and note what became of its length."""
    recipe = workspace.recipe
    tokens = {"tokens": recipe.prompt.tokens * adaptation.starts}
    recipe = recipe.model_copy(update={"prompt": recipe.prompt.model_copy(update=tokens)})
    first = initial_prompt(recipe, workspace.backbone, workspace.task)
    adaptation.start_from(first.vectors_PH)
    with workspace.run.editing() as record:
        record.add_notes(*first.notes)


def _study_document(workspace: Workspace, cartridge: Cartridge) -> Workspace:
    """Read the document, if it fits; the lessons then include what the model writes about it, if it is to."""
    recipe, backbone = workspace.recipe, workspace.backbone
    ids = document_ids(backbone, read_document(str(recipe.adapter.document)))
    scoring = workspace.reporting
    generated = scoring.max_answer_length if scoring.match == "generate" else 0
    cartridge.check_room(len(ids), (workspace.lessons, workspace.select), generated)
    cartridge.study(ids)
    with workspace.run.editing() as record:
        record.add_notes(f"the document has {len(ids)} tokens, the cartridge {cartridge.tokens}")
    return _write_lessons(workspace, cartridge, ids) if recipe.adapter.self_study else workspace


def _write_lessons(workspace: Workspace, cartridge: Cartridge, ids: Sequence[int]) -> Workspace:
    """Let the model write questions and answers, once in a run, and add them to the lessons."""
    recipe, run, chat = workspace.recipe, workspace.run, workspace.task.definition.conversation
    count, longest = recipe.adapter.self_study, answer_length(recipe, writes=True)

    def study() -> Saved:
        rows = write_rows(cartridge, ids, count, seed=recipe.seed, answer_tokens=longest, chat=chat)
        return Saved({}, {"rows": rows})

    with run.phase("self-study"):
        rows = run.once("self-study", study).meta["rows"]
    run.write_jsonl("self_study.jsonl", rows)
    examples, lessons = as_examples(rows, chat), workspace.lessons
    written = workspace.backbone.encode(examples, recipe.task.max_length, longest)
    lessons = ScoredSet((*lessons.examples, *examples), (*lessons.encoded, *written))
    cartridge.check_room(len(ids), [lessons])
    with run.editing() as record:
        record.add_notes(f"self-study: {len(rows)} questions in self_study.jsonl, of {count} asked for")
    return replace(workspace, lessons=lessons)


def _saved(workspace: Workspace, plan: AdapterPlan, adaptation: Adaptation, fitted: FittedAdapter) -> SavedAdapter:
    recipe, info = workspace.recipe, workspace.backbone.info
    adapter_info = AdapterInfo(
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
        embedding_scale=workspace.backbone.embedding_scale,
        has_layer_embeddings=workspace.backbone.has_layer_embeddings,
    )
    return SavedAdapter(plan, adapter_info, workspace.task.definition, adaptation.stored(), adaptation.peft_config())
