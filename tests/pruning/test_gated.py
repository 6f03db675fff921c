"""Gated prompts: what matters is found, prices order sizes, K prices are each alone, kills change nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from toys import distance, drawn, scoring_of, task_of

from softprune.config.schema import TuningConfig
from softprune.models.base import Backbone
from softprune.pruning.learned_masks import GATES, GatedPrompts, TogetherOptimiser
from softprune.training.loop import Evaluation, Keeper, Schedule, State, Trained, Watch, train
from softprune.training.optimizers import prompt_optimiser
from softprune.training.trainable import Feed

Backbones = Callable[..., Backbone]
P, S, H = 8, 2, 4
MATTER = (2, 5)
LENGTHS = (3,) * 16


class Toy:
    """Stands where a backbone does: its loss reads two of the eight tokens, and of those the first piece only."""

    device, prompt_dtype = torch.device("cpu"), torch.float64

    def row_losses(self, prompts_RPH: torch.Tensor, batch: Any, loss: str, score: str) -> torch.Tensor:
        rows = torch.tensor(batch.rows, dtype=torch.float64).repeat(len(prompts_RPH) // len(batch.rows))
        target_RH = (1 + 0.1 * rows)[:, None] * torch.ones(H // S, dtype=torch.float64)
        return (prompts_RPH[:, MATTER, : H // S] - target_RH[:, None]).square().sum((-2, -1))


class Rows(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.rows)


class KilledError(Exception):
    pass


class Memory(Keeper):
    """Keeps the state of the last evaluation; dies after a number of saves, where asked."""

    def __init__(self, die_after: int | None = None) -> None:
        self.state: State | None = None
        self.saves, self.die_after = 0, die_after

    def load(self) -> State | None:
        return copy.deepcopy(self.state)

    def save(self, tensors: dict[str, torch.Tensor], progress: dict[str, Any]) -> None:
        self.state, self.saves = copy.deepcopy((tensors, progress)), self.saves + 1
        if self.saves == self.die_after:
            raise KilledError

    def curve(self, points: Sequence[Any]) -> None:
        pass


def optimiser_of(
    gated: GatedPrompts, name: str = "adafactor", lr: float = 0.01, gate_lr: float = 0.2
) -> TogetherOptimiser:
    prompts = prompt_optimiser(TuningConfig(optimiser=name, weight_decay=0), gated.vectors_KPH, None, lr=lr)
    return TogetherOptimiser([prompts, torch.optim.Adam(gated.gates(), lr=gate_lr, eps=1e-12)], gated.next_step)


def trained(
    gated: GatedPrompts,
    feed: Feed,
    schedule: Schedule,
    *,
    optimiser: str = "adafactor",
    keeper: Memory | None = None,
) -> Trained:
    return train(
        gated,
        optimiser_of(gated, optimiser),
        feed,
        lambda: [Evaluation(0.0, 0.0)] * gated.candidates,
        schedule,
        names=[f"{price:g}" for price in gated.price_K],
        title="gates",
        keeper=keeper or Memory(),
        watch=Watch(),
    )


def toy_of(kind: str, prices: Sequence[float], levels: str = "both", seed: int = 0) -> GatedPrompts:
    start = torch.ones(P, H, dtype=torch.float64)
    return GatedPrompts(Toy(), start, S, prices, GATES[kind], levels=levels, loss="", score="", seed=seed)  # type: ignore[arg-type]


TOY_FEED = Feed(LENGTHS, lambda indices: Rows(rows=list(indices)))  # type: ignore[arg-type, return-value]
PLAN = Schedule(epochs=30, batch_size=4)


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("levels", ["both", "token", "piece"])
def test_what_matters_is_found(kind: str, levels: str) -> None:
    """Two of eight tokens matter, and one of their two pieces; without a price nothing goes."""
    gated = toy_of(kind, [1.0, 1e-9], levels)
    trained(gated, TOY_FEED, PLAN)
    priced, free = gated.masks()
    wanted = torch.zeros(P, S, dtype=torch.bool)
    wanted[list(MATTER)] = torch.tensor([True, levels == "token"])
    if levels == "piece":
        assert torch.equal(priced.piece_PS[list(MATTER)], wanted[list(MATTER)])
        assert priced.pieces == P, "a token that may not go keeps one piece"
    else:
        assert torch.equal(priced.piece_PS, wanted)
    assert bool(free.piece_PS[list(MATTER), 0].all())
    hidden = gated.harden_prompts()
    assert torch.equal(hidden[0] != 0, priced.elements_PH(H))


@pytest.mark.parametrize("kind", GATES)
def test_a_higher_price_prunes_more(kind: str) -> None:
    """Token i is worth i eighths of the loss; a price of 2.5 (an eighth of it a token) ends at the third."""

    class Graded(Toy):
        def row_losses(self, prompts_RPH: torch.Tensor, *_: Any) -> torch.Tensor:
            worth = torch.arange(P, dtype=torch.float64) / P
            return (worth * (prompts_RPH.mean(-1) - 1).square()).sum(-1)

    def sizes(prices: Sequence[float]) -> list[int]:
        gated = toy_of(kind, prices)
        gated.backbone = Graded()  # type: ignore[assignment]
        trained(gated, TOY_FEED, PLAN)
        return [mask.pieces for mask in gated.masks()]

    found = sizes([1e-6, 2.5, 5.5, 100.0])
    assert found == sorted(found, reverse=True)
    assert found[0] > found[1] > found[2] > found[3] == 1
    assert sizes([2.5, 2.5]) == [found[1]] * 2, "the price is what makes the difference"


@pytest.mark.parametrize(
    ("kind", "levels", "optimiser", "dtype", "tolerance"),
    [
        ("hard-concrete", "both", "adafactor", "float64", 1e-12),
        ("straight-through", "both", "adamw", "float64", 1e-12),
        ("straight-through", "both", "adafactor", "float32", 1e-5),
        ("hard-concrete", "token", "adamw", "float64", 1e-12),
        ("straight-through", "piece", "adafactor", "float64", 1e-12),
    ],
)
def test_prices_side_by_side_are_each_alone(
    kind: str, levels: str, optimiser: str, dtype: str, tolerance: float, backbone_of: Backbones
) -> None:
    backbone = backbone_of("sentence", dtype)
    data, scoring, prices = task_of(backbone), scoring_of(backbone), [0.03, 0.3, 3.0]

    def of(chosen: Sequence[float]) -> dict[str, torch.Tensor]:
        start = drawn(4, backbone.info.hidden, seed=7, dtype=backbone.prompt_dtype)
        options: dict[str, Any] = {"levels": levels, "loss": scoring.loss, "score": scoring.score, "seed": 3}
        gated = GatedPrompts(backbone, start, 4, chosen, GATES[kind], **options)
        feed = Feed(data.lengths, lambda indices: data.batch(backbone, indices))
        trained(gated, feed, Schedule(epochs=3, batch_size=4), optimiser=optimiser)
        return gated.save()

    together, alone = of(prices), [of([price]) for price in prices]
    moving = [
        "vectors_KPH",
        *({"both": ["token_KP", "piece_KPS"], "token": ["token_KP"], "piece": ["piece_KPS"]}[levels]),
    ]
    for name in moving:
        wanted = torch.cat([one[name] for one in alone])
        assert distance(together[name], wanted) <= tolerance
        assert distance(together[name][[1, 0, 2]], wanted) > 100 * tolerance, "negative control: other prices"
    for name in {"token_KP", "piece_KPS"} - set(moving):
        assert bool((together[name] == together[name].flatten()[0]).all()), "a level that is off stays as it was"


def test_examples_have_gates_of_their_own_and_parts_of_a_batch_the_same_as_the_whole() -> None:
    def drawn_in(*parts: int) -> torch.Tensor:
        gated = toy_of("straight-through", [1.0])
        return torch.cat([gated._draw(rows) for rows in parts], dim=1).detach()

    whole = drawn_in(4)
    assert torch.equal(drawn_in(2, 2), whole)
    assert not torch.equal(whole[:, 0], whole[:, 1])
    gated = toy_of("straight-through", [1.0])
    first = gated._draw(4)
    gated.next_step()
    assert not torch.equal(gated._draw(4), first), "another step, other gates"
    assert not torch.equal(toy_of("straight-through", [1.0], seed=1)._draw(4), first)


@pytest.mark.parametrize("kind", GATES)
def test_accumulated_parts_are_one_batch(kind: str) -> None:
    def of(accumulate: int, batch_size: int = 4) -> torch.Tensor:
        gated = toy_of(kind, [0.3])
        trained(gated, TOY_FEED, Schedule(epochs=3, batch_size=batch_size, accumulate=accumulate))
        return gated.save()["piece_KPS"]

    assert distance(of(2), of(1)) <= 1e-12
    assert distance(of(1, batch_size=8), of(1)) > 1e-3


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("optimiser", ["adafactor", "adamw"])
def test_killed_and_taken_up_it_ends_with_the_same_bits(kind: str, optimiser: str) -> None:
    plan = Schedule(epochs=4, batch_size=4)
    whole = toy_of(kind, [0.1, 1.0])
    trained(whole, TOY_FEED, plan, optimiser=optimiser)
    memory = Memory(die_after=2)
    with pytest.raises(KilledError):
        trained(toy_of(kind, [0.1, 1.0]), TOY_FEED, plan, optimiser=optimiser, keeper=memory)
    again = toy_of(kind, [0.1, 1.0])
    trained(again, TOY_FEED, plan, optimiser=optimiser, keeper=memory)
    for name, value in whole.save().items():
        assert torch.equal(again.save()[name], value), name
    # Negative control: without the count of steps, other gates are drawn.
    assert memory.state is not None
    forgetful = Memory()
    tensors, progress = memory.state[0], dict(memory.state[1])
    tensors["now.step_K"], progress["step"] = torch.zeros(2, dtype=torch.long), 12
    forgetful.state = (tensors, progress)
    other = toy_of(kind, [0.1, 1.0])
    trained(other, TOY_FEED, plan, optimiser=optimiser, keeper=forgetful)
    assert not torch.equal(other.save()["piece_KPS"], whole.save()["piece_KPS"])
