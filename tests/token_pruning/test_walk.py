"""Tokens that are really gone give the logits of masked ones, whatever the rule, the batch and the family."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
import transformers
from encoders import (
    CONVENTIONS,
    FAMILIES,
    LAYERS,
    LONGEST,
    OURS,
    RULES,
    TOLERANCES,
    Recorder,
    assert_near,
    batch_of,
    classifier,
    encoder_of,
    gap,
    gradients,
    mixed,
    rule_of,
    texts_of,
    thresholds,
    trained,
    unpacked,
)
from masked_reference import MaskedPass, masked_pass

from samples import pairwise
from softprune.token_pruning import cpu_kernels
from softprune.token_pruning.families import Encoder
from softprune.token_pruning.forward import ForwardOutput, forward
from softprune.token_pruning.packing import Packed, pack
from softprune.token_pruning.rules import OFFICIAL, Convention, KeepAll, Rule

pytestmark = pytest.mark.slow


@dataclass(frozen=True, slots=True)
class Both:
    gone: ForwardOutput
    masked: MaskedPass
    batch: Packed


@torch.no_grad()
def both(encoder: Encoder, batch: Packed, rule: Rule, convention: Convention) -> Both:
    return Both(
        forward(encoder, batch, rule, convention), masked_pass(encoder, unpacked(batch), rule, convention), batch
    )


def left_of(masked: MaskedPass, batch: Packed) -> torch.Tensor:
    """The layer after which each token left, from the masks."""
    layers_BN = masked.alive_LBN.sum(0)
    return torch.cat([layers_BN[row, :n] for row, n in enumerate(batch.lengths)])


def assert_same(found: Both, tolerance: float) -> None:
    assert gap(found.gone.logits_BC, found.masked.logits_BC) <= tolerance
    assert found.gone.kept_LB == found.masked.alive_LBN.sum(2).tolist()
    assert torch.equal(found.gone.left_M, left_of(found.masked, found.batch))


@pytest.mark.parametrize(
    ("family", "name", "named", "dtype"), pairwise(FAMILIES, RULES, list(CONVENTIONS), list(TOLERANCES))
)
def test_gone_is_masked(family: str, name: str, named: str, dtype: torch.dtype) -> None:
    convention = CONVENTIONS[named]
    encoder, rule = encoder_of(family, dtype), rule_of(name, convention)
    for count in (1, 2, 12):
        batch = batch_of(mixed(count, seed=count), seed=count)
        found = both(encoder, batch, rule, convention)
        assert_same(found, TOLERANCES[dtype])
        if count == 12:
            assert sum(found.gone.kept_LB[-1]) < 0.97 * sum(batch.lengths)


@pytest.mark.parametrize("family", FAMILIES)
def test_pruning_moves_what_is_compared(family: str) -> None:
    """The control: every text's logits under each rule are far from those of every other rule, and of none."""
    encoder = encoder_of(family, torch.float64)
    batch = batch_of([30, 41, LONGEST])
    rules: list[Rule] = [KeepAll(), *(rule_of(name, OURS) for name in RULES)]
    logits = [both(encoder, batch, rule, OURS).gone.logits_BC for rule in rules]
    for place, one in enumerate(logits):
        for other in logits[:place]:
            for row in range(len(batch)):
                assert gap(one[row], other[row]) > 100 * TOLERANCES[torch.float32]


def test_a_threshold_moved_and_a_token_swapped_are_told_apart() -> None:
    encoder, rule = encoder_of("bert", torch.float64), thresholds(OURS)
    (text,) = texts_of([40])
    wanted = both(encoder, pack([text]), rule, OURS).masked
    with torch.no_grad():
        rule.delta_L[2] += 0.2
    moved = both(encoder, pack([text]), rule, OURS).gone
    assert gap(moved.logits_BC, wanted.logits_BC) > 1e-3
    assert moved.kept_LB != wanted.alive_LBN.sum(2).tolist()
    swapped = [*text[:9], text[10], text[9], *text[11:]]
    assert gap(both(encoder, pack([swapped]), thresholds(OURS), OURS).gone.logits_BC, wanted.logits_BC) > 1e-3


@pytest.mark.parametrize("convention", CONVENTIONS.values(), ids=CONVENTIONS)
def test_a_text_never_loses_all_of_its_tokens(convention: Convention) -> None:
    encoder = encoder_of("bert", torch.float64)
    rule = thresholds(convention, theta_final=1000.0)
    found = both(encoder, batch_of([LONGEST, 1, 2, 30]), rule, convention)
    assert found.gone.kept_LB == [[LONGEST, 1, 2, 30], *[[1, 1, 1, 1]] * (LAYERS - 1)]
    assert_same(found, 1e-12)


