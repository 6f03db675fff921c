"""Training as a piece of work of a run: prompt tuning (paper, section 4.1) and the retraining of masked prompts.

A piece of work is done once: its result is stored under its name, its unfinished state at every evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from softprune.config import DEFAULT_RELATIVE_LR, Recipe
from softprune.config.forms import FORMS, PLAIN
from softprune.prompts.forms import Setup, start_form
from softprune.prompts.forms.base import FORM_FILE, Form
from softprune.prompts.initialization import Initial, initial_prompt
from softprune.prompts.prompt_io import load_mask
from softprune.prompts.soft_prompts import full_mask, masked_state
from softprune.runs.record_parts import PromptRecord, SettingsRecord, SweepRow, TrainingCost, sweep_work
from softprune.runs.run_folder import RunFolder, Saved
from softprune.training.distribute import finish_on_workers
from softprune.training.loop import Evaluation, Keeper, NotFinite, Point, Schedule, State, Trained, train
from softprune.training.optimizers import form_adamw, prompt_optimiser
from softprune.training.scoring import score_prompts
from softprune.training.session import Workspace
from softprune.training.teaching import Teacher
from softprune.training.trainable import Feed, FormTrainable, PromptTrainable
from softprune.types import PromptState

# Where a recipe names no epochs: enough steps for a small set to be learned, and few enough evaluations of it.
STEPS, EPOCHS, EVALUATIONS = 100, 5, 10


@dataclass(frozen=True, slots=True)
class Group:
    """Prompts that train side by side, as one piece of work."""

    work: str  # its name, unique in the run
    names: tuple[str, ...]  # of the K prompts, unique in the run
    starts: tuple[PromptState, ...]  # under `drop` with equally many surviving tokens
    phase: str  # its name in metrics.jsonl
    title: str  # for displays
    epochs: int | None = None  # in place of the recipe's
    seeds: tuple[int, ...] | None = None  # of each prompt's data order, in place of the recipe's
    teacher: PromptState | None = None  # whose answers they learn, on rows without labels too
    to_end: bool = False  # whether the end of training counts, in place of its best checkpoint
    form: Form | None = None  # what makes the starting values, and is trained in their place


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained prompt: its best checkpoint on `select`, and the wall seconds of its group over the group's size."""

    state: PromptState
    evaluation: Evaluation
    seconds: float


class FolderKeeper(Keeper):
    """Keeps a training in the run folder: its end, its unfinished state, its curve in metrics.jsonl and its cost.

    `phase` and `names` are those of the curve, and of the candidates on it.
    """

    def __init__(self, run: RunFolder, work: str, phase: str, names: Sequence[str]) -> None:
        self._run, self._work, self._phase, self._names = run, work, phase, list(names)

    def finished(self) -> Trained | None:
        """What the run holds; its cost is recorded again, since a kill may have come before that."""
        if not self._run.has(self._work):
            return None
        return self._store(Saved({}, {}))  # empty: what the run holds is read instead

    def load(self) -> State | None:
        """The last state; curve lines that came after it are dropped, since they will be made again."""
        saved = self._run.load_checkpoint(self._work)
        self._run.trim_metrics(self._phase, self._names, saved.meta["step"] if saved else 0)
        return (saved.tensors, saved.meta) if saved else None

    def save(self, tensors: dict[str, torch.Tensor], progress: dict[str, Any]) -> None:
        """Replace the state."""
        on_cpu = {name: tensor.cpu() for name, tensor in tensors.items()}
        self._run.save_checkpoint(self._work, Saved(on_cpu, progress))

    def curve(self, points: Sequence[Point]) -> None:
        """Append to metrics.jsonl."""
        self._run.append_metrics([{"phase": self._phase, **asdict(point)} for point in points])

    def finish(self, trained: Trained) -> Trained:
        """Store it; the state of the unfinished training goes."""
        meta = {"steps": trained.steps, "examples": trained.examples, "seconds": trained.seconds}
        on_cpu = {name: tensor.cpu() for name, tensor in trained.tensors.items()}
        return self._store(Saved(on_cpu, meta | {"best": [asdict(each) for each in trained.best]}))

    def _store(self, saved: Saved) -> Trained:
        """What the run holds under this name; `saved`, where it holds nothing yet."""
        stored = self._run.once(self._work, lambda: saved)
        costs = {name: stored.meta[name] for name in ("steps", "examples", "seconds")}
        with self._run.editing() as record:
            record.cost.training[self._work] = TrainingCost(**costs)
        best = tuple(Evaluation(**each) for each in stored.meta["best"])
        return Trained(stored.tensors, best, **costs)


