"""From a recipe to everything that the stages need: data in three sets, a frozen backbone, a first prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from softprune.config import Recipe
from softprune.data import Metric, Selection, Splits, Task, load_task, select_sets
from softprune.errors import ManyErrors, SoftpruneError, gathered
from softprune.models import describe
from softprune.models.base import Backbone
from softprune.models.description import BackboneDescription
from softprune.models.loading import resolve_device
from softprune.models.placement import check_placement, check_quantizer
from softprune.models.tokenization import answer_notes, check_distinct
from softprune.runs.executors import Executor
from softprune.runs.processes import ALONE, Processes
from softprune.runs.record_parts import (
    BackboneRecord,
    MemoryRecord,
    SelectionRecord,
    SetSizes,
    SettingsRecord,
    TaskRecord,
    Truncation,
)
from softprune.runs.worker_store import Store
from softprune.training.cost import PeakMemory
from softprune.training.hardware import choose_threads, load
from softprune.training.initial_prompt import file_mistakes, label_mistakes, mask_mistakes, text_mistakes
from softprune.training.input_checks import data_inputs, hold, model_inputs
from softprune.training.loop import Watch
from softprune.training.memory import Rehearsal, measure_group
from softprune.training.scoring import ScoredSet, Scoring
from softprune.training.sealed_set import SealedSet
from softprune.training.text_targets import LEAST_ROOM, answer_length, written_mistakes
from softprune.types import Example


@dataclass(frozen=True, slots=True)
class Workspace:
    """What the stages of one run share.

    Attributes:
        recipe: the settings.
        run: the folder, or what stands in for it on a worker.
        executor: what runs pieces of work that don't depend on each other.
        backbone: frozen.
        task: with its metric.
        train, select: encoded examples.
        report: sealed.
        scoring: how prompts are scored, everywhere alike.
        lr: absolute step size.
        group: K, candidates side by side.
        watch: who is told how training goes.
    """

    recipe: Recipe
    run: Store
    executor: Executor
    backbone: Backbone
    task: Task
    train: ScoredSet
    select: ScoredSet
    report: SealedSet
    scoring: Scoring
    lr: float
    group: int
    watch: Watch

    @property
    def metric(self) -> Metric:
        """What is reported."""
        return self.task.metric

    @property
    def choice(self) -> Metric:
        """What every choice on `select` goes by."""
        return self.task.choice

    @property
    def reporting(self) -> Scoring:
        """How `report` is scored."""
        return self.scoring.reporting(self.task.definition.is_generation)

    def encode(self, examples: Sequence[Example]) -> ScoredSet:
        """Examples with their token ids."""
        return encoded(self.recipe, self.backbone, examples)


def prepare(
    recipe: Recipe,
    run: Store,
    watch: Watch,
    executor: Executor,
    *,
    whole: bool = False,
    mistakes: Callable[[BackboneDescription], Sequence[SoftpruneError]] = lambda described: (),
) -> Workspace:
    """Load data, check the recipe against data and backbone, load the backbone, record what results depend on.

    Args:
        recipe: the settings.
        run: the folder.
        watch: who is told how training goes.
        executor: what runs pieces of work that don't depend on each other.
        whole: whether weights of the model will be trained: then they are float32 (float64 where that was asked for).
        mistakes: what else is wrong with the recipe for a backbone.

    Raises:
        ManyErrors: with every disagreement between recipe, data and backbone, before any weight is loaded.
    """
    task, splits, sets, described = _read_inputs(recipe, mistakes)
    run.meter = PeakMemory(resolve_device(recipe.backbone.device))
    run.meter.lap()
    backbone = load(recipe.backbone, run, whole=whole)
    with run.editing() as record:
        record.cost.peak_memory["load"] = run.meter.lap()
    train = encoded(recipe, backbone, sets.train)
    scoring = scoring_of(recipe, task, backbone, run.processes)
    rehearsal = Rehearsal(recipe, backbone, train, scoring.loss, scoring.score)
    group = _group(recipe, run, rehearsal)
    timed = None
    if recipe.backbone.threads == "auto":
        timed = choose_threads(run, backbone.device, lambda: rehearsal.typical_step(group))
    # Importance keeps as much for gradients as a training step does.
    scoring = replace(scoring, gradient_rows=min(scoring.rows, recipe.tuning.batch_size * group))
    workspace = Workspace(
        recipe=recipe,
        run=run,
        executor=executor,
        backbone=backbone,
        task=task,
        train=train,
        select=encoded(recipe, backbone, sets.select),
        report=SealedSet(sets.report),
        scoring=scoring,
        lr=learning_rate(recipe, backbone),
        group=group,
        watch=watch,
    )
    check_report(recipe, backbone, sets.report)
    room = room_for_inputs(recipe, backbone, sets.train)
    shortened = [f"inputs are cut at {room} tokens: {described.name} reads {described.positions} with the prompt"]
    spoken = answer_notes(backbone.tokenization(), (*sets.train, *sets.select), scoring.score)
    notes = [*described.notes, *splits.notes, *(shortened if room < recipe.task.max_length else []), *spoken]
    notes += [timed] if timed else []
    encoded_sets = (workspace.train, workspace.select)
    hold(run, data_inputs(task, sets) | model_inputs(recipe, task, backbone, scoring, encoded_sets))
    _record(workspace, sets, splits.source, notes)
    return workspace


def check_unchanged(recipe: Recipe, run: Store) -> None:
    """Hold a complete run to its task and data, where these can still be read: its results are of no others.

    Raises:
        SoftpruneError: when either has changed since.
    """
    if not run.record.inputs:
        return
    try:
        task = load_task(recipe.task.id)
        _, sets = read_data(recipe, task, patient=False)
    except SoftpruneError:  # gone, or out of reach: nothing contradicts what was found
        return
    hold(run, data_inputs(task, sets))


def _read_inputs(
    recipe: Recipe, mistakes: Callable[[BackboneDescription], Sequence[SoftpruneError]]
) -> tuple[Task, Splits, Selection, BackboneDescription]:
    """The task's data and the backbone's configuration; what is wrong with either is told together."""
    errors: list[SoftpruneError] = []
    data = described = None
    with gathered(errors):
        task = load_task(recipe.task.id)
        errors += [*label_mistakes(recipe, task), *text_mistakes(recipe, task)]
        data = (task, *read_data(recipe, task))
    settings = recipe.backbone
    with gathered(errors):
        check_placement(settings.device, settings.device_map, settings.quantization)
        check_quantizer(settings.quantization, resolve_device(settings.device))
    with gathered(errors):
        described = describe(settings.name, settings.family, settings.revision, settings.trust_remote_code)
        errors += mistakes(described)
        check(recipe, described)
    if data is not None and described is not None and data[0].definition.is_generation:
        errors += written_mistakes(recipe, data[0].id, described)
    if data is None or described is None or errors:
        raise errors[0] if len(errors) == 1 else ManyErrors("recipe for this data and backbone", errors)
    return (*data, described)


def read_data(recipe: Recipe, task: Task, *, patient: bool = True) -> tuple[Splits, Selection]:
    """The task's data, and the three sets that the recipe makes of it; `patient` as in `Task.load`."""
    splits = task.load(Path(recipe.task.data) if recipe.task.data else None, patient=patient)
    sets = select_sets(
        splits,
        recipe.selection.protocol,
        recipe.task.shots,
        recipe.selection.fraction,
        seed=recipe.seed,
        limit_report=recipe.task.limit_report,
        report_seed=recipe.task.report_seed,
    )
    return splits, sets