@pytest.mark.parametrize("convention", CONVENTIONS.values(), ids=CONVENTIONS)
@pytest.mark.parametrize("name", RULES)
def test_batch_mates_and_order_change_nothing(convention: Convention, name: str) -> None:
    encoder, rule = encoder_of("roberta", torch.float64), rule_of(name, convention)
    texts = texts_of(mixed(5, seed=2), seed=2)
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0)).tolist()
    together = both(encoder, pack(texts), rule, convention).gone
    shuffled = both(encoder, pack([texts[row] for row in order]), rule, convention).gone
    assert gap(shuffled.logits_BC, together.logits_BC[order]) <= 1e-12
    for row, text in enumerate(texts):
        alone = both(encoder, pack([text]), rule, convention).gone
        assert gap(alone.logits_BC[0], together.logits_BC[row]) <= 1e-12
        assert [kept[0] for kept in alone.kept_LB] == [kept[row] for kept in together.kept_LB]
        assert [kept[order.index(row)] for kept in shuffled.kept_LB] == [kept[row] for kept in together.kept_LB]
    assert gap(together.logits_BC[:1], together.logits_BC[1:2]) > 1e-3


@pytest.mark.parametrize(("family", "named", "name"), pairwise(FAMILIES, list(CONVENTIONS), ["none", *RULES]))
def test_the_head_alone_reads_the_same(family: str, named: str, name: str) -> None:
    encoder, convention = encoder_of(family, torch.float64), CONVENTIONS[named]
    rule = KeepAll() if name == "none" else rule_of(name, convention)
    batch = batch_of(mixed(6, seed=8), seed=8)
    with torch.no_grad():
        whole = forward(encoder, batch, rule, convention)
        short = forward(encoder, batch, rule, convention, head_only=True)
    assert gap(short.logits_BC, whole.logits_BC) <= 1e-12
    assert short.kept_LB == [*whole.kept_LB[:-1], [1] * len(batch)]
    assert torch.equal(batch.position_M[short.origin_M], torch.zeros(len(batch), dtype=torch.long))


# --- scores ---


def scores_of(encoder: Encoder, batch: Packed, convention: Convention) -> list[torch.Tensor]:
    rule = Recorder()
    with torch.no_grad():
        forward(encoder, batch, rule, convention)
    return rule.scores


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("divisor", [1.0, 128.0])
def test_attention_without_queries_makes_every_score_one_over_d(family: str, divisor: float) -> None:
    encoder = Encoder(classifier(family, torch.float64, layers=2).__class__(encoder_of(family).config).double().eval())
    with torch.no_grad():
        for layer in encoder.layers:
            layer.query.weight.zero_()
            assert layer.query.bias is not None
            layer.query.bias.zero_()
    batch, convention = batch_of([5, 17, 5, LONGEST]), Convention(divisor)
    with torch.no_grad():
        masked = masked_pass(encoder, unpacked(batch), KeepAll(), convention)
    for score_M, score_BN, alive_BN in zip(
        scores_of(encoder, batch, convention), masked.score_LBN, masked.alive_LBN, strict=True
    ):
        assert gap(score_M, torch.full_like(score_M, 1 / divisor)) <= 1e-14
        assert gap(score_BN[alive_BN], score_M) <= 1e-14
        assert not score_BN[~alive_BN].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_mean_score_is_one_and_scores_differ(family: str) -> None:
    batch = batch_of([LONGEST, 3, 40])
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        scores_LM = scores_of(encoder_of(family, dtype), batch, OURS)
        assert max(float(score_M.std()) for score_M in scores_LM) > 0.1
        for score_M in scores_LM:
            assert score_M.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
            for scores in score_M.split(list(batch.lengths)):
                assert abs(float(scores.mean()) - 1) <= tolerance


def test_a_fallen_first_token_has_no_score_and_no_vote() -> None:
    """Scores of the living add up to one per living token once the first token is pruned."""
    encoder, batch = encoder_of("bert", torch.float64), batch_of(mixed(32, seed=5), seed=5)
    found = both(encoder, batch, rule_of("middle", OFFICIAL), OFFICIAL).masked
    fallen = 0
    for before_BN, score_BN in zip(found.alive_LBN[:-1], found.score_LBN[1:], strict=True):
        mean_B = score_BN.sum(1) / before_BN.sum(1) * OFFICIAL.divisor
        assert gap(mean_B, torch.ones_like(mean_B)) <= 1e-12
        fallen += int((~before_BN[:, 0]).sum())
        assert not score_BN[:, 0][~before_BN[:, 0]].any()
    assert fallen > 0


