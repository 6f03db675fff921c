"""From a recipe to everything that the stages need: data in three sets, a frozen backbone, how both are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch

from softprune.config import Recipe
from softprune.data import Metric, Selection, Task
from softprune.errors import SoftpruneError
from softprune.models.base import Backbone
from softprune.models.description import BackboneDescription
from softprune.models.loading import resolve_device
from softprune.models.tokenization import answer_notes, check_distinct
from softprune.prompts.soft_prompts import read_one
from softprune.runs.executors import Executor
from softprune.runs.processes import ALONE, Processes
from softprune.runs.record_parts import (
    BackboneRecord,
    SelectionRecord,
    SetSizes,
    SettingsRecord,
    TaskRecord,
    Truncation,
)
from softprune.runs.run_folder import RunFolder
from softprune.training.hardware import choose_threads, load
from softprune.training.input_checks import (
    answer_length,
    check_extracted,
    check_inputs,
    data_inputs,
    model_inputs,
    read_inputs,
)
from softprune.training.loop import Watch
from softprune.training.memory import Rehearsal, measure_group, next_peak
from softprune.training.scoring import ScoredSet, Scoring, SealedSet
from softprune.types import Example, PromptState


@dataclass(frozen=True, slots=True)
class Workspace:
    """What the stages of one run share."""

    recipe: Recipe
    run: RunFolder  # on a worker, `worker_store.StandIn`
    executor: Executor  # runs pieces of work that don't depend on each other
    backbone: Backbone
    task: Task
    train: ScoredSet
    select: ScoredSet
    report: SealedSet
    lessons: ScoredSet  # what a teacher answers: train, and rows without labels
    scoring: Scoring
    lr: float  # the step size, absolute
    group: int  # K, candidates side by side
    watch: Watch

    @property
    def metric(self) -> Metric:
        """What is reported."""
        return self.task.metric

    @property
    def reporting(self) -> Scoring:
        """How `report` is scored."""
        return self.scoring.reporting(self.task.definition.is_generation)

    def prompt(self, state: PromptState) -> torch.Tensor:
        """What the backbone reads of a prompt, `[Q, H]`, where it reads it."""
        return read_one(state, self.recipe.pruning.removal).to(self.backbone.device, self.backbone.prompt_dtype)


def prepare(
    recipe: Recipe,
    run: RunFolder,
    watch: Watch,
    executor: Executor,
    *,
    whole: bool = False,
    mistakes: Callable[[BackboneDescription], Sequence[SoftpruneError]] = lambda described: (),
) -> Workspace:
    """Load data, check the recipe against data and backbone, load the backbone, record what results depend on.

    Where weights of the model will be trained (`whole`) they are float32, or float64 where that was asked for;
    `mistakes` finds what else is wrong with the recipe for a backbone. Every disagreement between recipe, data and
    backbone is in one error, before any weight is loaded.
    """
    task, splits, sets, described = read_inputs(recipe, mistakes)
    run.read_peak = partial(next_peak, resolve_device(recipe.backbone.device))
    run.read_peak()  # what was held before doesn't count as loading
    backbone = load(recipe.backbone, described, run, whole=whole)
    with run.editing() as record:
        record.cost.peak_memory["load"] = run.read_peak()
    train, select = encode_examples(recipe, backbone, sets.train), encode_examples(recipe, backbone, sets.select)
    check_extracted(task, backbone, train)
    # Found now, not when `report` is read at the end: words without an embedding, and answers that tie. Inputs are
    # tokenised only if the tokenizer has words beyond the embedding table.
    if len(backbone.tokenizer) > backbone.vocabulary:
        encode_examples(recipe, backbone, sets.report)
    else:
        check_distinct(backbone.tokenization(), sets.report)
    scoring = scoring_of(recipe, task, backbone, run.processes)
    lessons = train
    if sets.unlabelled:
        more = encode_examples(recipe, backbone, sets.unlabelled)
        lessons = ScoredSet((*train.examples, *more.examples), (*train.encoded, *more.encoded))
    check_inputs(run, data_inputs(task, sets) | model_inputs(recipe, task, backbone, scoring, (lessons, select)))

    rehearsal = rehearse(recipe, backbone, train, scoring)
    group = _settle_group(recipe, run, rehearsal)
    notes, room = [*described.notes, *splits.notes], room_for_inputs(recipe, backbone, sets.train)
    if room < recipe.task.max_length:
        positions = f"{backbone.info.name} reads {backbone.info.positions} with the prompt"
        notes.append(f"inputs are cut at {room} tokens: {positions}")
    notes += answer_notes(backbone.tokenization(), (*sets.train, *sets.select), scoring.score)
    if recipe.backbone.threads == "auto":
        timed = choose_threads(run, backbone.device, lambda: rehearsal.typical_step(group))
        if timed is not None:
            notes.append(timed)
    workspace = Workspace(
        recipe=recipe,
        run=run,
        executor=executor,
        backbone=backbone,
        task=task,
        train=train,
        select=select,
        report=SealedSet(sets.report),
        lessons=lessons,
        # Importance keeps as much for gradients as a training step does.
        scoring=replace(scoring, gradient_rows=min(scoring.rows, recipe.tuning.batch_size * group)),
        lr=recipe.tuning.learning_rate(backbone.embeddings_rms()),
        group=group,
        watch=watch,
    )
    _record(workspace, sets, splits.source, notes)
    return workspace


def rehearse(recipe: Recipe, backbone: Backbone, train: ScoredSet, scoring: Scoring) -> Rehearsal:
    """Steps to be measured, of the costliest kind that the recipe asks for."""
    loss = scoring.loss
    if recipe.has_teacher and not train.is_generation:
        loss = "rank"  # a taught step reads all answers, whatever the loss
    return Rehearsal(recipe, backbone, train, loss, scoring.score)


def _settle_group(recipe: Recipe, run: RunFolder, rehearsal: Rehearsal) -> int:
    """K: what the recipe asks for, a resumed one too; where it doesn't, what the run was begun with, measured then."""
    if recipe.kind != "adapt" and recipe.search.group is not None:
        with run.editing() as record:
            record.K = recipe.search.group

    def measure() -> int:
        group, memory = measure_group(rehearsal)
        if memory is not None:
            with run.editing() as record:
                record.memory = memory
        return group

    return int(run.pin("K", measure))


