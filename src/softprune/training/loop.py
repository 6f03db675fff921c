"""The one training loop. It tunes prompts, retrains rewound tickets and trains whatever else is a Trainable.

Candidates see the same batches in the same order, or each those of its own seed; each keeps its own best checkpoint and
stops on its own. Batches are a pure function of seed and step, so a run resumed from its last evaluation continues bit
by bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, cast

import torch

from softprune.models.batching import training_batches
from softprune.runs.processes import ALONE, Processes
from softprune.training.data_parallel import add_up, agree
from softprune.training.nan_checks import FROM_THE_MODEL, check_finite
from softprune.training.optimizers import keep_candidates, pack, unpack
from softprune.training.step import Feed, backward_apart, backward_shared
from softprune.training.trainable import RowTrainable, Trainable


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and in what portions to train.

    Attributes:
        epochs: passes over the training examples.
        batch_size: examples a step.
        accumulate: backward passes a step is split into.
        evaluate_every: steps between evaluations; None for once an epoch.
        patience: evaluations without improvement after which a candidate stops; None for never.
        best_by: `score` (ties go to the lower loss), `loss`, or `last` for the end of training.
        seed: of the data order, where candidates have none of their own.
        pause_at: steps after which training rests, to be gone on with later; None for none. It is put off to an
            evaluation's step, so that a pause changes nothing.
    """

    epochs: int
    batch_size: int
    accumulate: int = 1
    evaluate_every: int | None = None
    patience: int | None = None
    best_by: str = "score"
    seed: int = 0
    pause_at: int | None = None

    def steps(self, examples: int) -> tuple[int, int, int, int]:
        """Steps an epoch, between evaluations, in all, and at which to pause, for so many training examples."""
        epoch = math.ceil(examples / self.batch_size)
        interval, total = self.evaluate_every or epoch, epoch * self.epochs
        pause = total if self.pause_at is None else math.ceil(self.pause_at / interval) * interval
        return epoch, interval, total, min(total, pause)


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
        best: per candidate, its best evaluation so far and when it was.
        stale: per candidate, evaluations since then.
        curve: all evaluations so far.
        seconds: time spent so far.
        examples: candidate-examples trained on so far.
    """

    step: int
    active: list[int]
    best: list[dict[str, float] | None]
    stale: list[int]
    curve: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    examples: int = 0


@dataclass(frozen=True, slots=True)
class Trained:
    """What training left.

    Attributes:
        tensors: the best checkpoint of every candidate; K is the first axis.
        best: the evaluation at that checkpoint, per candidate.
        curve: all evaluations.
        steps: optimiser steps.
        examples: candidate-examples trained on.
        seconds: wall time, over all interrupted tries.
        state: what a keeper holds at the end; with it a paused training goes on.
    """

    tensors: dict[str, torch.Tensor]
    best: tuple[Evaluation, ...]
    curve: tuple[Point, ...]
    steps: int
    examples: int
    seconds: float
    state: State


State = tuple[dict[str, torch.Tensor], dict[str, Any]]
"""Unfinished training: tensors, and what `Progress` holds."""


class Keeper(Protocol):
    """Where unfinished training is kept between evaluations."""

    def load(self) -> State | None:
        """The last state, if there is one."""

    def save(self, tensors: dict[str, torch.Tensor], progress: dict[str, Any]) -> None:
        """Replace the state, atomically."""

    def curve(self, points: Sequence[Point]) -> None:
        """Tell of new evaluations."""


class Watch(Protocol):
    """Who is told how training goes (a live display, a tracker)."""

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
    """Train to the end of the schedule, or until every candidate has stopped.

    Args:
        trainable: K candidates.
        optimiser: over its parameters.
        feed: the training examples.
        evaluate: metric and loss on `select` of the candidates still in training, in order.
        schedule: how long.
        names: of the candidates, for curves.
        title: what is being trained, for displays.
        keeper: where unfinished work is kept.
        watch: who is told.
        processes: which train together, each on its part of every batch.
        seeds: of each candidate's data order, in place of the schedule's; different ones need a `RowTrainable`.

    Raises:
        SoftpruneError: when a loss stops being finite.
    """
    steps_an_epoch, interval, total, stop = schedule.steps(len(feed.lengths))
    progress, best = _begin(trainable, optimiser, keeper)
    watch.begin(title, total, progress.step)
    begun = time.perf_counter() - progress.seconds
    losses: list[torch.Tensor] = []
    own = seeds or [schedule.seed] * len(names)
    orders: dict[int, list[tuple[int, ...]]] = {}
    try:
        while progress.step < stop and progress.active:
            epoch, place = divmod(progress.step, steps_an_epoch)
            seeds_K = [own[candidate] for candidate in progress.active]
            if place == 0 or not orders:
                orders = {s: training_batches(feed.lengths, schedule.batch_size, s, epoch) for s in set(seeds_K)}
            batches = [orders[s][place] for s in seeds_K]
            shared = len(set(seeds_K)) == 1
            loss_K = _step(trainable, optimiser, feed, batches, shared, schedule.accumulate, processes)
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
            found = evaluate()
            # The last step may have ruined a prompt whose training losses were all finite.
            _check_finite([evaluation.loss for evaluation in found], progress, total, names, "select", optimiser)
            progress.seconds = time.perf_counter() - begun
            now = (progress.step - 1) // steps_an_epoch + 1
            points = _record(trainable, progress, best, found, mean_K, names, now, schedule)
            _leave(trainable, optimiser, progress, schedule)
            # Curve first: a kill in between leaves lines that the next start trims, never a gap.
            keeper.curve(points)
            keeper.save(_state(trainable, optimiser, best), asdict(progress))
            watch.evaluated(points)
    finally:
        watch.end()  # a display that is left open hides the cursor
    return Trained(
        tensors=best,
        best=tuple(Evaluation(b["score"], b["loss"]) for b in progress.best if b is not None),
        curve=tuple(Point(**point) for point in progress.curve),
        steps=progress.step,
        examples=progress.examples,
        seconds=progress.seconds,
        state=(_state(trainable, optimiser, best), asdict(progress)),
    )


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


def _step(
    trainable: Trainable,
    optimiser: torch.optim.Optimizer,
    feed: Feed,
    batches: Sequence[Sequence[int]],
    shared: bool,
    accumulate: int,
    processes: Processes,
) -> torch.Tensor:
    """One optimiser step; the mean loss of each candidate on its batch, `[K]`.

    Candidates share no parameter, so the gradient of the sum of their losses is each one's own. Processes share the
    batch: their gradients add up to that of the whole of it, before the optimiser clips anything.
    """
    optimiser.zero_grad(set_to_none=True)
    if shared:
        total_K = backward_shared(trainable, feed, batches[0], accumulate, processes)
    else:
        total_K = backward_apart(cast(RowTrainable, trainable), feed, batches, accumulate, processes)
    if processes.size > 1:
        total_K = add_up(trainable, total_K, processes)
    optimiser.step()
    return total_K


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


def _record(
    trainable: Trainable,
    progress: Progress,
    best: dict[str, torch.Tensor],
    evaluations: Sequence[Evaluation],
    mean_K: Sequence[float],
    names: Sequence[str],
    epoch: int,
    schedule: Schedule,
) -> list[Point]:
    """Put the evaluations on the curves and keep whatever is a candidate's best so far."""
    now = trainable.save()
    points = []
    for at, (place, found) in enumerate(zip(progress.active, evaluations, strict=True)):
        known = progress.best[place]
        if known is None or _better(found, Evaluation(known["score"], known["loss"]), schedule.best_by):
            progress.best[place] = {"score": found.score, "loss": found.loss, "step": progress.step}
            progress.stale[place] = 0
            for name, value in now.items():
                best[name][place] = value[at]
        else:
            progress.stale[place] += 1
        points.append(Point(names[place], epoch, progress.step, mean_K[at], found.loss, found.score, progress.seconds))
    progress.curve += [asdict(point) for point in points]
    return points


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


def some_of(state: State, chosen: Sequence[int]) -> State:
    """The unfinished training of some of its candidates, as if they had trained on their own from the start.

    Args:
        state: of all K candidates.
        chosen: places among the K, ascending.
    """
    tensors, progress = state
    running = [at for at, place in enumerate(progress["active"]) if place in chosen]
    kept = {
        name: tensor if not tensor.dim() else tensor[list(chosen if name.startswith("best.") else running)]
        for name, tensor in tensors.items()
    }
    part = progress | {
        "active": [list(chosen).index(progress["active"][at]) for at in running],
        "best": [progress["best"][place] for place in chosen],
        "stale": [progress["stale"][place] for place in chosen],
    }
    return kept, part


def _state(
    trainable: Trainable, optimiser: torch.optim.Optimizer, best: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    return {
        **{f"now.{name}": value for name, value in trainable.save().items()},
        **{f"best.{name}": value for name, value in best.items()},
        **pack(optimiser),
    }
