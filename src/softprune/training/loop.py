"""The one training loop. It tunes prompts, retrains rewound tickets and trains whatever else is a Trainable.

Candidates see the same batches in the same order, or each those of its own seed; each keeps its own best checkpoint and
stops on its own. Batches and step sizes are pure functions of seed and step, so a run resumed from its last evaluation
continues bit by bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, cast

import torch
from torch import nn

from softprune.models.batching import training_batches
from softprune.ratios import exact
from softprune.runs.processes import ALONE, Processes
from softprune.training.data_parallel import add_up, agree
from softprune.training.nan_checks import FROM_THE_MODEL, check_finite
from softprune.training.optimizers import keep_candidates, pack, unpack
from softprune.training.step import Feed, backward_apart, backward_shared
from softprune.training.trainable import RowTrainable, Trainable


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long, in what portions and at which step sizes to train.

    Attributes:
        epochs: passes over the training examples.
        batch_size: examples a step.
        accumulate: backward passes a step is split into.
        evaluate_every: steps between evaluations; None for once an epoch.
        patience: evaluations without improvement after which a candidate stops; None for never.
        best_by: `score` (ties go to the lower loss), `loss`, or `last` for the end of training.
        seed: of the data order, where candidates have none of their own.
        clip_norm: largest norm of a step's gradient; None for no limit, as for prompts, whose optimiser limits the
            update of each candidate by itself.
        warmup: share of the steps over which step sizes rise to the optimiser's.
        linear_decay: whether they fall to 0 afterwards.
    """

    epochs: int
    batch_size: int
    accumulate: int = 1
    evaluate_every: int | None = None
    patience: int | None = None
    best_by: str = "score"
    seed: int = 0
    clip_norm: float | None = None
    warmup: float = 0.0
    linear_decay: bool = False

    def steps(self, examples: int) -> tuple[int, int, int]:
        """Steps an epoch, between evaluations, and in all, for so many training examples."""
        epoch = math.ceil(examples / self.batch_size)
        return epoch, self.evaluate_every or epoch, epoch * self.epochs

    def rate_at(self, step: int, total: int) -> float:
        """The step size of step number `step` (from 0) of `total`, as a share of the optimiser's."""
        rising = max(1, round(exact(self.warmup) * total))
        left = (total - step) / max(1, total - rising) if self.linear_decay else 1.0
        return max(0.0, min((step + 1) / rising, left))


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `select` says of one candidate: its metric (higher is better) and its loss."""

    score: float
    loss: float


@dataclass(frozen=True, slots=True)
class Point:
    """One evaluation on a candidate's training curve; a line of metrics.jsonl."""

    candidate: str
    epoch: int
    step: int
    train_loss: float
    select_loss: float
    select: float
    seconds: float


@dataclass(slots=True)
class Progress:
    """Everything but tensors that the loop must remember to go on; JSON-able.

    Attributes:
        step: optimiser steps done.
        active: candidates still training, by their original place.
        best: per candidate, score and loss of its best evaluation so far.
        stale: per candidate, evaluations since then.
        seconds: time spent so far.
        examples: candidate-examples trained on so far.
    """

    step: int
    active: list[int]
    best: list[dict[str, float] | None]
    stale: list[int]
    seconds: float = 0.0
    examples: int = 0


@dataclass(frozen=True, slots=True)
class Trained:
    """What training left.

    Attributes:
        tensors: the best checkpoint of every candidate; K is the first axis.
        best: the evaluation at that checkpoint, per candidate.
        steps: optimiser steps.
        examples: candidate-examples trained on.
        seconds: wall time, over all interrupted attempts.
    """

    tensors: dict[str, torch.Tensor]
    best: tuple[Evaluation, ...]
    steps: int
    examples: int
    seconds: float


State = tuple[dict[str, torch.Tensor], dict[str, Any]]
"""Unfinished training: tensors, and what `Progress` holds."""


class Keeper:
    """Where a training is kept, so that it survives a kill. This one keeps nothing; see `jobs.FolderKeeper`."""

    def finished(self) -> Trained | None:
        """What an earlier attempt trained to the end, if one did."""
        return None

    def load(self) -> State | None:
        """The last state of an unfinished attempt, if there is one."""
        return None

    def save(self, tensors: dict[str, torch.Tensor], progress: dict[str, Any]) -> None:
        """Replace the state, atomically."""

    def curve(self, points: Sequence[Point]) -> None:
        """Write new evaluations down."""

    def finish(self, trained: Trained) -> Trained:
        """Keep what training left, and give it back as later attempts will read it."""
        return trained


