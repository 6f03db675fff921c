"""The one training loop. It tunes prompts, retrains rewound tickets and trains whatever else is a Trainable.

Candidates see the same batches in the same order, or each those of its own seed; each keeps its own best checkpoint and
stops on its own. Batches and step sizes are pure functions of seed and step, so a run resumed from its last evaluation
continues bit by bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from softprune.errors import SoftpruneError
from softprune.models.batching import training_batches
from softprune.ratios import exact
from softprune.runs.processes import ALONE, Processes
from softprune.training.optimizers import keep_candidates, pack, unpack
from softprune.training.trainable import Feed, Trainable, agree, backward

FROM_THE_MODEL = "the model gives no numbers in this format: take --dtype float32 or sound weights, and another --out"


class NotFinite(SoftpruneError):
    """A training that went out of bounds, which another learning rate may not."""


def check_finite(values: Sequence[float], names: Sequence[str], what: str, when: str, do: str) -> None:
    """NotFinite for the first of some losses, one a name, that is no number: before anything is chosen by them.

    In a message, `what` is such as "training loss", `when` such as "at step 3 of 100", and `do` what may fix it.
    """
    for name, value in zip(names, values, strict=True):
        if not math.isfinite(value):
            raise NotFinite(f"a finite {what}", f"{value} for {name} {when}", do)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long, in what portions and at which step sizes to train."""

    epochs: int
    batch_size: int
    accumulate: int = 1  # backward passes a step is split into
    evaluate_every: int | None = None  # steps; None for once an epoch
    patience: int | None = None  # evaluations without improvement after which a candidate stops
    best_by: str = "score"  # ties go to the lower loss; or `loss`, or `last` for the end of training
    seed: int = 0  # of the data order, where candidates have none of their own
    # Largest norm of a step's gradient. None for prompts: their optimiser limits each candidate's update by itself.
    clip_norm: float | None = None
    warmup: float = 0.0  # share of the steps over which step sizes rise to the optimiser's
    linear_decay: bool = False  # whether they fall to 0 afterwards

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
    """A candidate's metric on `select` (higher is better) and its loss."""

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
    """Everything but tensors that the loop must remember to go on; JSON-able."""

    step: int  # optimiser steps done
    active: list[int]  # candidates still training, by their original place
    best: list[dict[str, float] | None]  # per candidate, score and loss of its best evaluation so far
    stale: list[int]  # per candidate, evaluations since then
    seconds: float = 0.0
    examples: int = 0  # candidate-examples trained on so far


@dataclass(frozen=True, slots=True)
class Trained:
    """The outcome of a training: the best checkpoint of every candidate (K is the first axis), and what it took."""

    tensors: dict[str, torch.Tensor]
    best: tuple[Evaluation, ...]  # at that checkpoint, per candidate
    steps: int
    examples: int  # candidate-examples trained on
    seconds: float  # wall time, over all interrupted attempts


# Unfinished training: tensors, and the fields of `Progress`.
State = tuple[dict[str, torch.Tensor], dict[str, Any]]


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
        """Keep the outcome, and return it as later attempts will read it."""
        return trained


