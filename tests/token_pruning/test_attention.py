"""Attention of packed texts: by hand, against plain softmax and its gradients, and in bfloat16."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from encoders import gap

from softprune.token_pruning.attention import AttentionOutput, attend
from softprune.token_pruning.packing import Bucket, make_buckets

CPU = torch.device("cpu")
# In one piece, alone, and padded together: 13 and 12 share a bucket, so do 6, 6 and 5, which lie apart.
LENGTHS = (6, 13, 1, 12, 6, 30, 5)


def read(
    size: int, dtype: torch.dtype = torch.float64, width: int = 8, seed: int = 0, sharp: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, size, width, generator=generator, dtype=torch.float64)
    return (sharp * q).to(dtype), k.to(dtype), v.to(dtype)


def plain(
    q_MH: torch.Tensor, k_MH: torch.Tensor, v_MH: torch.Tensor, lengths: Sequence[int], heads: int
) -> AttentionOutput:
    """Text by text, in the inputs' dtype."""
    contexts, scores = [], []
    for q, k, v in zip(*(x.split(list(lengths)) for x in (q_MH, k_MH, v_MH)), strict=True):
        qh, kh, vh = (x.unflatten(-1, (heads, -1)).transpose(0, 1) for x in (q, k, v))
        p = ((qh / math.sqrt(qh.shape[-1])) @ kh.transpose(-1, -2)).softmax(-1)
        contexts.append((p @ vh).transpose(0, 1).flatten(1))
        scores.append(p.to(torch.promote_types(p.dtype, torch.float32)).sum((0, 1)) / heads)
    return AttentionOutput(torch.cat(contexts), torch.cat(scores))


def test_score_and_context_by_hand() -> None:
    """One head of width one, two tokens: q = (1, 2), k = (0, ln 3), v = (1, 5)."""
    q, k, v = (torch.tensor(x, dtype=torch.float64)[:, None] for x in ([1.0, 2.0], [0.0, math.log(3)], [1.0, 5.0]))
    found = attend(q, k, v, make_buckets([2], CPU), 1, scored=True)
    # Odds of the second token over the first: 3 for the first query, 9 for the second.
    assert found.score_M is not None
    assert found.score_M.tolist() == pytest.approx([1 / 4 + 1 / 10, 3 / 4 + 9 / 10])
    assert found.context_MH[:, 0].tolist() == pytest.approx([1 / 4 + 15 / 4, 1 / 10 + 45 / 10])


