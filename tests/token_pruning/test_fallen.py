"""A first token that is pruned although the head reads it, as the official code lets it be (`protect: false`).

From the next layer on its row of attention is zero, and so is its context: attention adds the output projection's bias
alone. The masked reference can leave that out (`dead_read`), which every test here must notice.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
import transformers
from encoders import (
    CONVENTIONS,
    LAYERS,
    LONGEST,
    TOLERANCES,
    assert_near,
    batch_of,
    encoder_of,
    gap,
    gradients,
    mixed,
    rule_of,
    thresholds,
    trained,
    unpacked,
)
from masked_reference import masked_pass
from torch import nn

from samples import every_second, pairwise
from softprune.models.batching import collate
from softprune.token_pruning.families import FAMILIES, Encoder
from softprune.token_pruning.forward import forward
from softprune.token_pruning.packing import Packed, pack
from softprune.token_pruning.rules import OFFICIAL, Convention, ForcedTokens, KeepAll, Ranked, Rule, Thresholds
from softprune.token_pruning.stages import EncoderTrainable
from softprune.types import Encoded

pytestmark = pytest.mark.slow

FREE = Convention(divisor=1.0, protect=False)
COUNT = 12
LETS_FIRST_FALL = ("middle", "high", "importance", "random", "forced, first", "forced, none", "manual")


def rule_that_prunes_first(name: str, count: int) -> Rule:
    """By name; the forced ones take out the first token of every other text."""
    if not name.startswith("forced"):
        return thresholds_by_hand() if name == "manual" else rule_of(name, OFFICIAL)
    out = tuple(frozenset({0, 2} if row % 2 else ()) for row in range(count))
    inner = Ranked(LAYERS, 0.2, "first") if name == "forced, first" else KeepAll()
    return ForcedTokens(inner, out)


def thresholds_by_hand() -> Thresholds:
    """The manual rule: delta stays zero."""
    return Thresholds(LAYERS, 1.2 / OFFICIAL.divisor, 1.0, OFFICIAL)


# --- six layers by hand ---


class Parts(nn.Module):
    """Embeddings of two numbers a token: one that changes, and the log of its weight in everybody's attention."""

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        del position_ids
        by_id = [[1.0, math.log(1)], [2.0, math.log(3)], [4.0, math.log(4)]]
        return torch.tensor(by_id, dtype=torch.float64)[input_ids]


def set_linear(linear: nn.Linear, weight: list[list[float]], bias: list[float]) -> None:
    with torch.no_grad():
        linear.weight.copy_(torch.tensor(weight))
        linear.bias.copy_(torch.tensor(bias))