def room_for_inputs(recipe: Recipe, backbone: Backbone, examples: Sequence[Example]) -> int:
    """Input tokens at most, by the recipe and what the model's positions leave."""
    writes = recipe.task.match == "generate" or examples[0].is_generation
    generated = answer_length(recipe, examples[0].is_generation) if writes else 0
    return room_for(backbone, examples, recipe.virtual_tokens, recipe.task.max_length, generated)


def room_for(
    backbone: Backbone, examples: Sequence[Example], prompt_tokens: int, max_length: int, generated: int = 0
) -> int:
    """Input tokens at most: `max_length`, or what the model's positions leave beside prompt and answers.

    The examples' answers must fit; a text to be written is cut to `generated` tokens. The answers of
    sequence-to-sequence and sentence models are read elsewhere and take no room.
    """
    positions = backbone.info.positions
    if positions is None:
        return max_length
    longest = 0
    if backbone.family in ("causal", "masked"):
        tokenization = backbone.tokenization()
        answers = {answer for example in examples if not example.is_generation for answer in example.answers}
        longest = max([generated, *(len(tokenization.answer_ids(answer)) for answer in answers)])
    return min(max_length, positions - prompt_tokens - longest)


def encode_examples(recipe: Recipe, backbone: Backbone, examples: Sequence[Example]) -> ScoredSet:
    """Examples with their token ids, cut to what fits."""
    longest = answer_length(recipe, writes=True) if examples[0].is_generation else None
    return ScoredSet(examples, backbone.encode(examples, room_for_inputs(recipe, backbone, examples), longest))


def scoring_of(recipe: Recipe, task: Task, backbone: Backbone, processes: Processes = ALONE) -> Scoring:
    """How a recipe's prompts are scored, everywhere alike but on `report`; see `Scoring.reporting`."""
    score, writes = recipe.task.score, task.definition.is_generation
    return Scoring(
        loss=backbone.check_loss(recipe.tuning.loss),
        score=task.definition.score if score == "auto" else score,
        rows=recipe.tuning.eval_rows,
        match="score" if writes else recipe.task.match,
        max_answer_length=answer_length(recipe, writes),
        processes=processes,
        seed=recipe.seed,
    )


def truncation(*parts: ScoredSet) -> Truncation:
    """How many examples were cut, and how many tokens of them; the same of texts to be written."""
    encodings = [each for part in parts for each in part.encoded]
    cut = Truncation(examples=sum(1 for e in encodings if e.cut), tokens=sum(e.cut for e in encodings))
    if parts[0].is_generation:
        targets = [e.target_cut for e in encodings if e.target_cut]
        cut.targets, cut.target_tokens = len(targets), sum(targets)
    return cut


def _record(workspace: Workspace, sets: Selection, source: str, notes: Sequence[str]) -> None:
    recipe, backbone, definition = workspace.recipe, workspace.backbone, workspace.task.definition
    fixed_answers = len({e.answers for e in sets.train}) == 1 and not definition.is_generation
    sizes = SetSizes(train=len(sets.train), select=len(sets.select), report=len(sets.report))
    if sets.unlabelled:
        sizes.unlabelled = len(sets.unlabelled)
    task = TaskRecord(
        id=workspace.task.id,
        version=workspace.task.version,
        title=definition.title,
        instruction=definition.instruction,
        template=definition.template,
        sample=sets.train[0].text,
        metric=workspace.metric.name,
        targets=definition.targets,
        answers=list(sets.train[0].answers) if fixed_answers else None,
        indices=sets.indices,
        sizes=sizes,
        truncated=truncation(workspace.train, workspace.select),
        source=source,
    )
    asked = recipe.selection
    selection = SelectionRecord(protocol=asked.protocol, description=sets.description, objective=asked.objective)
    settings = SettingsRecord(
        loss=workspace.scoring.loss,
        score=workspace.scoring.score,
        match=workspace.reporting.match,
        lr=workspace.lr,
        max_length=recipe.task.max_length,
    )
    if definition.extract is not None:
        task.extract = definition.extract
    if definition.is_generation:
        settings.max_answer_length = workspace.scoring.max_answer_length
    prunes = recipe.kind == "xprompt" or recipe.prompt.mask is not None
    with workspace.run.editing() as record:
        # The pinned dtype is that of the products, also where weights are wider since they are trained.
        record.backbone = BackboneRecord(**asdict(backbone.info) | {"dtype": record.backbone.dtype})
        record.processes = workspace.run.processes.size
        record.removal = recipe.pruning.removal if prunes else None
        record.task, record.selection, record.settings = task, selection, settings
        record.add_notes(*notes)