def check(recipe: Recipe, described: BackboneDescription) -> None:
    """Hold a recipe against a backbone's configuration.

    Raises:
        ManyErrors: with all disagreements.
    """
    errors = []
    prompt = recipe.prompt
    if recipe.kind == "xprompt" and described.hidden % prompt.pieces:
        near = [s for s in range(1, described.hidden + 1) if described.hidden % s == 0 and s <= 64]
        errors.append(
            SoftpruneError(
                f"prompt.pieces that divide H = {described.hidden} of {described.name}",
                str(prompt.pieces),
                f"set prompt.pieces to one of {', '.join(map(str, near))}",
            )
        )
    if recipe.tuning.loss == "likelihood" and described.family == "sentence":
        errors.append(
            SoftpruneError("tuning.loss of rank or auto for a sentence backbone", "likelihood", "set tuning.loss=rank")
        )
    if recipe.task.match == "generate" and described.family in ("masked", "sentence"):
        errors.append(
            SoftpruneError(
                "task.match of score for a backbone that doesn't generate",
                f"generate with the {described.family} family",
                "set task.match=score",
            )
        )
    if described.positions is not None and described.positions - recipe.virtual_tokens < LEAST_ROOM:
        errors.append(
            SoftpruneError(
                f"a prompt that leaves room in the {described.positions} positions of {described.name}",
                f"{prompt.tokens} prompt tokens",
                f"set prompt.tokens to {max(1, described.positions - LEAST_ROOM)} at most",
            )
        )
    errors += [*file_mistakes(recipe, described.hidden), *mask_mistakes(recipe, described.hidden)]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ManyErrors("recipe for this backbone", errors)


def learning_rate(recipe: Recipe, backbone: Backbone) -> float:
    """The absolute step size; a relative one is a multiple of the input embeddings' root mean square."""
    return recipe.tuning.learning_rate(backbone.embeddings_rms())


def room_for_inputs(recipe: Recipe, backbone: Backbone, examples: Sequence[Example]) -> int:
    """Input tokens at most, by the recipe and what the model's positions leave."""
    writes = recipe.task.match == "generate" or examples[0].is_generation
    generated = answer_length(recipe, examples[0].is_generation) if writes else 0
    return room_for(backbone, examples, recipe.virtual_tokens, recipe.task.max_length, generated)