def schedule(recipe: Recipe, examples: int, epochs: int | None = None) -> Schedule:
    """The recipe's schedule for so many training examples, with other epochs where asked."""
    settings = recipe.tuning
    steps_an_epoch = math.ceil(examples / settings.batch_size)
    passes = epochs or settings.epochs or max(EPOCHS, math.ceil(STEPS / steps_an_epoch))
    # An epoch or more between evaluations, so that a long training of few examples isn't mostly evaluated.
    interval = max(steps_an_epoch, math.ceil(steps_an_epoch * passes / EVALUATIONS))
    return Schedule(
        epochs=passes,
        batch_size=settings.batch_size,
        accumulate=settings.accumulate,
        evaluate_every=settings.evaluate_every or interval,
        patience=settings.patience,
        best_by=settings.best_by,
        seed=recipe.seed,
    )


# --- the rate ---


def sweep(workspace: Workspace) -> Workspace:
    """With the learning rate that does best on `select` among those of `tuning.sweep`; as it was without one."""
    multiples = workspace.recipe.tuning.sweep
    if multiples is None:
        return workspace
    factor = form_rate(workspace.recipe)
    with workspace.run.phase("sweep"):
        start, form = _start(workspace)

        def train_at(lr: float, work: str) -> Evaluation:
            title = f"prompt tuning, learning rate {lr:.3g}"
            group = Group(work, (sweep_candidate(work),), (start,), "sweep", title, form=form)
            return fit(replace(workspace, lr=lr / factor), group)[0].evaluation

        best = best_rate(workspace.run, workspace.lr * factor, multiples, train_at)
        return replace(workspace, lr=best / factor)


def best_rate(
    run: RunFolder, lr: float, multiples: Sequence[float], train: Callable[[float, str], Evaluation]
) -> float:
    """Train with every multiple of a learning rate and choose: the best score on `select`, then the lower loss.

    The run keeps `sweep`, by multiple the rate, its score and loss, and whether it was `chosen`; and `settings.lr`. A
    rate at which losses stop being numbers has no score, and can't be chosen. Ties go to the multiple named first.
    `train` trains with a rate, as a piece of work of that name, and evaluates the result on `select`. NotFinite, where
    no rate gives numbers.
    """
    evaluations: dict[float, Evaluation] = {}
    lost: list[NotFinite] = []
    rows: dict[str, SweepRow] = {}
    for multiple in multiples:
        row = rows[f"{multiple:g}"] = SweepRow(lr=lr * multiple, score=None, loss=None, chosen=False)
        try:
            each = evaluations[multiple] = train(lr * multiple, sweep_work(multiple))
            row.score, row.loss = each.score, each.loss
        except NotFinite as error:
            lost.append(error)
    if not evaluations:
        raise lost[0]
    best = max(evaluations, key=lambda multiple: (evaluations[multiple].score, -evaluations[multiple].loss))
    rows[f"{best:g}"].chosen = True
    with run.editing() as record:
        record.sweep = rows
        record.settings = record.settings or SettingsRecord()
        record.settings.lr = lr * best
    return lr * best


def sweep_candidate(work: str) -> str:
    """What such a training is called in metrics.jsonl."""
    return work.replace("sweep-", "rate-x", 1)


def chosen_work(run: RunFolder) -> str | None:
    """The piece of work that trained with the chosen rate; None where nothing was swept."""
    rows = run.record.sweep
    return next((sweep_work(float(multiple)) for multiple, row in rows.items() if row.chosen), None)


# --- trainings ---


def tune(workspace: Workspace) -> Fitted:
    """Prompt tuning: one unpruned prompt from its initial values. What the sweep chose is trained already."""
    work = chosen_work(workspace.run) or "tune"
    with workspace.run.phase("tune"):
        start, form = _start(workspace)
        tuned = fit(workspace, Group(work, ("tuned",), (start,), "tune", "prompt tuning", form=form))[0]
        if form is not None:
            _record_form(workspace, form, work)
    return tuned


def form_rate(recipe: Recipe) -> float:
    """The learning rate of the recipe's form over that of plain prompts: 1 where the recipe names one for all."""
    if recipe.prompt.form == PLAIN or "lr" in recipe.tuning.model_fields_set:
        return 1.0
    return FORMS[recipe.prompt.form].lr / DEFAULT_RELATIVE_LR


def _start(workspace: Workspace) -> tuple[PromptState, Form | None]:
    """The prompt's first values, which the run notes, and the form that makes them where one is trained."""
    recipe, settings, form = workspace.recipe, workspace.recipe.prompt, None
    if settings.form == PLAIN:
        first = initial_prompt(recipe, workspace.backbone, workspace.task)
    else:
        scale = workspace.backbone.embeddings_rms()
        setup = Setup(recipe, workspace.backbone, workspace.task, workspace.train.examples, (recipe.seed,), scale)
        started = start_form(setup)
        form = started.form
        first = Initial(form.produce()[0].detach().cpu(), started.words, started.notes)
    # Pieces matter to pruning only; a prompt that is only tuned needs no number that divides H.
    mask = full_mask(settings.tokens, settings.pieces if recipe.kind == "xprompt" else 1)
    if settings.mask is not None:
        mask = load_mask(Path(settings.mask))
    start = masked_state(first.vectors_PH, mask)
    tokens, hidden = start.vectors_PH.shape
    init = FORMS[settings.form].start or settings.init
    with workspace.run.editing() as record:
        words = list(first.words)
        record.prompt = PromptRecord(P=tokens, H=hidden, S=settings.pieces, init=init, words=words)
        record.add_notes(*first.notes)
    workspace.run.write_tensors("prompts/initial.safetensors", {"vectors_PH": start.vectors_PH}, {})
    return start, form