# --- the soft stage ---


def regulariser(masked: MaskedPass, batch: Packed, rule: object, convention: Convention) -> torch.Tensor:
    """Per text: the sum over layers of the mean soft mask over real, unprotected tokens; from the masked scores."""
    begin = int(convention.protect)
    per_text = []
    for row, length in enumerate(batch.lengths):
        means = [
            rule.soft(layer, masked.score_LBN[layer, row, begin:length]).mean()  # type: ignore[attr-defined]
            for layer in range(1, len(masked.score_LBN))
        ]
        per_text.append(torch.stack(means).sum())
    return torch.stack(per_text)


@pytest.mark.parametrize(("family", "named", "dtype"), pairwise(FAMILIES, list(CONVENTIONS), list(TOLERANCES)))
def test_soft_pass_is_the_masked_one(family: str, named: str, dtype: torch.dtype) -> None:
    convention = CONVENTIONS[named]
    encoder, rule = encoder_of(family, dtype), thresholds(convention)
    batch = batch_of(mixed(9, seed=4), seed=4)
    with torch.no_grad():
        found = forward(encoder, batch, rule, rule.convention, soft=True)
        wanted = masked_pass(encoder, unpacked(batch), rule, convention, soft=True)
        hard = masked_pass(encoder, unpacked(batch), rule, convention)
    assert gap(found.logits_BC, wanted.logits_BC) <= TOLERANCES[dtype]
    assert gap(found.soft_B, regulariser(wanted, batch, rule, convention)) <= TOLERANCES[dtype]
    assert gap(hard.logits_BC, wanted.logits_BC) > 1e-3
    assert found.kept_LB == [list(batch.lengths)] * LAYERS


def test_regulariser_by_hand() -> None:
    """Every score is one: masks are sigmoid((1 - theta) / T) in each of the layers that prune, for every token."""
    encoder = Encoder(classifier("bert", torch.float64, layers=2).__class__(encoder_of("bert").config).double().eval())
    with torch.no_grad():
        for layer in encoder.layers:
            layer.query.weight.zero_()
            layer.query.bias.zero_()
    rule = thresholds(OURS, theta_final=1.0, dtype=torch.float64)  # l / L + delta, T = 0.1
    found = forward(encoder, batch_of([7, 2, 1]), rule, OURS, soft=True).soft_B
    delta_L = torch.tensor([0.11, -0.07, 0.13, 0.05, -0.02], dtype=torch.float64)
    mask = torch.sigmoid((1 - torch.arange(1, LAYERS) / LAYERS - delta_L) / 0.1)
    wanted = torch.stack([mask.sum(), mask.sum(), torch.zeros((), dtype=torch.float64)])  # of one token, all protected
    assert gap(found, wanted) <= 1e-6  # deltas were written in float32


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("convention", CONVENTIONS.values(), ids=CONVENTIONS)
def test_gradients_of_the_soft_stage(family: str, convention: Convention) -> None:
    encoder, rule = encoder_of(family, torch.float64), thresholds(convention, dtype=torch.float64)
    batch = batch_of([24, 25, 23, 11, 2], seed=6)
    weigh_BC = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    of = [rule.delta_L, *trained(encoder)]
    found = forward(encoder, batch, rule, rule.convention, soft=True)
    ours = gradients((found.logits_BC * weigh_BC).sum() + 0.3 * found.soft_B.sum(), of)
    masked = masked_pass(encoder, unpacked(batch), rule, convention, soft=True)
    soft_B = regulariser(masked, batch, rule, convention)
    theirs = gradients((masked.logits_BC * weigh_BC).sum() + 0.3 * soft_B.sum(), of)
    apart = gradients((masked.logits_BC * weigh_BC).sum(), of)
    assert gap(ours[0], theirs[0]) <= 1e-12
    assert_near(ours[1:], theirs[1:], 1e-12)
    assert gap(ours[0][1:], apart[0][1:]) > 1e-3
    assert float(ours[0][0]) == 0  # the first layer has no threshold
    assert bool((ours[0][1:] != 0).all())


