"""The one loop on a toy: schedules, early stopping, best checkpoints, and going on after an interruption."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from toys import CurveKeeper, Drawn

from softprune.config.schema import TuningConfig
from softprune.errors import SoftpruneError
from softprune.training.loop import Evaluation, Point, Schedule, Watch, train
from softprune.training.optimizers import prompt_optimiser
from softprune.training.trainable import Feed

LENGTHS = (3, 5, 4, 3, 6, 2, 7, 5, 4, 3)
SCHEDULE = Schedule(epochs=4, batch_size=4)  # three steps an epoch, the last of two examples
P, H = 2, 4

Script = Mapping[str, Sequence[tuple[float, float]]]


class Toy:
    """Pulls `[K, P, H]` towards a point of its own for each example; an example may be poisoned with NaN."""

    def __init__(self, names: Sequence[str], poisoned: int | slice | None = None) -> None:
        self.names = list(names)
        places = [ord(name) for name in names]
        start = [torch.randn(P, H, generator=torch.Generator().manual_seed(place)) for place in places]
        self.values = nn.Parameter(torch.stack(start).double())
        self.points = torch.randn(len(LENGTHS), P, H, generator=torch.Generator().manual_seed(0)).double()
        if poisoned is not None:
            self.points[poisoned] = float("nan")

    @property
    def candidates(self) -> int:
        return self.values.shape[0]

    def parameters(self) -> list[nn.Parameter]:
        return [self.values]

    def loss(self, batch: Any) -> torch.Tensor:
        return (self.values[:, None] - self.points[list(batch)]).square().sum((-2, -1))

    def row_losses(self, batch: Any, counts: Sequence[int]) -> torch.Tensor:
        rows = self.values.repeat_interleave(torch.tensor(counts), dim=0)
        return (rows - self.points[list(batch)]).square().sum((-2, -1))

    def save(self) -> dict[str, torch.Tensor]:
        return {"values": self.values.detach().clone()}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.values.data = tensors["values"].clone()

    def keep(self, indices: Sequence[int]) -> None:
        self.names = [self.names[i] for i in indices]
        self.values.data = self.values.data[list(indices)]
        self.values.grad = None


class KilledError(Exception):
    pass


class Memory(CurveKeeper):
    """Keeps states as files would: as copies. Dies after a number of saves, where asked."""

    def __init__(self, die_after: int | None = None) -> None:
        self.state: tuple[dict[str, torch.Tensor], dict[str, Any]] | None = None
        super().__init__()
        self.saves, self.die_after = 0, die_after

    def load(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        return copy.deepcopy(self.state)

    def save(self, tensors: dict[str, torch.Tensor], progress: dict[str, Any]) -> None:
        self.state = copy.deepcopy((tensors, progress))
        self.saves += 1
        if self.saves == self.die_after:
            raise KilledError


def optimiser_of(toy: Toy, name: str = "adafactor") -> torch.optim.Optimizer:
    return prompt_optimiser(TuningConfig(optimiser=name, weight_decay=0.01), toy.values, None, lr=0.05)


def measured(toy: Toy) -> list[Evaluation]:
    """An evaluation that depends on the values only."""
    away = toy.values.detach().square().sum((-2, -1)).tolist()
    return [Evaluation(round(-distance, 1), distance) for distance in away]


def fitted(
    names: str,
    schedule: Schedule = SCHEDULE,
    *,
    optimiser: str = "adafactor",
    keeper: Memory | None = None,
    evaluate: Callable[[Toy], list[Evaluation]] = measured,
    poisoned: int | slice | None = None,
    watch: Any = None,
    seeds: Sequence[int] | None = None,
) -> Drawn:
    toy = Toy(names, poisoned)
    trained = train(
        toy,
        optimiser_of(toy, optimiser),
        Feed(LENGTHS, lambda indices: indices),  # type: ignore[arg-type, return-value]
        lambda: evaluate(toy),
        schedule,
        names=list(names),
        title="toy",
        keeper=keeper or Memory(),
        watch=watch or Watch(),
        seeds=seeds,
    )
    assert isinstance(trained, Drawn)
    return trained


def scripted(script: Script, seen: dict[str, list[torch.Tensor]] | None = None) -> Callable[[Toy], list[Evaluation]]:
    """Evaluations as written, by candidate; the values at each are noted in `seen`."""
    told = {name: iter(evaluations) for name, evaluations in script.items()}

    def evaluate(toy: Toy) -> list[Evaluation]:
        for name, value in zip(toy.names, toy.values.detach().clone(), strict=True):
            if seen is not None:
                seen.setdefault(name, []).append(value)
        return [Evaluation(*next(told[name])) for name in toy.names]

    return evaluate


def same(found: Drawn, wanted: Drawn) -> None:
    """Equal in everything but wall time."""
    assert torch.equal(found.tensors["values"], wanted.tensors["values"])
    assert found.best == wanted.best
    assert [replace(p, seconds=0.0) for p in found.curve] == [replace(p, seconds=0.0) for p in wanted.curve]
    assert (found.steps, found.examples) == (wanted.steps, wanted.examples)


def test_the_schedule_is_kept() -> None:
    trained = fitted("ab")
    assert (trained.steps, trained.examples) == (12, 2 * 4 * len(LENGTHS))
    assert [(p.candidate, p.epoch, p.step) for p in trained.curve] == [
        (name, epoch, 3 * epoch) for epoch in (1, 2, 3, 4) for name in "ab"
    ]


def test_evaluations_between_epochs_and_at_the_end() -> None:
    trained = fitted("a", replace(SCHEDULE, epochs=2, evaluate_every=4))
    assert [(p.epoch, p.step) for p in trained.curve] == [(2, 4), (2, 6)]


def test_train_loss_is_the_mean_since_the_last_evaluation() -> None:
    slow = fitted("a", replace(SCHEDULE, epochs=1))
    fast = fitted("a", replace(SCHEDULE, epochs=1, evaluate_every=1))
    assert slow.curve[0].train_loss == pytest.approx(sum(p.train_loss for p in fast.curve) / 3, rel=1e-12)


@pytest.mark.parametrize("accumulate", [2, 3, 4, 7])
@pytest.mark.parametrize("optimiser", ["adafactor", "adamw"])
def test_accumulated_parts_are_one_batch(optimiser: str, accumulate: int) -> None:
    whole = fitted("ab", optimiser=optimiser)
    parts = fitted("ab", replace(SCHEDULE, accumulate=accumulate), optimiser=optimiser)
    smaller = fitted("ab", replace(SCHEDULE, batch_size=2), optimiser=optimiser)
    wanted = whole.tensors["values"]
    bound = 1e-12 * float(wanted.abs().max())
    assert float((parts.tensors["values"] - wanted).abs().max()) <= bound
    assert float((smaller.tensors["values"] - wanted).abs().max()) > 100 * bound
    assert [p.train_loss for p in parts.curve] == pytest.approx([p.train_loss for p in whole.curve], rel=1e-12)


def test_another_seed_is_another_order() -> None:
    one, other = fitted("a"), fitted("a", replace(SCHEDULE, seed=1))
    same(fitted("a"), one)
    assert not torch.equal(one.tensors["values"], other.tensors["values"])


@pytest.mark.parametrize("best_by", ["score", "loss", "last"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_candidates_with_seeds_of_their_own_train_as_they_would_alone(best_by: str, accumulate: int) -> None:
    """Ten examples in batches of four: the short batch of an epoch comes at another step for each seed."""
    plan = replace(SCHEDULE, best_by=best_by, accumulate=accumulate, evaluate_every=2, patience=2)
    seeds = {"a": 4, "b": 0, "c": 1, "d": 4}
    together = fitted("abcd", plan, seeds=list(seeds.values()))
    alone = {name: fitted(name, replace(plan, seed=seed)) for name, seed in seeds.items()}
    wanted = torch.cat([one.tensors["values"] for one in alone.values()])
    bound = 1e-12 * float(wanted.abs().max())
    assert float((together.tensors["values"] - wanted).abs().max()) <= bound
    other = torch.cat([fitted(name, replace(plan, seed=7)).tensors["values"] for name in seeds])
    assert float((other - wanted).abs().amax((1, 2)).min()) > 100 * bound
    assert together.examples == sum(one.examples for one in alone.values())
    for name, one in alone.items():
        found = [point for point in together.curve if point.candidate == name]
        assert [(p.epoch, p.step) for p in found] == [(p.epoch, p.step) for p in one.curve]
        losses = [p.train_loss for p in one.curve]
        assert [p.train_loss for p in found] == pytest.approx(losses, rel=1e-12)


def test_seeds_that_are_all_alike_are_the_schedules() -> None:
    same(fitted("abc", seeds=[3, 3, 3]), fitted("abc", replace(SCHEDULE, seed=3)))


def test_the_best_checkpoint_is_kept_by_score_then_loss() -> None:
    seen: dict[str, list[torch.Tensor]] = {}
    script = {
        "a": [(0.5, 1.0), (0.7, 0.9), (0.7, 0.8), (0.6, 0.1)],  # the third: equal score, lower loss
        "b": [(0.7, 0.5), (0.7, 0.5), (0.6, 0.4), (0.7, 0.6)],  # the first: an equal one isn't better
    }
    trained = fitted("ab", evaluate=scripted(script, seen))
    assert trained.best == (Evaluation(0.7, 0.8), Evaluation(0.7, 0.5))
    assert torch.equal(trained.tensors["values"], torch.stack([seen["a"][2], seen["b"][0]]))
    assert not torch.equal(seen["a"][2], seen["a"][3])


def test_the_best_checkpoint_by_loss() -> None:
    seen: dict[str, list[torch.Tensor]] = {}
    script = {"a": [(0.5, 1.0), (0.9, 0.9), (0.1, 0.1), (0.6, 0.1)]}
    trained = fitted("a", replace(SCHEDULE, best_by="loss"), evaluate=scripted(script, seen))
    assert trained.best == (Evaluation(0.1, 0.1),)
    assert torch.equal(trained.tensors["values"][0], seen["a"][2])


@pytest.mark.parametrize("optimiser", ["adafactor", "adamw"])
def test_a_candidate_that_stops_leaves_the_others_as_they_would_be_without_it(optimiser: str) -> None:
    script = {
        "a": [(0.1, 1.0), (0.2, 1.0), (0.3, 1.0), (0.4, 1.0)],
        "b": [(0.9, 1.0), (0.5, 1.0)],
        "c": [(0.1, 1.0), (0.2, 1.0), (0.3, 1.0), (0.4, 1.0)],
    }
    plan = replace(SCHEDULE, patience=1)
    seen: dict[str, list[torch.Tensor]] = {}
    together = fitted("abc", plan, optimiser=optimiser, evaluate=scripted(script, seen))
    without = fitted("ac", plan, optimiser=optimiser, evaluate=scripted(script))
    found, wanted = together.tensors["values"], without.tensors["values"]
    bound = 1e-12 * float(wanted.abs().max())
    assert float((found[[0, 2]] - wanted).abs().max()) <= bound
    assert float((found[[2, 0]] - wanted).abs().max()) > 100 * bound
    assert [p.step for p in together.curve if p.candidate == "b"] == [3, 6]
    assert torch.equal(found[1], seen["b"][0])
    assert together.examples == without.examples + 2 * len(LENGTHS)


def test_training_ends_when_every_candidate_has_stopped() -> None:
    script = {"a": [(0.5, 1.0), (0.5, 1.0)], "b": [(0.5, 1.0), (0.6, 1.0), (0.6, 1.0)]}
    trained = fitted("ab", replace(SCHEDULE, patience=1), evaluate=scripted(script))
    assert trained.steps == 9
    assert len(trained.best) == 2


def test_patience_counts_evaluations_without_improvement() -> None:
    script = {"a": [(0.5, 1.0), (0.4, 1.0), (0.6, 1.0), (0.5, 1.0)]}
    assert fitted("a", replace(SCHEDULE, patience=2), evaluate=scripted(script)).steps == 12


@pytest.mark.parametrize("seeds", [None, (4, 0, 4)])
@pytest.mark.parametrize("optimiser", ["adafactor", "adamw"])
@pytest.mark.parametrize("plan", [SCHEDULE, replace(SCHEDULE, evaluate_every=2, patience=1)])
def test_taken_up_after_any_evaluation_it_ends_with_the_same_bits(
    optimiser: str, plan: Schedule, seeds: Sequence[int] | None
) -> None:
    script = {
        "a": [(0.1, 1.0), (0.2, 1.0), (0.1, 1.0), (0.4, 1.0), (0.5, 1.0), (0.6, 1.0)],
        "b": [(0.9, 1.0), (0.5, 1.0), (0.4, 1.0), (0.4, 1.0)],
        "c": [(0.1, 1.0), (0.2, 1.0), (0.3, 1.0), (0.2, 1.0), (0.3, 1.0), (0.4, 1.0)],
    }
    whole = Memory()
    wanted = fitted("abc", plan, optimiser=optimiser, keeper=whole, evaluate=scripted(script), seeds=seeds)
    assert whole.saves >= 3
    for stop in range(1, whole.saves + 1):
        keeper = Memory(die_after=stop)
        evaluate = scripted(script)
        with pytest.raises(KilledError):
            fitted("abc", plan, optimiser=optimiser, keeper=keeper, evaluate=evaluate, seeds=seeds)
        same(fitted("abc", plan, optimiser=optimiser, keeper=keeper, evaluate=evaluate, seeds=seeds), wanted)
        assert len(keeper.points) == len(whole.points)


def test_a_state_that_is_lost_shows() -> None:
    """Negative control of the test above: going on without the optimiser's moments ends elsewhere."""
    wanted = fitted("abc")
    keeper = Memory(die_after=2)
    with pytest.raises(KilledError):
        fitted("abc", keeper=keeper)
    assert keeper.state is not None
    forgotten = {k: v for k, v in keeper.state[0].items() if not k.startswith("optimiser.")}
    assert len(forgotten) < len(keeper.state[0])
    keeper.state = (forgotten, keeper.state[1])
    assert not torch.equal(fitted("abc", keeper=keeper).tensors["values"], wanted.tensors["values"])