@pytest.mark.parametrize("waste", [0.0, 0.12, 100.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
@pytest.mark.parametrize("graph", [False, True])
def test_all_ways_of_reading_agree(waste: float, dtype: torch.dtype, tolerance: float, graph: bool) -> None:
    size = sum(LENGTHS)
    q, k, v = read(size, dtype, sharp=2.0)
    groups = make_buckets(LENGTHS, CPU, waste)
    wanted = plain(q, k, v, LENGTHS, 2)
    with torch.set_grad_enabled(graph):
        scored = attend(q, k, v, groups, 2, scored=True)
        fused = attend(q, k, v, groups, 2, scored=False)
        dropped = attend(q, k, v, groups, 2, scored=True, dropout=1e-30)  # plain autograd's way
    assert fused.score_M is None
    assert wanted.score_M is not None
    for found in (scored, dropped):
        assert found.score_M is not None
        assert gap(found.score_M, wanted.score_M) <= tolerance
    for found in (scored, fused, dropped):
        assert gap(found.context_MH, wanted.context_MH) <= tolerance
    other = plain(q, k, v, (*LENGTHS[:-1], 4, 1), 2)
    assert other.score_M is not None
    assert gap(other.score_M, wanted.score_M) > 100 * tolerance
    assert gap(other.context_MH, wanted.context_MH) > 100 * tolerance


def gradients(found: AttentionOutput, of: Sequence[torch.Tensor], by_score: bool) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(9)
    weigh = torch.randn(found.context_MH.shape, generator=generator, dtype=torch.float64)
    loss = (found.context_MH * weigh).sum()
    if by_score:
        assert found.score_M is not None
        loss = loss + (found.score_M * torch.randn(len(weigh), generator=generator, dtype=torch.float64)).sum()
    return torch.autograd.grad(loss, of, retain_graph=True)


@pytest.mark.parametrize("waste", [0.0, 0.12, 100.0])
@pytest.mark.parametrize("scored", [True, False])
def test_gradients_are_those_of_autograd(waste: float, scored: bool) -> None:
    size = sum(LENGTHS)
    of = [x.requires_grad_() for x in read(size, sharp=2.0)]
    found = attend(*of, make_buckets(LENGTHS, CPU, waste), 2, scored=scored)
    reference = plain(*of, LENGTHS, 2)
    wanted = gradients(reference, of, by_score=scored)
    for mine, theirs in zip(gradients(found, of, by_score=scored), wanted, strict=True):
        assert gap(mine, theirs) <= 1e-12
    # The control: without importance's part, queries and keys have another gradient.
    for one, other in zip(wanted[:2], gradients(reference, of, by_score=not scored)[:2], strict=True):
        assert gap(one, other) > 1e-2


def test_gradcheck() -> None:
    lengths = (4, 1, 3, 4)
    of = [x.requires_grad_() for x in read(sum(lengths), width=4)]
    groups = make_buckets(lengths, CPU, 100.0)

    def both(*x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = attend(*x, groups, 2, scored=True)
        assert found.score_M is not None
        return found.context_MH, found.score_M

    assert torch.autograd.gradcheck(both, of)


def test_two_readings_before_going_back() -> None:
    """Buffers are used again: what the first read needs on its way back must not lie in them."""
    of = [x.requires_grad_() for x in read(20)]
    others = [x.requires_grad_() for x in read(30, seed=1)]
    first = attend(*of, make_buckets([20], CPU), 2, scored=True)
    kept = first.context_MH.detach().clone()
    second = attend(*others, make_buckets([18, 12], CPU), 2, scored=True)
    assert torch.equal(first.context_MH, kept)
    for found, inputs, lengths in ((first, of, [20]), (second, others, [18, 12])):
        for mine, theirs in zip(
            gradients(found, inputs, True), gradients(plain(*inputs, lengths, 2), inputs, True), strict=True
        ):
            assert gap(mine, theirs) <= 1e-12


def test_dropout_has_its_mean_and_leaves_scores_alone() -> None:
    q, k, v = read(40)
    groups = make_buckets([40], CPU)
    torch.manual_seed(0)
    drawn = [attend(q, k, v, groups, 2, scored=True, dropout=0.2) for _ in range(2000)]
    wanted = plain(q, k, v, [40], 2)
    assert wanted.score_M is not None
    mean = torch.stack([one.context_MH for one in drawn]).mean(0)
    assert gap(mean, wanted.context_MH) < 0.03
    assert gap(drawn[0].context_MH, wanted.context_MH) > 0.1
    assert drawn[0].score_M is not None
    assert gap(drawn[0].score_M, wanted.score_M) <= 1e-13


# --- bfloat16 ---


@pytest.mark.parametrize("lengths", [(263,), (40, 39, 41, 38), (500,)], ids=str)
@pytest.mark.parametrize("sharp", [0.5, 2.0])
def test_bfloat16_is_as_near_as_plain_attention(lengths: Sequence[int], sharp: float) -> None:
    """Both against float64 on the same numbers."""
    of = read(sum(lengths), torch.bfloat16, width=12 * 32, sharp=sharp)
    truth = plain(*(x.double() for x in of), lengths, 12)
    theirs = plain(*of, lengths, 12)
    with torch.no_grad():
        for scored in (True, False):
            ours = attend(*of, make_buckets(lengths, CPU), 12, scored=scored)
            error = (ours.context_MH.double() - truth.context_MH).norm()
            assert error <= 2 * (theirs.context_MH.double() - truth.context_MH).norm()
            assert error < 0.02 * truth.context_MH.norm()


@pytest.mark.parametrize("lengths", [(263,), (40, 39, 41, 38), (500,)], ids=str)
@pytest.mark.parametrize("sharp", [0.5, 2.0])
def test_bfloat16_s_scores_are_within_a_tenth_of_a_temperature(lengths: Sequence[int], sharp: float) -> None:
    """The smallest temperature is 1e-4 in official units; what counts is near a threshold, and these are about one.

    Typical errors stay below a tenth of it, the worst of hundreds below a quarter. Half of that is the logits'.
    """
    q, k, v = read(sum(lengths), torch.bfloat16, width=12 * 32, sharp=sharp)
    truth = plain(q.double(), k.double(), v.double(), lengths, 12).score_M
    with torch.no_grad():
        found = attend(q, k, v, make_buckets(lengths, CPU), 12, scored=True).score_M
    assert found is not None
    assert truth is not None
    assert found.dtype == torch.float32
    near = (truth > 0.3) & (truth < 1.7)
    assert int(near.sum()) > 0.5 * len(near)
    error_M = (found.double() - truth)[near].abs()
    assert float(error_M.square().mean().sqrt()) < 1e-4 * 128 / 10
    assert float(error_M.max()) < 1e-4 * 128 / 4
    if max(lengths) <= 128:  # summed exactly, or nearly: as near as plain attention's sums in float32
        plainly = plain(q, k, v, lengths, 12).score_M
        assert plainly is not None
        theirs = (plainly.double() - truth)[near].square().mean().sqrt()
        assert float(error_M.square().mean().sqrt()) <= 1.3 * float(theirs) + 1e-4 * 128 / 50


@pytest.mark.parametrize("sharp", [0.5, 2.0])
def test_bfloat16_s_gradients_are_as_near_as_autograd_s(sharp: float) -> None:
    lengths = (200, 40, 39)
    of = [x.requires_grad_() for x in read(sum(lengths), torch.bfloat16, width=4 * 32, sharp=sharp)]
    wide = [x.detach().double().requires_grad_() for x in of]
    truth = gradients(plain(*wide, lengths, 4), wide, True)
    theirs = gradients(plain(*of, lengths, 4), of, True)
    ours = gradients(attend(*of, make_buckets(lengths, CPU), 4, scored=True), of, True)
    for mine, other, wanted in zip(ours, theirs, truth, strict=True):
        assert (mine.double() - wanted).norm() <= 2 * (other.double() - wanted).norm()


def test_buckets_hold_what_the_tests_above_mean() -> None:
    groups: list[Bucket] = make_buckets(LENGTHS, CPU)
    assert sorted(row for group in groups for row in group.rows) == list(range(len(LENGTHS)))
    assert any(group.index_BN is not None and group.valid_BN is not None for group in groups)
    assert any(group.index_BN is None and group.begin > 0 for group in groups)


def test_training_goes_on_behind_inference() -> None:
    """Buffers made in inference mode could not be written to outside of it."""
    q, k, v = read(700)  # larger than what the other tests leave
    groups = make_buckets([700], CPU)
    with torch.inference_mode():
        attend(q, k, v, groups, 2, scored=True)
    of = [x.requires_grad_() for x in read(700)]
    for mine, theirs in zip(
        gradients(attend(*of, groups, 2, scored=True), of, True),
        gradients(plain(*of, [700], 2), of, True),
        strict=True,
    ):
        assert gap(mine, theirs) <= 1e-12
