"""Training as a piece of work of a run: prompt tuning (paper, section 4.1) and the retraining of masked prompts.

A piece of work is done once: its result is stored under its name, its unfinished state at every evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from softprune.config import Recipe
from softprune.prompts.initialization import initial_prompt
from softprune.prompts.prompt_io import load_mask
from softprune.prompts.soft_prompts import full_mask, masked_state
from softprune.runs.record_parts import PromptRecord, SettingsRecord, SweepRow, TrainingCost
from softprune.runs.run_folder import RunFolder, Saved
from softprune.training.distribute import finish_on_workers
from softprune.training.loop import Evaluation, Keeper, NotFinite, Point, Schedule, State, Trained, train
from softprune.training.optimizers import prompt_optimiser
from softprune.training.scoring import score_prompts
from softprune.training.session import Workspace
from softprune.training.trainable import Feed, PromptTrainable
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
    with workspace.run.phase("sweep"):
        start = _start(workspace)

        def train_at(lr: float, work: str) -> Evaluation:
            group = Group(work, (sweep_candidate(work),), (start,), "sweep", f"prompt tuning, learning rate {lr:.3g}")
            return fit(replace(workspace, lr=lr), group)[0].evaluation

        return replace(workspace, lr=best_rate(workspace.run, workspace.lr, multiples, train_at))


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


def sweep_work(multiple: float) -> str:
    """The name of the piece of work that trains with a multiple."""
    return f"sweep-{multiple:g}"


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
        return fit(workspace, Group(work, ("tuned",), (_start(workspace),), "tune", "prompt tuning"))[0]


def _start(workspace: Workspace) -> PromptState:
    """The prompt's first values, which the run notes."""
    recipe, settings = workspace.recipe, workspace.recipe.prompt
    first = initial_prompt(recipe, workspace.backbone, workspace.task)
    # Pieces matter to pruning only; a prompt that is only tuned needs no number that divides H.
    mask = full_mask(settings.tokens, settings.pieces if recipe.kind == "xprompt" else 1)
    if settings.mask is not None:
        mask = load_mask(Path(settings.mask))
    start = masked_state(first.vectors_PH, mask)
    tokens, hidden = start.vectors_PH.shape
    with workspace.run.editing() as record:
        words = list(first.words)
        record.prompt = PromptRecord(P=tokens, H=hidden, S=settings.pieces, init=settings.init, words=words)
        record.add_notes(*first.notes)
    workspace.run.write_tensors("prompts/initial.safetensors", {"vectors_PH": start.vectors_PH}, {})
    return start


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
    run, backbone, data, scoring = workspace.run, workspace.backbone, workspace.train, workspace.scoring
    trainable = PromptTrainable(
        backbone,
        torch.stack([start.vectors_PH for start in group.starts]),
        [start.mask for start in group.starts],
        removal=workspace.recipe.pruning.removal,
        loss=scoring.loss,
        score=scoring.score,
    )
    tokens = int(trainable.prompts().shape[1])
    trained = train(
        trainable,
        prompt_optimiser(workspace.recipe.tuning, trainable.vectors_KPH, trainable.reading.elements_KPH, workspace.lr),
        Feed([tokens + length for length in data.lengths], lambda indices: data.batch(backbone, indices)),
        lambda: evaluate(workspace, trainable.prompts().detach()),
        schedule(workspace.recipe, len(data), group.epochs),
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


def evaluate(workspace: Workspace, prompts_KQH: torch.Tensor) -> list[Evaluation]:
    """What choices go by, and mean loss, of K prompts on `select`."""
    scores_K = score_prompts(workspace.backbone, prompts_KQH, workspace.select, workspace.scoring)
    return [Evaluation(workspace.task.choice.value(scores), scores.loss) for scores in scores_K]