class Watch:
    """Shows how training goes. This one shows nothing; see `progress` for a live display and trackers."""

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

    The K candidates share no parameter, so the gradient of the sum of their losses is each one's own. `evaluate` gives
    metric and loss on `select` of those still in training. `names` are for curves, `title` is for displays. `seeds` are
    of each candidate's data order, in place of the schedule's; different ones need a `RowTrainable`. The schedule's
    `clip_norm` leaves out the optimiser's groups that say `clip: False`. NotFinite, when a loss stops being finite.
    """
    finished = keeper.finished()
    if finished is not None:
        return finished
    _, interval, total = schedule.steps(len(feed.lengths))
    candidates = _Candidates(trainable, optimiser, names, schedule, len(feed.lengths), keeper.load())
    progress = candidates.progress
    clipped = [p for group in optimiser.param_groups if group.get("clip", True) for p in group["params"]]
    full_rates = [group["lr"] for group in optimiser.param_groups]
    watch.begin(title, total, progress.step)
    begun = time.perf_counter() - progress.seconds
    try:
        for batches in _walk_batches(feed.lengths, schedule, seeds or [schedule.seed] * len(names), progress):
            optimiser.zero_grad(set_to_none=True)
            loss_K = backward(trainable, feed, batches, schedule.accumulate, processes)
            if schedule.clip_norm is not None:
                nn.utils.clip_grad_norm_(clipped, schedule.clip_norm)
            for group, rate in zip(optimiser.param_groups, full_rates, strict=True):
                group["lr"] = rate * schedule.rate_at(progress.step, total)
            optimiser.step()
            examples = sum(map(len, batches))
            candidates.count_step(loss_K, examples)
            watch.step(progress.step, float(loss_K.mean()), examples)
            if progress.step % interval == 0 or progress.step == total:
                agree(trainable, optimiser, processes)
                evaluations = evaluate()
                points = candidates.judge(evaluations, time.perf_counter() - begun)
                # Curve first: a kill in between leaves lines that the next start trims, never a gap.
                keeper.curve(points)
                keeper.save(candidates.tensors(), asdict(progress))
                watch.evaluated(points)
    finally:
        watch.end()  # a display that is left open hides the cursor
    best = tuple(Evaluation(**each) for each in progress.best if each is not None)
    return keeper.finish(Trained(candidates.best, best, progress.step, progress.examples, progress.seconds))


def _walk_batches(
    lengths: Sequence[int], schedule: Schedule, seeds: Sequence[int], progress: Progress
) -> Iterator[list[tuple[int, ...]]]:
    """Each step's batch of every active candidate, the same object for those of one seed, from `progress` on.

    Functions of seed and step alone, so a resumed run sees the same; the caller counts the steps that it made.
    """
    steps_an_epoch = schedule.steps(len(lengths))[0]
    for epoch in range(progress.step // steps_an_epoch, schedule.epochs):
        active = {seeds[place] for place in progress.active}
        orders = {seed: training_batches(lengths, schedule.batch_size, seed, epoch) for seed in active}
        while progress.active and progress.step // steps_an_epoch == epoch:
            at = progress.step % steps_an_epoch
            yield [orders[seeds[place]][at] for place in progress.active]


class _Candidates:
    """Which candidates are still in training, and the best checkpoint of each."""

    def __init__(
        self,
        trainable: Trainable,
        optimiser: torch.optim.Optimizer,
        names: Sequence[str],
        schedule: Schedule,
        examples: int,
        state: State | None,  # where an earlier attempt left off
    ) -> None:
        self.trainable, self.optimiser, self.names, self.schedule = trainable, optimiser, names, schedule
        self.steps_an_epoch, _, self.total = schedule.steps(examples)
        self.losses: list[torch.Tensor] = []  # `[K]` of each step since the last evaluation
        count = trainable.candidates
        if state is None:
            self.progress = Progress(0, list(range(count)), [None] * count, [0] * count)
            self.best = trainable.save()
            return
        tensors, progress = state
        self.progress = Progress(**progress)
        if len(self.progress.active) != count:
            self._keep(self.progress.active)
        trainable.load({name.removeprefix("now."): t for name, t in tensors.items() if name.startswith("now.")})
        unpack(optimiser, tensors)
        self.best = {name.removeprefix("best."): t for name, t in tensors.items() if name.startswith("best.")}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything but `progress` that is needed to go on from here."""
        state = {f"now.{name}": value for name, value in self.trainable.save().items()}
        state |= {f"best.{name}": value for name, value in self.best.items()}
        return state | pack(self.optimiser)

    def count_step(self, loss_K: torch.Tensor, examples: int) -> None:
        """Note that a step was made over `examples` candidate-examples."""
        self.progress.step += 1
        self.progress.examples += examples
        self.losses.append(loss_K)
        self._check_finite(loss_K.tolist(), "training")

    def judge(self, evaluations: Sequence[Evaluation], seconds: float) -> list[Point]:
        """Copy into `best` whatever is a candidate's best so far, and let those go whose patience is used up.

        Returns this evaluation's point on each candidate's curve.
        """
        # The last step may have ruined a prompt whose training losses were all finite.
        self._check_finite([each.loss for each in evaluations], "select")
        progress, schedule, now = self.progress, self.schedule, self.trainable.save()
        progress.seconds = seconds
        step, epoch = progress.step, math.ceil(progress.step / self.steps_an_epoch)
        loss_K, self.losses = torch.stack(self.losses).mean(0).tolist(), []
        points, staying = [], []
        for at, (place, loss, new) in enumerate(zip(progress.active, loss_K, evaluations, strict=True)):
            points.append(Point(self.names[place], epoch, step, loss, new.loss, new.score, seconds))
            old = progress.best[place]
            if old is None or schedule.best_by == "last":
                is_better = True
            elif schedule.best_by == "loss":
                is_better = new.loss < old["loss"]
            else:
                is_better = (new.score, -new.loss) > (old["score"], -old["loss"])
            progress.stale[place] += 1
            if is_better:
                progress.best[place], progress.stale[place] = asdict(new), 0
                for key, value in now.items():
                    self.best[key][place] = value[at]
            if schedule.patience is None or progress.stale[place] < schedule.patience:
                staying.append(at)
        if len(staying) < len(progress.active):  # the group gets cheaper
            progress.active = [progress.active[at] for at in staying]
            if staying:
                self._keep(staying)
        return points

    def _check_finite(self, losses_K: Sequence[float], which: str) -> None:
        rate = self.optimiser.param_groups[0]["lr"]
        do = f"lower tuning.lr (it is {rate:g}) or take --dtype float32, in another --out: this run would fail again"
        if which == "training" and self.progress.step == 1:
            do = FROM_THE_MODEL  # the first step's loss is that of the prompt as it came: no learning rate is at fault
        active = [self.names[place] for place in self.progress.active]
        check_finite(losses_K, active, f"{which} loss", f"at step {self.progress.step} of {self.total}", do)

    def _keep(self, places: list[int]) -> None:
        self.trainable.keep(places)
        keep_candidates(self.optimiser, places)