def _record_form(workspace: Workspace, form: Form, work: str) -> None:
    """Note what was trained in place of the prompt's vectors, and keep its numbers in `FORM_FILE`."""
    rate = workspace.lr * form_rate(workspace.recipe)
    with workspace.run.editing() as record:
        assert record.prompt is not None  # both were written before anything was trained
        assert record.settings is not None
        record.prompt.form, record.prompt.trained, record.prompt.lr = workspace.recipe.prompt.form, form.numbers, rate
        if workspace.recipe.kind == "tune":  # else this is the rate of all that is trained afterwards
            record.settings.lr = rate
    trained = workspace.run.once(work, lambda: Saved({}, {})).tensors
    kept = {name: trained[name][0] for name in form.trained}
    kept |= {name: form.fixed[name][0].cpu() for name in form.stored}
    kept = {name.replace("_K", "_"): values for name, values in kept.items()}  # without their K
    workspace.run.write_tensors(FORM_FILE, kept, {"form": workspace.recipe.prompt.form})


def fit_groups(workspace: Workspace, groups: Sequence[Group], phase: str) -> dict[str, Fitted]:
    """The prompts of groups that don't depend on each other, by name, trained wherever the run's executor says."""
    finish_on_workers(workspace, fit, groups, phase)
    with workspace.run.phase(phase):
        fitted: dict[str, Fitted] = {}
        for group in groups:
            fitted.update(zip(group.names, fit(workspace, group), strict=True))
    return fitted


def fit(workspace: Workspace, group: Group) -> list[Fitted]:
    """Train a group's prompts side by side from their starting values; the best checkpoint of each."""
    run, backbone, data = workspace.run, workspace.backbone, workspace.train
    if group.teacher is not None:
        data = workspace.lessons
    plan = schedule(workspace.recipe, len(data), group.epochs)
    if group.to_end:
        plan = replace(plan, patience=None, best_by="last")
    trainable, optimiser = _prepare(workspace, group)
    tokens = int(trainable.prompts().shape[1])
    trained = train(
        trainable,
        optimiser,
        Feed([tokens + length for length in data.lengths], lambda indices: data.batch(backbone, indices)),
        lambda: evaluate(workspace, trainable.prompts().detach()),
        plan,
        names=group.names,
        title=group.title,
        keeper=FolderKeeper(run, group.work, group.phase, group.names),
        watch=workspace.watch,
        processes=run.processes,
        seeds=group.seeds,
    )
    ends = zip(trained.tensors["vectors_KPH"], group.starts, trained.best, strict=True)
    seconds = trained.seconds / len(group.names)
    return [Fitted(PromptState(vectors_PH, start.mask), best, seconds) for vectors_PH, start, best in ends]


def _prepare(workspace: Workspace, group: Group) -> tuple[PromptTrainable | FormTrainable, torch.optim.Optimizer]:
    """What a group trains: its prompts' vectors, or the numbers of the form that makes them; and the optimiser."""
    recipe, backbone, scoring = workspace.recipe, workspace.backbone, workspace.scoring
    if group.form is not None:
        made = FormTrainable(backbone, deepcopy(group.form), loss=scoring.loss, score=scoring.score)
        rms, rate = backbone.embeddings_rms(), workspace.lr * form_rate(recipe)
        decay = recipe.tuning.weight_decay
        return made, form_adamw(made.form.trained, made.form.sizes, lr=rate, rms=rms, weight_decay=decay)
    teacher = None
    if group.teacher is not None:
        teacher = Teacher(workspace.prompt(group.teacher), recipe.pruning.teach_weight)
    trainable = PromptTrainable(
        backbone,
        torch.stack([start.vectors_PH for start in group.starts]),
        [start.mask for start in group.starts],
        removal=recipe.pruning.removal,
        loss=scoring.loss,
        score=scoring.score,
        teacher=teacher,
    )
    survivors_KPH = trainable.reading.elements_KPH
    return trainable, prompt_optimiser(recipe.tuning, trainable.vectors_KPH, survivors_KPH, workspace.lr)


def evaluate(workspace: Workspace, prompts_KQH: torch.Tensor) -> list[Evaluation]:
    """What choices go by, and mean loss, of K prompts on `select`."""
    scores_K = score_prompts(workspace.backbone, prompts_KQH, workspace.select, workspace.scoring)
    return [Evaluation(workspace.task.choice.value(scores), scores.loss) for scores in scores_K]