@pytest.fixture(scope="module")
def by_hand() -> Encoder:
    """One head, no norms. Attention puts c / 2 + 1/4 to the first number, the feed-forward part halves the sum."""
    config = transformers.DistilBertConfig(
        vocab_size=3, dim=2, n_heads=1, hidden_dim=2, n_layers=6, activation="relu", num_labels=2
    )
    model = transformers.DistilBertForSequenceClassification(config).double().eval()
    model.distilbert.embeddings = Parts()
    nothing, first, both = [[0.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]
    for layer in model.distilbert.transformer.layer:
        # q . k / sqrt(2) is the key's log weight, whoever asks.
        set_linear(layer.attention.q_lin, nothing, [0.0, 1.0])
        with torch.no_grad():
            layer.attention.q_lin.bias[1] = 2.0**0.5
        set_linear(layer.attention.k_lin, both, [0.0, 0.0])
        set_linear(layer.attention.v_lin, both, [0.0, 0.0])
        set_linear(layer.attention.out_lin, [[0.5, 0.0], [0.0, 0.0]], [0.25, 0.0])
        set_linear(layer.ffn.lin1, first, [0.0, 0.0])
        set_linear(layer.ffn.lin2, [[-0.5, 0.0], [0.0, 0.0]], [0.0, 0.0])
        layer.sa_layer_norm = layer.output_layer_norm = nn.Identity()
    set_linear(model.pre_classifier, both, [0.0, 0.0])
    set_linear(model.classifier, both, [1.0, 0.0])
    return Encoder(model)


def test_six_layers_by_hand(by_hand: Encoder) -> None:
    """Weights 1, 3, 4: scores 3/8, 9/8, 12/8, then 6/7 and 8/7 of the two. Thresholds l / 6 take the first after layer
    3 (3/8 < 1/2) and nobody else (6/7 > 5/6). x becomes (x + c / 2 + 1/4) / 2, without c where the token has fallen.

        after layer           0         1          2            3              4              5
        c                  23/8     73/32    235/128      769/512    18181/14336    61711/57344
        first token       43/32   175/128    649/512    2323/2048     2835/4096      3859/8192
        second            59/32   207/128    713/512    2451/2048    59663/57344  209709/229376
        third             91/32   271/128    841/512    2707/2048    63247/57344  216877/229376
    """
    rule, batch = Thresholds(6, 1.0, 0.1, FREE), pack([[0, 1, 2]])
    with torch.no_grad():
        found = forward(by_hand, batch, rule, FREE)
        short = forward(by_hand, batch, rule, FREE, head_only=True)
        masked = masked_pass(by_hand, [[0, 1, 2]], rule, FREE)
        wrong = masked_pass(by_hand, [[0, 1, 2]], rule, FREE, dead_read=True)
    assert found.kept_LB == [[3], [3], [3], [2], [2], [2]]
    assert found.left_M.tolist() == [3, 6, 6]
    logits_BC = torch.tensor([[1 + 3859 / 8192, 0.0]], dtype=torch.float64)
    for each in (found, short, masked):
        assert gap(each.logits_BC, logits_BC) <= 1e-14
    assert found.origin_M.tolist() == [1, 2]
    state_M = torch.tensor([209709 / 229376, 216877 / 229376], dtype=torch.float64)
    assert gap(found.state_MH[:, 0], state_M) <= 1e-14
    # The first token's last state if it read on: 206125/229376.
    assert gap(wrong.logits_BC, torch.tensor([[1 + 206125 / 229376, 0.0]], dtype=torch.float64)) <= 1e-14


# --- against masks ---


@pytest.mark.parametrize(("family", "name"), every_second(list(FAMILIES), LETS_FIRST_FALL))
def test_logits_and_gradients_are_the_masked_ones(family: str, name: str) -> None:
    encoder, rule = encoder_of(family, torch.float64), rule_that_prunes_first(name, COUNT)
    batch = batch_of(mixed(COUNT, seed=5), seed=5)
    weigh_BC = torch.randn(COUNT, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = trained(encoder)
    found = forward(encoder, batch, rule, OFFICIAL)
    masked, wrong = (masked_pass(encoder, unpacked(batch), rule, OFFICIAL, dead_read=read) for read in (False, True))
    falls = masked.first_falls()
    assert any(falls), "no first token was pruned before the last layer"
    assert found.kept_LB == masked.alive_LBN.sum(2).tolist()
    left_BN = masked.alive_LBN.sum(0)
    assert found.left_M.tolist() == [left for row, n in enumerate(batch.lengths) for left in left_BN[row, :n].tolist()]
    for row, falls_here in enumerate(falls):
        assert gap(found.logits_BC[row], masked.logits_BC[row]) <= 1e-12
        if falls_here:
            assert gap(wrong.logits_BC[row], masked.logits_BC[row]) > 1e-3
    ours, theirs, old = (gradients((each.logits_BC * weigh_BC).sum(), weights) for each in (found, masked, wrong))
    assert_near(ours, theirs, 1e-12)
    with pytest.raises(AssertionError):
        assert_near(old, theirs, 1e-3)


@pytest.mark.parametrize(
    ("family", "dtype", "name"), pairwise(list(FAMILIES), list(TOLERANCES), [*LETS_FIRST_FALL, "nobody"])
)
def test_the_head_alone(family: str, dtype: torch.dtype, name: str) -> None:
    """Also where all first tokens have fallen, so that the last layer attends to nothing."""
    encoder, batch = encoder_of(family, dtype), batch_of(mixed(COUNT, seed=5), seed=5)
    nobody = ForcedTokens(KeepAll(), (frozenset({0}),) * COUNT)
    rule = nobody if name == "nobody" else rule_that_prunes_first(name, COUNT)
    with torch.inference_mode():
        found = forward(encoder, batch, rule, OFFICIAL, head_only=True).logits_BC
        wanted = masked_pass(encoder, unpacked(batch), rule, OFFICIAL).logits_BC
    assert gap(found, wanted) <= TOLERANCES[dtype]


def test_bfloat16_reads_where_all_first_tokens_have_fallen() -> None:
    encoder, truth = encoder_of("bert", torch.bfloat16), encoder_of("bert", torch.float64)
    batch = batch_of([9, 30])
    rule = ForcedTokens(KeepAll(), (frozenset({0}),) * 2)
    with torch.inference_mode():
        wanted = masked_pass(truth, unpacked(batch), rule, OFFICIAL)
        assert all(wanted.first_falls())
        for head_only in (False, True):
            found = forward(encoder, batch, rule, OFFICIAL, head_only=head_only).logits_BC
            assert gap(found, wanted.logits_BC) < 0.1


def test_the_other_tokens_of_its_text_change_nothing_any_more() -> None:
    """Once it has fallen, the head's token hears of nobody; as long as it attends, it does."""
    encoder = encoder_of("bert", torch.float64)
    batch = batch_of([20, 20], seed=2)

    def logits(out: frozenset[int]) -> torch.Tensor:
        rule = ForcedTokens(KeepAll(), (out, out))
        with torch.no_grad():
            return forward(encoder, batch, rule, OFFICIAL).logits_BC

    assert gap(logits(frozenset({0, 3, 4})), logits(frozenset({0}))) <= 1e-14
    assert gap(logits(frozenset({3, 4})), logits(frozenset())) > 1e-3


def test_protection_keeps_it() -> None:
    """The control: with it the first token stays, and logits are others."""
    encoder, batch = encoder_of("bert", torch.float64), batch_of(mixed(32, seed=5), seed=5)
    rule, safe = rule_of("middle", OFFICIAL), Convention(OFFICIAL.divisor, protect=True)
    free, protected = (masked_pass(encoder, unpacked(batch), rule, each) for each in (OFFICIAL, safe))
    assert not any(protected.first_falls())
    row = free.first_falls().index(True)
    assert gap(forward(encoder, batch, rule, safe).logits_BC, protected.logits_BC) <= 1e-12
    assert gap(protected.logits_BC[row], free.logits_BC[row]) > 1e-3


@pytest.mark.parametrize("convention", CONVENTIONS.values(), ids=CONVENTIONS)
def test_a_fallen_first_token_takes_nobody_s_place(convention: Convention) -> None:
    """Of the first k, one was forced out; k of the others stay, whether or not a fallen one is at hand."""
    encoder, rule = encoder_of("bert", torch.float64), Ranked(LAYERS, 0.2, "first")
    place = 1 if convention.protect else 0
    forced = ForcedTokens(rule, (frozenset({place}),))
    with torch.no_grad():
        kept_LB = forward(encoder, batch_of([LONGEST]), forced, convention).kept_LB
    assert kept_LB == [[LONGEST], *([min(LONGEST - 1, rule.kept(layer, LONGEST))] for layer in range(1, LAYERS))]


# --- training ---


def test_hard_training_behind_thresholds_of_the_soft_stage() -> None:
    """What the soft stage leaves is read as the masked reference reads it, loss and gradients, in training mode."""
    encoder = Encoder(copy.deepcopy(encoder_of("bert", torch.float64).model))
    encoder.set_dropout(0.0, 1e-30)  # attention goes by autograd, as it does with dropout
    rule = thresholds(OFFICIAL, dtype=torch.float64)
    batch_ids = unpacked(batch_of(mixed(COUNT, seed=5), seed=5))
    gold = torch.tensor([row % 3 for row in range(COUNT)])
    encoded = [Encoded(tuple(ids), -1, ((),), int(g)) for ids, g in zip(batch_ids, gold, strict=True)]
    batch = collate(encoded, 0, torch.device("cpu"))
    soft = EncoderTrainable(encoder, rule, OFFICIAL, 0.3, torch.float64)
    before = rule.delta_L.detach().clone()
    optimiser = torch.optim.Adam([{"params": trained(encoder), "lr": 1e-4}, {"params": [rule.delta_L], "lr": 1e-4}])
    for _ in range(3):
        optimiser.zero_grad()
        soft.loss(batch).mean().backward()
        optimiser.step()
    assert bool((rule.delta_L[1:] != before[1:]).all())
    rule.delta_L.requires_grad_(False)
    hard = EncoderTrainable(encoder, rule, OFFICIAL, None, torch.float64)
    loss_B = hard.loss(batch)[0]
    masked, wrong = (masked_pass(encoder, batch_ids, rule, OFFICIAL, dead_read=read) for read in (False, True))
    assert any(masked.first_falls())
    wanted_B, old_B = (F.cross_entropy(each.logits_BC.float(), gold, reduction="none") for each in (masked, wrong))
    assert gap(loss_B, wanted_B) <= 1e-6
    assert gap(old_B, wanted_B) > 1e-3
    weights = trained(encoder)
    ours, theirs, old = (gradients(each.mean(), weights) for each in (loss_B, wanted_B, old_B))
    assert_near(ours, theirs, 1e-6)  # the loss is float32
    with pytest.raises(AssertionError):
        assert_near(old, theirs, 1e-3)


def test_a_prediction_hears_of_no_batch_mate_in_bfloat16() -> None:
    """Rounding too: that somebody's first token has fallen must not change the dtype of the others' sums."""
    encoder = encoder_of("bert", torch.float32)
    batch: Packed = batch_of([30, 30], seed=4)

    def logits(out: frozenset[int]) -> torch.Tensor:
        rule = ForcedTokens(KeepAll(), (frozenset({5}), out))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            return forward(encoder, batch, rule, OFFICIAL).logits_BC[0]

    assert gap(logits(frozenset({0})), logits(frozenset({1}))) <= 2**-9