class Watch(Protocol):
    """What shows how training goes (a live display, a tracker)."""

    def begin(self, title: str, steps: int, done: int) -> None:
        """Training of `title` starts at step `done` of `steps`."""

    def step(self, step: int, loss: float, examples: int) -> None:
        """A step was made over `examples` candidate-examples."""

    def evaluated(self, points: Sequence[Point]) -> None:
        """An evaluation was made."""

    def end(self) -> None:
        """This training is over."""


def train(
    trainable: Trainable,
    optimiser: torch.optim.Optimizer,
    feed: Feed,
    evaluate: Callable[[], list[Evaluation]],
    schedule: Schedule,
    *,
    names: Sequence[str],
    title: str,
    keeper: Keeper,
    watch: Watch,
    processes: Processes = ALONE,
    seeds: Sequence[int] | None = None,
) -> Trained:
    """Train to the end of the schedule, or until every candidate has stopped; once, however often it is killed.

    Args:
        trainable: K candidates. They share no parameter, so the gradient of the sum of their losses is each one's own.
        optimiser: over its parameters, at their full step sizes. The schedule's `clip_norm` leaves out the groups of
            parameters that say `clip: False`.
        feed: the training examples.
        evaluate: metric and loss on `select` of the candidates still in training, in order.
        schedule: how long.
        names: of the candidates, for curves.
        title: what is being trained, for displays.
        keeper: where it is kept.
        watch: what shows it.
        processes: which train together, each on its part of every batch.
        seeds: of each candidate's data order, in place of the schedule's; different ones need a `RowTrainable`.

    Raises:
        NotFinite: when a loss stops being finite.
    """
    finished = keeper.finished()
    if finished is not None:
        return finished
    steps_an_epoch, interval, total = schedule.steps(len(feed.lengths))
    progress, best = _begin(trainable, optimiser, keeper)
    watch.begin(title, total, progress.step)
    begun = time.perf_counter() - progress.seconds
    full_rates = [group["lr"] for group in optimiser.param_groups]
    own_seeds = seeds or [schedule.seed] * len(names)
    orders: dict[int, list[tuple[int, ...]]] = {}
    losses: list[torch.Tensor] = []
    try:
        while progress.step < total and progress.active:
            epoch, place = divmod(progress.step, steps_an_epoch)
            seeds_K = [own_seeds[candidate] for candidate in progress.active]
            if place == 0 or not orders:
                orders = {s: training_batches(feed.lengths, schedule.batch_size, s, epoch) for s in set(seeds_K)}
            batches = [orders[s][place] for s in seeds_K]

            optimiser.zero_grad(set_to_none=True)
            if len(set(seeds_K)) == 1:
                loss_K = backward_shared(trainable, feed, batches[0], schedule.accumulate, processes)
            else:
                rows = cast(RowTrainable, trainable)
                loss_K = backward_apart(rows, feed, batches, schedule.accumulate, processes)
            if processes.size > 1:  # before clipping: the norm is that of the whole batch's gradient
                loss_K = add_up(trainable, loss_K, processes)
            if schedule.clip_norm is not None:
                nn.utils.clip_grad_norm_(_clipped(optimiser), schedule.clip_norm)
            for group, rate in zip(optimiser.param_groups, full_rates, strict=True):
                group["lr"] = rate * schedule.rate_at(progress.step, total)
            optimiser.step()

            examples = sum(map(len, batches))
            progress.step += 1
            progress.examples += examples
            losses.append(loss_K)
            _check_finite(loss_K.tolist(), progress, total, names, "training", optimiser)
            watch.step(progress.step, float(loss_K.mean()), examples)
            if progress.step % interval and progress.step != total:
                continue

            mean_K = torch.stack(losses).mean(0).tolist()
            losses = []
            if processes.size > 1:
                agree(trainable, optimiser, processes)
            evaluations = evaluate()
            # The last step may have ruined a prompt whose training losses were all finite.
            _check_finite([e.loss for e in evaluations], progress, total, names, "select", optimiser)
            progress.seconds = time.perf_counter() - begun
            points = []
            for name, found, loss in zip([names[at] for at in progress.active], evaluations, mean_K, strict=True):
                where = ((progress.step - 1) // steps_an_epoch + 1, progress.step)
                points.append(Point(name, *where, loss, found.loss, found.score, progress.seconds))
            _keep_best(trainable, progress, best, evaluations, schedule.best_by)
            _leave(trainable, optimiser, progress, schedule)
            # Curve first: a kill in between leaves lines that the next start trims, never a gap.
            keeper.curve(points)
            keeper.save(_state(trainable, optimiser, best), asdict(progress))
            watch.evaluated(points)
    finally:
        watch.end()  # a display that is left open hides the cursor
    evaluated = tuple(Evaluation(**found) for found in progress.best if found is not None)
    return keeper.finish(Trained(best, evaluated, progress.step, progress.examples, progress.seconds))


def _clipped(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    groups = [group["params"] for group in optimiser.param_groups if group.get("clip", True)]
    return [parameter for group in groups for parameter in group]


def _begin(
    trainable: Trainable, optimiser: torch.optim.Optimizer, keeper: Keeper
) -> tuple[Progress, dict[str, torch.Tensor]]:
    """A fresh start, or the state in which an earlier try left off."""
    count = trainable.candidates
    kept = keeper.load()
    if kept is None:
        return Progress(0, list(range(count)), [None] * count, [0] * count), trainable.save()
    tensors, progress = kept
    state = Progress(**progress)
    if len(state.active) != count:
        trainable.keep(state.active)
        keep_candidates(optimiser, state.active)
    trainable.load({k.removeprefix("now."): v for k, v in tensors.items() if k.startswith("now.")})
    unpack(optimiser, tensors)
    return state, {k.removeprefix("best."): v for k, v in tensors.items() if k.startswith("best.")}


def _check_finite(
    losses_K: Sequence[float],
    progress: Progress,
    total: int,
    names: Sequence[str],
    which: str,
    optimiser: torch.optim.Optimizer,
) -> None:
    do = f"lower tuning.lr (it is {optimiser.param_groups[0]['lr']:g}) or take --dtype float32, in another --out: "
    do += "this run would fail again"
    # The first step's loss is that of the prompt as it came, so no learning rate can be at fault.
    do = FROM_THE_MODEL if which == "training" and progress.step == 1 else do
    active = [names[place] for place in progress.active]
    check_finite(losses_K, active, f"{which} loss", f"at step {progress.step} of {total}", do)


def _keep_best(
    trainable: Trainable,
    progress: Progress,
    best: dict[str, torch.Tensor],
    evaluations: Sequence[Evaluation],
    best_by: str,
) -> None:
    """Copy into `best` whatever is a candidate's best so far."""
    now = trainable.save()
    for at, (place, found) in enumerate(zip(progress.active, evaluations, strict=True)):
        known = progress.best[place]
        if known is not None and not _better(found, Evaluation(**known), best_by):
            progress.stale[place] += 1
            continue
        progress.best[place], progress.stale[place] = asdict(found), 0
        for name, value in now.items():
            best[name][place] = value[at]


def _better(new: Evaluation, old: Evaluation, best_by: str) -> bool:
    if best_by != "score":
        return best_by == "last" or new.loss < old.loss
    return (new.score, -new.loss) > (old.score, -old.loss)


def _leave(trainable: Trainable, optimiser: torch.optim.Optimizer, progress: Progress, schedule: Schedule) -> None:
    """Let candidates go whose patience is used up; the group gets cheaper."""
    if schedule.patience is None:
        return
    staying = [at for at, place in enumerate(progress.active) if progress.stale[place] < schedule.patience]
    if len(staying) == len(progress.active):
        return
    progress.active = [progress.active[at] for at in staying]
    if staying:
        trainable.keep(staying)
        keep_candidates(optimiser, staying)


def _state(
    trainable: Trainable, optimiser: torch.optim.Optimizer, best: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    return {
        **{f"now.{name}": value for name, value in trainable.save().items()},
        **{f"best.{name}": value for name, value in best.items()},
        **pack(optimiser),
    }