@pytest.mark.parametrize("convention", CONVENTIONS.values(), ids=CONVENTIONS)
def test_a_threshold_s_gradient_is_its_slope(convention: Convention) -> None:
    encoder, rule = encoder_of("bert", torch.float64), thresholds(convention, dtype=torch.float64)
    batch = batch_of([20, 13], seed=3)

    def loss() -> torch.Tensor:
        found = forward(encoder, batch, rule, rule.convention, soft=True)
        return found.logits_BC.square().sum() + 0.5 * found.soft_B.sum()

    (slope_L,) = torch.autograd.grad(loss(), [rule.delta_L])
    step = 1e-5 / convention.divisor
    for layer in range(1, LAYERS):
        with torch.no_grad():
            rule.delta_L[layer] += step
            above = float(loss())
            rule.delta_L[layer] -= 2 * step
            below = float(loss())
            rule.delta_L[layer] += step
        assert float(slope_L[layer]) == pytest.approx((above - below) / (2 * step), rel=1e-5)


@pytest.mark.parametrize("convention", CONVENTIONS.values(), ids=CONVENTIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_the_hard_stage(family: str, convention: Convention) -> None:
    """Weights train on with tokens gone, and first tokens that the head alone reads any more."""
    encoder, rule = encoder_of(family, torch.float64), thresholds(convention, dtype=torch.float64)
    batch = batch_of(mixed(8, seed=5), seed=5)
    weigh_BC = torch.randn(8, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    of = [rule.delta_L, *trained(encoder)]
    found = forward(encoder, batch, rule, convention)
    ours = gradients((found.logits_BC * weigh_BC).sum(), of)
    masked = masked_pass(encoder, unpacked(batch), rule, convention)
    assert any(masked.first_falls()) != convention.protect
    theirs = gradients((masked.logits_BC * weigh_BC).sum(), of)
    assert_near(ours[1:], theirs[1:], 1e-12)
    assert not ours[0].any()  # a hard cut has no slope
    unpruned = gradients((forward(encoder, batch, KeepAll(), convention).logits_BC * weigh_BC).sum(), of)
    with pytest.raises(AssertionError):
        assert_near(unpruned[1:], theirs[1:], 1e-3)


def test_dropout_is_on_in_training_alone() -> None:
    model = classifier("bert", torch.float64, layers=2).__class__(encoder_of("bert").config).double()
    encoder, batch = Encoder(model), batch_of([12, 30])
    rule = thresholds(OURS, dtype=torch.float64)
    model.train()
    torch.manual_seed(0)
    drawn = [forward(encoder, batch, rule, rule.convention, soft=True).logits_BC for _ in range(2)]
    assert gap(drawn[0], drawn[1]) > 1e-6
    model.eval()
    calm = [forward(encoder, batch, rule, rule.convention, soft=True).logits_BC for _ in range(2)]
    assert torch.equal(calm[0], calm[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_s_feed_forward_in_one_kernel(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As near to float64 as the module's own, in two steps, is; and only where it is the same function."""
    encoder, truth = encoder_of(family, torch.bfloat16), encoder_of(family, torch.float64)
    batch = batch_of(mixed(9, seed=4), seed=4)
    x_MH = torch.randn(50, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.inference_mode():
        for mine, theirs in zip(encoder.layers, truth.layers, strict=True):
            wide = copy.deepcopy(mine.first).double()
            wanted = theirs.activation(wide(x_MH.double()))
            apart = mine.activation(mine.first(x_MH))
            assert (cpu_kernels.linear(mine.first, x_MH, mine.activation) - wanted).norm() <= 1.05 * (
                apart - wanted
            ).norm()
            assert gap(cpu_kernels.linear(mine.query, x_MH), mine.query(x_MH)) <= 2**-8
        found = forward(encoder, batch, KeepAll(), OURS).logits_BC
        monkeypatch.setattr(cpu_kernels, "has_fused_linear", lambda: False)
        wanted = forward(encoder, batch, KeepAll(), OURS).logits_BC
        assert gap(found, wanted) < 0.1
    first = encoder.layers[0].first
    assert not cpu_kernels.uses_kernel(first, x_MH)
    monkeypatch.setattr(cpu_kernels, "has_fused_linear", lambda: True)
    assert not cpu_kernels.uses_kernel(first, x_MH)  # gradients are asked for
    with torch.inference_mode():
        assert cpu_kernels.uses_kernel(first, x_MH)
        assert not cpu_kernels.uses_kernel(first, x_MH.float())
    assert cpu_kernels.is_exact_gelu(encoder.layers[0].activation)
    assert cpu_kernels.is_exact_gelu(F.gelu)
    assert not cpu_kernels.is_exact_gelu(transformers.activations.ACT2FN["gelu_new"])
