"""What a step of token pruning's training does, held against hand-written numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from masked_reference import masked_pass
from small_runs import encoder_of

from samples import pairwise
from softprune.models.batching import collate
from softprune.token_pruning.families import Encoder
from softprune.token_pruning.rules import Convention, KeepAll, Rule, Thresholds
from softprune.token_pruning.stages import THRESHOLDS, EncoderTrainable
from softprune.training.loop import Evaluation, Keeper, Schedule, Watch, train
from softprune.training.optimizers import weights_adamw
from softprune.training.trainable import Feed
from softprune.types import Batch, Encoded

pytestmark = pytest.mark.slow

Models = Callable[[str], Path]
CONVENTION = Convention()
LAMBDA = 0.3


def batch_of(size: int, seed: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 30, (size,), generator=draw).tolist()
    texts = [[2, *torch.randint(5, 90, (n,), generator=draw).tolist(), 3] for n in lengths]
    encoded = [Encoded(tuple(ids), -1, ((),), n % 2) for n, ids in enumerate(texts)]
    return collate(encoded, 0, torch.device("cpu"))


def thresholds(encoder: Encoder) -> Thresholds:
    return Thresholds(len(encoder.layers), 1.0, 0.5, CONVENTION)


def trainable_of(
    encoder: Encoder, stage: str = "soft", compute: torch.dtype = torch.float32, price: float = LAMBDA
) -> EncoderTrainable:
    rule: Rule = KeepAll() if stage == "baseline" else thresholds(encoder)
    if stage == "hard":
        assert isinstance(rule, Thresholds)
        rule.delta_L.requires_grad_(False)
    return EncoderTrainable(encoder, rule, CONVENTION, price if stage == "soft" else None, compute)


def tuner_of(trainable: EncoderTrainable, lr: float = 2e-5, weight_decay: float = 0.01) -> torch.optim.AdamW:
    own = {THRESHOLDS: 0.02} if THRESHOLDS in trainable.named() else {}
    return weights_adamw(trainable.named(), lr=lr, weight_decay=weight_decay, own_rates=own)


def step(trainable: EncoderTrainable, tuner: torch.optim.Optimizer, clip_norm: float | None = None) -> None:
    """One step of the loop on eight texts."""
    train(
        trainable,
        tuner,
        Feed([5] * 8, lambda indices: batch_of(len(indices))),
        lambda: [Evaluation(0.0, 0.0)],
        Schedule(epochs=1, batch_size=8, clip_norm=clip_norm),
        names=["x"],
        title="x",
        keeper=Keeper(),
        watch=Watch(),
    )


def unmoved(trainable: EncoderTrainable, before: dict[str, torch.Tensor]) -> list[str]:
    return [name for name, value in trainable.named().items() if torch.equal(value, before[name])]


def copies(trainable: EncoderTrainable) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainable.named().items()}


@pytest.mark.parametrize("stage", ["baseline", "soft", "hard"])
def test_every_weight_moves_under_bfloat16_products(tiny_models: Models, stage: str) -> None:
    trainable = trainable_of(encoder_of(tiny_models("encoder")), stage, torch.bfloat16)
    assert all(value.dtype == torch.float32 for value in trainable.parameters())
    before = copies(trainable)
    step(trainable, tuner_of(trainable))
    assert unmoved(trainable, before) == []
    assert all(value.grad is None or value.grad.dtype == torch.float32 for value in trainable.parameters())


def test_weights_in_bfloat16_would_not(tiny_models: Models) -> None:
    """Negative control: why weights are float32."""
    trainable = trainable_of(encoder_of(tiny_models("encoder"), torch.bfloat16), "baseline", torch.bfloat16)
    before = copies(trainable)
    step(trainable, tuner_of(trainable))
    still = unmoved(trainable, before)
    assert len([name for name in still if name.endswith("LayerNorm.weight")]) >= 5


def test_thresholds_have_a_step_size_of_their_own_and_no_decay(tiny_models: Models) -> None:
    trainable = trainable_of(encoder_of(tiny_models("encoder")))
    rule = trainable.rule
    assert isinstance(rule, Thresholds)
    with torch.no_grad():
        rule.delta_L.fill_(3.0)  # decay would show
    tuner = tuner_of(trainable, weight_decay=0.5)
    step(trainable, tuner, clip_norm=1e-12)
    gradient_L = rule.delta_L.grad
    assert gradient_L is not None
    assert gradient_L[1:].abs().min() > 1e-7
    # Adam's first step is the step size, whatever the gradient.
    wanted = [3.0, *(3.0 - 0.02 * float(g.sign()) for g in gradient_L[1:])]
    assert rule.delta_L.tolist() == pytest.approx(wanted, rel=1e-5)
    others = {id(p) for group in tuner.param_groups[:2] for p in group["params"]}
    assert id(rule.delta_L) not in others
    assert [group["weight_decay"] for group in tuner.param_groups] == [0.5, 0.0, 0.0]


def test_norms_and_biases_have_no_decay_and_every_weight_is_trained_once(tiny_models: Models) -> None:
    trainable = trainable_of(encoder_of(tiny_models("encoder")))
    names = {id(p): name for name, p in trainable.named().items()}
    decayed, plain, own = ([names[id(p)] for p in group["params"]] for group in tuner_of(trainable).param_groups)
    assert own == ["thresholds.delta_L"]
    assert all("bias" in name or "LayerNorm" in name for name in plain)
    assert not any("bias" in name or "LayerNorm" in name for name in decayed)
    assert sorted([*decayed, *plain, *own]) == sorted(trainable.named())


def test_the_step_size_rises_and_falls_as_by_hand() -> None:
    schedule = Schedule(epochs=1, batch_size=1, warmup=0.2, linear_decay=True)
    shares = [0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    assert [schedule.rate_at(step, 10) for step in range(10)] == pytest.approx(shares)
    assert Schedule(epochs=1, batch_size=1, warmup=0.06, linear_decay=True).rate_at(0, 1) == 1.0
    assert {Schedule(epochs=1, batch_size=1).rate_at(step, 10) for step in range(10)} == {1.0}


def test_the_loop_steps_at_the_step_sizes_of_its_schedule(tiny_models: Models) -> None:
    trainable = trainable_of(encoder_of(tiny_models("encoder")))
    tuner, seen = tuner_of(trainable, lr=1e-5), []
    tuner.register_step_pre_hook(lambda *_: seen.append([group["lr"] for group in tuner.param_groups]))
    train(
        trainable,
        tuner,
        Feed([5] * 10, lambda indices: batch_of(len(indices))),
        lambda: [Evaluation(0.0, 0.0)],
        Schedule(epochs=1, batch_size=1, warmup=0.2, linear_decay=True),
        names=["x"],
        title="x",
        keeper=Keeper(),
        watch=Watch(),
    )
    shares = [0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    assert [rates[0] for rates in seen] == pytest.approx([1e-5 * share for share in shares])
    assert [rates[2] for rates in seen] == pytest.approx([0.02 * share for share in shares])


def test_gradients_are_clipped_together_but_not_those_of_thresholds(tiny_models: Models) -> None:
    gradients = []
    for clip_norm in (None, 1e-6):
        trainable = trainable_of(encoder_of(tiny_models("encoder")))
        step(trainable, tuner_of(trainable), clip_norm=clip_norm)
        gradients.append({name: p.grad for name, p in trainable.named().items() if p.grad is not None})
    whole, clipped = gradients
    own = clipped.pop(THRESHOLDS)
    assert torch.equal(own, whole[THRESHOLDS])
    assert float(own.norm()) > 1e-6
    norm = torch.stack([gradient.norm() for gradient in clipped.values()]).norm()
    assert float(norm) == pytest.approx(1e-6, rel=1e-3)


def loss_by_hand(encoder: Encoder, batch: Batch, rule: Thresholds, price: float) -> torch.Tensor:
    """Cross-entropy and regulariser from the masked reference, text by text."""
    lengths = batch.input_mask.sum(1).tolist()
    texts = [ids[:length] for ids, length in zip(batch.input_ids.tolist(), lengths, strict=True)]
    read = masked_pass(encoder, texts, rule, CONVENTION, soft=True)
    cross = F.cross_entropy(read.logits_BC, batch.gold, reduction="none")
    found = []
    for b, length in enumerate(lengths):
        means = [
            torch.sigmoid((read.score_LBN[layer, b, 1:length] - rule.theta(layer)) / rule.temperature).mean()
            for layer in range(1, len(encoder.layers))
        ]
        found.append(cross[b] + price * torch.stack(means).sum())
    return torch.stack(found).detach()


def test_the_loss_is_cross_entropy_and_lambda_times_the_regulariser(tiny_models: Models) -> None:
    encoder = encoder_of(tiny_models("encoder"))
    trainable, batch = trainable_of(encoder), batch_of(6)
    found = trainable.loss(batch)[0].detach()
    rule = trainable.rule
    assert isinstance(rule, Thresholds)
    wanted = loss_by_hand(encoder, batch, rule, LAMBDA)
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    other = loss_by_hand(encoder, batch, rule, 1.01 * LAMBDA)
    assert (found - other).abs().max() > 1e-3 * wanted.abs().max()


@pytest.mark.parametrize(
    ("stage", "hidden", "attention", "compute"),
    pairwise(["baseline", "soft", "hard"], [0.0, 0.1], [0.0, 0.1], [torch.float32, torch.bfloat16]),
)
def test_no_batch_size_dropout_or_dtype_breaks_it(
    tiny_models: Models, stage: str, hidden: float, attention: float, compute: torch.dtype
) -> None:
    encoder = encoder_of(tiny_models("encoder"))
    encoder.set_dropout(hidden, attention)
    trainable = trainable_of(encoder, stage, compute)
    tuner = tuner_of(trainable)
    for size in (1, 2, 3):
        step(trainable, tuner, size)
        assert all(value.isfinite().all() for value in trainable.parameters())
    if stage == "soft":
        assert isinstance(trainable.rule, Thresholds)
        assert (trainable.rule.delta_L[1:] != 0).all()
    if stage == "hard":
        assert isinstance(trainable.rule, Thresholds)
        assert not trainable.rule.delta_L.any()


@pytest.mark.parametrize(("hidden", "attention"), [(0.3, 0.0), (0.0, 0.3)])
def test_dropout_is_drawn_in_training(tiny_models: Models, hidden: float, attention: float) -> None:
    encoder = encoder_of(tiny_models("encoder"))
    trainable, batch = trainable_of(encoder, "baseline"), batch_of(4)
    assert torch.equal(trainable.loss(batch), trainable.loss(batch))
    encoder.set_dropout(hidden, attention)
    assert not torch.equal(trainable.loss(batch), trainable.loss(batch))


def moved_by_a_step(model: Path, stage: str, accumulate: int) -> dict[str, torch.Tensor]:
    """What one step of plain gradient descent changes: the gradient, part by part."""
    trainable = trainable_of(encoder_of(model), stage)
    whole = batch_of(8)
    before = copies(trainable)

    def some(indices: Sequence[int]) -> Batch:
        texts = [whole.input_ids[i][: int(whole.input_mask[i].sum())] for i in indices]
        encoded = [
            Encoded(tuple(ids.tolist()), -1, ((),), int(whole.gold[i])) for i, ids in zip(indices, texts, strict=True)
        ]
        return collate(encoded, 0, torch.device("cpu"))

    train(
        trainable,
        torch.optim.SGD([p for p in trainable.parameters() if p.requires_grad], lr=1.0),
        Feed([5] * 8, some),
        lambda: [Evaluation(0.0, 0.0)],
        Schedule(epochs=1, batch_size=8, accumulate=accumulate),
        names=["x"],
        title="x",
        keeper=Keeper(),
        watch=Watch(),
    )
    return {name: value.detach() - before[name] for name, value in trainable.named().items()}


@pytest.mark.parametrize("stage", ["baseline", "soft", "hard"])
def test_two_parts_of_a_batch_make_the_step_of_the_whole(tiny_models: Models, stage: str) -> None:
    model = tiny_models("encoder")
    one, two = moved_by_a_step(model, stage, 1), moved_by_a_step(model, stage, 2)
    largest = max(float(value.abs().max()) for value in one.values())
    assert largest > 0.01
    for name, value in one.items():
        # Rounding of a weight near 1 is as large as its least gradients: relative to the largest step.
        assert float((value - two[name]).abs().max()) <= 1e-5 * max(largest, 1.0), name
    third = moved_by_a_step(model, stage, 3)
    assert all(float((value - third[name]).abs().max()) <= 1e-5 * max(largest, 1.0) for name, value in one.items())
    assert any(float((value - 0.99 * two[name]).abs().max()) > 1e-5 * max(largest, 1.0) for name, value in one.items())


def test_saved_values_come_back_in_place(tiny_models: Models) -> None:
    trainable = trainable_of(encoder_of(tiny_models("encoder")))
    saved = trainable.save()
    step(trainable, tuner_of(trainable, lr=0.1))
    assert unmoved(trainable, {name: value[0] for name, value in saved.items()}) == []
    trainable.load(saved)
    assert unmoved(trainable, {name: value[0] for name, value in saved.items()}) == list(saved)
