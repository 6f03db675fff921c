"""K prompts in front of a real backbone: each is trained as if it were alone, and reads as its mask says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from toys import CurveKeeper, Drawn, distance, drawn, mask_of, scoring_of, task_of, texts_of

from softprune.config.schema import TuningConfig
from softprune.models.base import Backbone
from softprune.prompts.soft_prompts import full_mask, masked_state, read_one
from softprune.training.loop import Evaluation, Schedule, Watch, train
from softprune.training.optimizers import prompt_optimiser
from softprune.training.scoring import score_each, score_prompts
from softprune.training.trainable import Feed, PromptTrainable, parts_by_length
from softprune.types import Mask

pytestmark = pytest.mark.slow

Backbones = Callable[..., Backbone]
P, S = 4, 4
TOLERANCES = {"float64": 1e-12, "float32": 1e-5}
# Ten examples in batches of four: three steps an epoch.
SCHEDULE = Schedule(epochs=5, batch_size=4, evaluate_every=5)

# Under `zero` lengths may differ; under `drop` all have three tokens, but not the same.
ZERO = ["1111", "1110", "0111", "1010", "0001", "1111", "1101", "0110"]
DROP = ["1110", "1101", "1011", "0111", "1110", "1101", "1011", "0111"]


@dataclass(frozen=True)
class Setting:
    """What is trained, and how."""

    backbone: Backbone
    removal: str
    optimiser: str
    clip_scope: str = "survivors"
    lr: float = 0.01
    schedule: Schedule = SCHEDULE
    loss: str | None = None
    writes: bool = False

    def start_KPH(self) -> torch.Tensor:
        """A start of its own for every candidate."""
        hidden = self.backbone.info.hidden
        return drawn(8, P, hidden, seed=7, dtype=self.backbone.prompt_dtype)

    def masks(self) -> list[Mask]:
        return [mask_of(tokens, S, seed) for seed, tokens in enumerate(ZERO if self.removal == "zero" else DROP)]

    def trainable(self, which: Sequence[int]) -> PromptTrainable:
        scoring, masks = scoring_of(self.backbone), self.masks()
        scoring = scoring if self.loss is None else replace(scoring, loss=self.loss)
        return PromptTrainable(
            self.backbone,
            self.start_KPH()[list(which)],
            [masks[k] for k in which],
            removal=self.removal,
            loss=scoring.loss,
            score=scoring.score,
        )

    def train(
        self,
        which: Sequence[int],
        evaluate: Callable[[], list[Evaluation]] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> Drawn:
        """Train some of the eight together; the last evaluation is the best."""
        trainable = self.trainable(which)
        data = (texts_of if self.writes else task_of)(self.backbone)
        optimiser = prompt_optimiser(
            TuningConfig(optimiser=self.optimiser, weight_decay=0.01, clip_scope=self.clip_scope),
            trainable.vectors_KPH,
            trainable.reading.elements_KPH,
            lr=self.lr,
        )
        time = iter(range(1000))

        def later_is_better() -> list[Evaluation]:
            return [Evaluation(float(next(time)), 0.0)] * trainable.candidates

        trained = train(
            trainable,
            optimiser,
            Feed(data.lengths, lambda indices: data.batch(self.backbone, indices)),
            evaluate or later_is_better,
            self.schedule,
            names=[str(k) for k in which],
            title="test",
            keeper=CurveKeeper(),
            watch=Watch(),
            seeds=seeds,
        )
        assert isinstance(trained, Drawn)
        return trained


@pytest.mark.parametrize(
    ("model", "dtype", "optimiser", "removal"),
    [
        ("gpt2", "float64", "adafactor", "zero"),
        ("sentence", "float64", "adamw", "drop"),
        ("sentence", "float32", "adafactor", "drop"),
        ("sentence", "float32", "adamw", "zero"),
    ],
)
def test_eight_together_are_each_alone(
    model: str, dtype: str, optimiser: str, removal: str, backbone_of: Backbones
) -> None:
    setting = Setting(backbone_of(model, dtype), removal, optimiser)
    together = setting.train(range(8))
    alone = [setting.train([k]) for k in range(8)]
    assert together.steps == 15
    found, wanted = together.tensors["vectors_KPH"], torch.cat([a.tensors["vectors_KPH"] for a in alone])
    tolerance, alive = TOLERANCES[dtype], torch.stack([m.elements_PH(found.shape[2]) for m in setting.masks()])
    for k in range(8):
        assert distance(setting.start_KPH()[k] * alive[k], wanted[k]) > 100 * tolerance, "it hardly moved"
        assert distance(found[k], wanted[k]) <= tolerance
    swapped = found[[1, 0, *range(2, 8)]]
    assert distance(swapped, wanted) > 100 * tolerance
    curves = torch.tensor([[p.train_loss for p in a.curve] for a in alone])
    assert distance(torch.tensor([p.train_loss for p in together.curve]).view(-1, 8).T, curves) <= tolerance
    assert (found[~alive] == 0).all(), "what is masked stays exactly zero"
    assert (found[alive] != 0).all()


@pytest.mark.parametrize(
    ("model", "dtype", "removal", "loss", "writes", "accumulate"),
    [
        ("t5", "float64", "drop", "likelihood", False, 1),
        ("t5", "float64", "zero", "likelihood", True, 2),
        ("gpt2", "float64", "zero", "likelihood", False, 2),
        ("gpt2", "float64", "drop", "rank", False, 1),
        ("gpt2", "float32", "drop", "likelihood", True, 1),
        ("bert", "float64", "drop", "rank", False, 2),
        ("bert", "float64", "zero", "likelihood", False, 1),
        ("sentence", "float64", "zero", "rank", False, 1),
        ("sentence", "float32", "drop", "rank", False, 2),
    ],
)
def test_prompts_with_seeds_of_their_own_are_each_alone(
    model: str, dtype: str, removal: str, loss: str, writes: bool, accumulate: int, backbone_of: Backbones
) -> None:
    plan = replace(SCHEDULE, epochs=2, evaluate_every=6, accumulate=accumulate)
    setting = Setting(backbone_of(model, dtype), removal, "adafactor", schedule=plan, loss=loss, writes=writes)

    def alone(k: int, seed: int) -> torch.Tensor:
        return replace(setting, schedule=replace(plan, seed=seed)).train([k]).tensors["vectors_KPH"][0]

    seeds = [5, 1, 1]
    found = setting.train([0, 1, 2], seeds=seeds).tensors["vectors_KPH"]
    for k, seed in enumerate(seeds):
        assert distance(found[k], alone(k, seed)) <= TOLERANCES[dtype]
    assert distance(alone(0, 9), found[0]) > 100 * TOLERANCES[dtype], "negative control"


def test_rows_of_a_call_are_of_one_length_and_no_more_than_it_may_hold() -> None:
    lengths = [10, 11, 12, 13, 20, 30]
    rows = [(1, 0), (0, 1), (1, 2), (0, 3), (0, 4), (1, 5)]
    assert parts_by_length(rows, lengths, least=1, most=9) == [[(0, 1), (1, 0), (1, 2)], [(0, 3)], [(0, 4)], [(1, 5)]]
    assert [len(part) for part in parts_by_length(rows, lengths, least=4, most=9)] == [4, 2]
    assert [len(part) for part in parts_by_length(rows, lengths, least=9, most=2)] == [2, 2, 2]
    assert parts_by_length([], lengths, least=1, most=2) == []


@pytest.mark.parametrize("model", ["t5", "sentence"])
def test_accumulated_parts_are_one_batch(model: str, backbone_of: Backbones) -> None:
    """Parts of a batch are padded less than the whole: that must not show either."""
    setting = Setting(backbone_of(model, "float64"), "drop", "adafactor", schedule=replace(SCHEDULE, epochs=3))
    whole = setting.train([0, 1]).tensors["vectors_KPH"]
    for accumulate in (2, 4):
        parts = replace(setting, schedule=replace(setting.schedule, accumulate=accumulate)).train([0, 1])
        assert distance(parts.tensors["vectors_KPH"], whole) <= 1e-12
    halves = replace(setting, schedule=replace(setting.schedule, batch_size=2)).train([0, 1])
    assert distance(halves.tensors["vectors_KPH"], whole) > 1e-10


@pytest.mark.parametrize("removal", ["zero", "drop"])
def test_one_that_stops_leaves_the_others_alone(removal: str, backbone_of: Backbones) -> None:
    plan = replace(SCHEDULE, epochs=4, evaluate_every=3, patience=1)
    setting = Setting(backbone_of("gpt2", "float64"), removal, "adafactor", schedule=plan)
    counts = {"evaluations": 0}

    def second_gets_worse() -> list[Evaluation]:
        counts["evaluations"] += 1
        now = counts["evaluations"]
        scores = [now, -now, now] if now < 3 else [now, now]
        return [Evaluation(score, 1.0) for score in scores]

    def third_stays() -> list[Evaluation]:
        counts["evaluations"] += 1
        return [Evaluation(counts["evaluations"], 1.0)] * 2

    together = setting.train([0, 1, 2], second_gets_worse)
    counts["evaluations"] = 0
    without = setting.train([0, 2], third_stays)
    assert [p.step for p in together.curve if p.candidate == "1"] == [3, 6]
    assert distance(together.tensors["vectors_KPH"][[0, 2]], without.tensors["vectors_KPH"]) <= 1e-12


@pytest.mark.parametrize("model", ["gpt2", "bert"])
def test_dropping_is_shortening_by_hand_and_zeroing_is_not(model: str, backbone_of: Backbones) -> None:
    backbone = backbone_of(model)
    data, scoring = task_of(backbone), scoring_of(backbone)
    state = masked_state(drawn(P, backbone.info.hidden), mask_of("1011", S))
    short = state.vectors_PH[[0, 2, 3]]
    dropped, zeroed = read_one(state, "drop"), read_one(state, "zero")
    assert torch.equal(dropped, short)
    assert torch.equal(zeroed, state.vectors_PH)
    assert zeroed.shape[0] == P, "zero keeps positions"
    by_hand, by_drop, by_zero = score_each(backbone, [short, dropped, zeroed], data, scoring)
    assert by_hand == by_drop
    moved = [abs(z - d) for z, d in zip(by_zero.losses, by_drop.losses, strict=True)]
    assert max(moved) > 1e-3


def test_a_prompt_scores_alike_in_any_company(backbone_of: Backbones) -> None:
    """Prompts of different lengths, in batches of different sizes."""
    backbone = backbone_of("t5", "float64")
    data = task_of(backbone)
    prompts = [drawn(n, backbone.info.hidden, seed=n, dtype=torch.float64) for n in (2, 0, 3, 2)]
    together = score_each(backbone, prompts, data, scoring_of(backbone))
    for prompt, found in zip(prompts, together, strict=True):
        (alone,) = score_prompts(backbone, prompt[None], data, scoring_of(backbone, rows=1))
        assert found.losses == pytest.approx(alone.losses, rel=1e-12)
        assert found.predicted == alone.predicted
    # One prompt twice in a call: not every machine's matrix products give both places the same last bit.
    assert together[0].losses == pytest.approx(together[3].losses, rel=1e-12)
    assert abs(together[0].loss - together[2].loss) > 1e-6


@pytest.mark.parametrize("model", ["t5", "gpt2", "bert", "sentence"])
@pytest.mark.parametrize("score", ["sum", "mean"])
def test_scored_losses_are_the_losses_that_are_trained(model: str, score: str, backbone_of: Backbones) -> None:
    """One forward gives losses and scores on `select`; training takes another way to the same losses."""
    backbone = backbone_of(model, "float64")
    data = task_of(backbone)
    for loss in ("likelihood", "rank") if model != "sentence" else ("rank",):
        scoring = replace(scoring_of(backbone), loss=loss, score=score)
        prompt = drawn(1, 3, backbone.info.hidden, dtype=torch.float64)
        (found,) = score_prompts(backbone, prompt, data, scoring)
        trained = backbone.losses(prompt, data.batch(backbone, range(len(data))), loss, score)[0]
        assert found.losses == pytest.approx(trained.tolist(), rel=1e-10)


def test_a_trainable_saves_loads_and_keeps(backbone_of: Backbones) -> None:
    setting = Setting(backbone_of("gpt2"), "drop", "adamw")
    trainable = setting.trainable([0, 1, 2])
    saved = trainable.save()
    before = trainable.prompts().detach().clone()
    trainable.keep([2, 0])
    assert trainable.candidates == 2
    assert torch.equal(trainable.prompts(), before[[2, 0]])
    assert torch.equal(trainable.reading.elements_KPH, setting.trainable([2, 0]).reading.elements_KPH)
    assert saved["vectors_KPH"].shape[0] == 3, "a saved copy stays"
    trainable.load({"vectors_KPH": saved["vectors_KPH"][[1, 2]]})
    assert torch.equal(trainable.vectors_KPH, saved["vectors_KPH"][[1, 2]])


def test_prompts_of_different_lengths_are_not_dropped_together(backbone_of: Backbones) -> None:
    backbone = backbone_of("gpt2")
    with pytest.raises(ValueError, match=r"equally many tokens, not \[1, 4\]"):
        PromptTrainable(
            backbone,
            drawn(2, P, backbone.info.hidden),
            [full_mask(P, S), mask_of("0100", S)],
            removal="drop",
            loss="likelihood",
            score="sum",
        )