def test_a_loss_that_is_no_number_ends_training() -> None:
    with pytest.raises(SoftpruneError, match=r"nan for a at step 2 of 12[\s\S]*tuning\.lr"):
        fitted("ab", poisoned=4)


def test_a_first_loss_that_is_no_number_is_the_models() -> None:
    with pytest.raises(SoftpruneError, match=r"nan for a at step 1 of 12[\s\S]*the model gives no numbers"):
        fitted("ab", poisoned=slice(None))


def test_a_select_loss_that_is_no_number_ends_training() -> None:
    """A last step can ruin a prompt whose training losses were all finite; its checkpoint must not be kept."""
    script = {"a": [(0.5, 1.0)] * 4, "b": [(0.5, 1.0), (0.9, float("nan")), (0.5, 1.0), (0.5, 1.0)]}
    keeper = Memory()
    with pytest.raises(SoftpruneError, match=r"nan for b at step 6"):
        fitted("ab", keeper=keeper, evaluate=scripted(script))
    assert keeper.saves == 1


class Diary:
    def __init__(self) -> None:
        self.lines: list[tuple[Any, ...]] = []

    def begin(self, title: str, steps: int, done: int) -> None:
        self.lines.append(("begin", title, steps, done))

    def step(self, step: int, loss: float, examples: int) -> None:
        self.lines.append(("step", step, examples))

    def evaluated(self, points: Sequence[Point]) -> None:
        self.lines.append(("evaluated", len(points)))

    def end(self) -> None:
        self.lines.append(("end",))


def test_watchers_are_told() -> None:
    diary = Diary()
    fitted("ab", replace(SCHEDULE, epochs=1), watch=diary)
    sizes = sorted(line[2] for line in diary.lines if line[0] == "step")
    assert sizes == [4, 8, 8]
    assert diary.lines[0] == ("begin", "toy", 3, 0)
    assert diary.lines[-2:] == [("evaluated", 2), ("end",)]