def room_for(
    backbone: Backbone, examples: Sequence[Example], prompt_tokens: int, max_length: int, generated: int = 0
) -> int:
    """Input tokens at most: `max_length`, or what the model's positions leave beside prompt and answers.

    The answers of sequence-to-sequence and sentence models are read elsewhere and take no room.

    Args:
        backbone: the model.
        examples: whose answers must fit; a text to be written is cut to `generated` tokens.
        prompt_tokens: P.
        max_length: the limit that was asked for.
        generated: tokens that may be generated.
    """
    positions = backbone.info.positions
    if positions is None:
        return max_length
    longest = 0
    if backbone.family in ("causal", "masked"):
        how = backbone.tokenization()
        answers = {answer for example in examples if not example.is_generation for answer in example.answers}
        longest = max([generated, *(len(how.answer_ids(answer)) for answer in answers)])
    return min(max_length, positions - prompt_tokens - longest)


def encoded(recipe: Recipe, backbone: Backbone, examples: Sequence[Example]) -> ScoredSet:
    """Examples with their token ids, cut to what fits."""
    longest = answer_length(recipe, writes=True) if examples[0].is_generation else None
    return ScoredSet(examples, backbone.encode(examples, room_for_inputs(recipe, backbone, examples), longest))


def check_report(recipe: Recipe, backbone: Backbone, examples: Sequence[Example]) -> None:
    """Find now what would otherwise end the run when `report` is read: answers that tie, words without an embedding.

    Inputs are tokenised only if the tokenizer has words beyond the embedding table.

    Raises:
        SoftpruneError: as `Backbone.encode`.
    """
    if len(backbone.tokenizer) > backbone.vocabulary:
        encoded(recipe, backbone, examples)
    else:
        check_distinct(backbone.tokenization(), examples)


def _group(recipe: Recipe, run: Store, rehearsal: Rehearsal) -> int:
    """K: what the recipe asks for, a resumed one too; where it doesn't, what the run was begun with, measured then."""
    if recipe.kind == "adapt":
        return int(run.pin("K", lambda: 1))
    if recipe.search.group is not None:
        with run.editing() as record:
            record.K = recipe.search.group

    def measured() -> int:
        found = measure_group(rehearsal)
        if found.step is not None:
            memory = MemoryRecord(K=found.group, free=found.free, base=found.step.base, each=found.step.each)
            with run.editing() as record:
                record.memory = memory
        return found.group

    return int(run.pin("K", measured))


def scoring_of(recipe: Recipe, task: Task, backbone: Backbone, processes: Processes = ALONE) -> Scoring:
    """How a recipe's prompts are scored, everywhere alike but on `report`; see `Scoring.reporting`."""
    score, writes = recipe.task.score, task.definition.is_generation
    return Scoring(
        loss=backbone.check_loss(recipe.tuning.loss),
        score=task.definition.score if score == "auto" else score,
        rows=recipe.tuning.eval_rows,
        match="score" if writes else recipe.task.match,
        max_answer_length=answer_length(recipe, task.definition.is_generation),
        processes=processes,
    )


def truncation(data: ScoredSet) -> Truncation:
    """How many examples were cut, and how many tokens of them; the same of texts to be written."""
    cut = Truncation(examples=sum(1 for e in data.encoded if e.cut), tokens=sum(e.cut for e in data.encoded))
    if data.is_generation:
        targets = [e.target_cut for e in data.encoded if e.target_cut]
        cut.targets, cut.target_tokens = len(targets), sum(targets)
    return cut


def together(counts: Sequence[Truncation]) -> Truncation:
    """Several sets' truncation as one."""
    fields = counts[0].model_fields_set
    return Truncation(**{field: sum(getattr(count, field) for count in counts) for field in fields})


def _record(workspace: Workspace, sets: Selection, source: str, notes: Sequence[str]) -> None:
    recipe, backbone, definition = workspace.recipe, workspace.backbone, workspace.task.definition
    truncated = together([truncation(workspace.train), truncation(workspace.select)])
    fixed_answers = len({e.answers for e in sets.train}) == 1 and not definition.is_generation
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
        indices={name: list(indices) for name, indices in sets.indices.items()},
        sizes=SetSizes(train=len(sets.train), select=len(sets.select), report=len(sets.report)),
        truncated=truncated,
        source=source,
    )
    selection = SelectionRecord(
        protocol=recipe.selection.protocol,
        description=sets.description,
        objective=recipe.selection.objective,
    )
    settings = SettingsRecord(
        loss=workspace.scoring.loss,
        score=workspace.scoring.score,
        match=workspace.reporting.match,
        lr=workspace.lr,
        max_length=recipe.task.max_length,
    )
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
