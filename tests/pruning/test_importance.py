"""Importance against its definition: one example at a time, with the mask variables written out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from toys import distance, drawn, mask_of, scoring_of, task_of

from softprune.config.criteria import CRITERIA
from softprune.models.base import Backbone
from softprune.prompts.soft_prompts import masked_state, read_one
from softprune.pruning.criteria import gradient, leave_one_out, paper
from softprune.pruning.criteria.base import VANISHING, Importance, example_gradients
from softprune.pruning.importance import measure
from softprune.training.scoring import ScoredSet, Scoring

Backbones = Callable[..., Backbone]
FAMILIES = ("t5", "gpt2", "bert", "sentence")
P, S = 4, 4


def prompt_of(backbone: Backbone, tokens: str = "1111", removal: str = "zero") -> torch.Tensor:
    """What the backbone reads of a random prompt with some tokens pruned, `[Q, H]`."""
    vectors = drawn(P, backbone.info.hidden, seed=3, dtype=backbone.prompt_dtype)
    mask = mask_of(tokens, S)
    whole = replace(mask, piece_PS=mask.token_P[:, None].expand(-1, S).clone())
    return read_one(masked_state(vectors, whole), removal)


def one_by_one(
    backbone: Backbone, prompt_QH: torch.Tensor, data: ScoredSet, scoring: Scoring
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Equations 3 and 5 as written, and, for contrast, both with the absolute value outside the expectation."""
    tokens, hidden = prompt_QH.shape
    gammas, zetas = [], []
    for b in range(len(data)):
        gamma_Q = torch.ones(tokens, dtype=prompt_QH.dtype, requires_grad=True)
        zeta_QS = torch.ones(tokens, S, dtype=prompt_QH.dtype, requires_grad=True)
        masked = prompt_QH * gamma_Q[:, None] * zeta_QS.repeat_interleave(hidden // S, dim=1)
        backbone.losses(masked[None], data.batch(backbone, [b]), scoring.loss, scoring.score)[0, 0].backward()
        assert gamma_Q.grad is not None
        assert zeta_QS.grad is not None
        gammas.append(gamma_Q.grad.double())
        zetas.append(zeta_QS.grad.double())
    gamma_BQ, zeta_BQS = torch.stack(gammas), torch.stack(zetas)
    return gamma_BQ.abs().mean(0), zeta_BQS.abs().mean(0), gamma_BQ.mean(0).abs(), zeta_BQS.mean(0).abs()


@pytest.mark.parametrize("removal", ["zero", "drop"])
@pytest.mark.parametrize("model", FAMILIES)
def test_the_papers_importance_is_equations_3_and_5(model: str, removal: str, backbone_of: Backbones) -> None:
    backbone = backbone_of(model)
    data, scoring = task_of(backbone), scoring_of(backbone)
    for tokens in ("1111", "1011"):
        prompt = prompt_of(backbone, tokens, removal)
        found = paper.measure(backbone, prompt, data, scoring, S)
        token_Q, piece_QS, batch_token_Q, batch_piece_QS = one_by_one(backbone, prompt, data, scoring)
        assert distance(found.token_P, token_Q) <= 1e-5
        assert distance(found.piece_PS, piece_QS) <= 1e-5
        assert distance(batch_token_Q, token_Q) > 1e-3, "a batch gradient's magnitude would do as well"
        assert distance(batch_piece_QS, piece_QS) > 1e-3
        assert (found.method, found.examples) == ("paper", len(data))
        if tokens == "1011" and removal == "zero":
            assert found.token_P[1] == 0
            assert (found.piece_PS[1] == 0).all()
        else:
            assert (found.token_P > 0).all()
            assert (found.piece_PS > 0).all()


def test_pieces_after_token_pruning_are_measured_anew(backbone_of: Backbones) -> None:
    """Why piece importance is computed again: the token-pruned prompt's is another."""
    backbone = backbone_of("t5")
    data, scoring = task_of(backbone), scoring_of(backbone)
    whole = paper.measure(backbone, prompt_of(backbone), data, scoring, S).piece_PS[[0, 2, 3]]
    for removal, rows in (("zero", [0, 2, 3]), ("drop", [0, 1, 2])):
        found = paper.measure(backbone, prompt_of(backbone, "1011", removal), data, scoring, S)
        assert distance(found.piece_PS[rows], whole) > 1e-2


@pytest.mark.parametrize("loss", ["likelihood", "rank"])
def test_importance_uses_the_runs_loss(loss: str, backbone_of: Backbones) -> None:
    backbone = backbone_of("gpt2")
    data, prompt = task_of(backbone), prompt_of(backbone)
    scoring = replace(scoring_of(backbone), loss=loss)
    other = replace(scoring, loss="rank" if loss == "likelihood" else "likelihood")
    wanted = one_by_one(backbone, prompt, data, scoring)[0]
    assert distance(paper.measure(backbone, prompt, data, scoring, S).token_P, wanted) <= 1e-5
    assert distance(paper.measure(backbone, prompt, data, other, S).token_P, wanted) > 1e-3


def test_batches_do_not_matter(backbone_of: Backbones) -> None:
    backbone = backbone_of("t5", "float64")
    data, prompt = task_of(backbone), prompt_of(backbone)
    for method in CRITERIA:
        one, all_ = (measure(backbone, prompt, data, scoring_of(backbone, rows), S, method) for rows in (1, 64))
        assert distance(one.token_P, all_.token_P) <= 1e-12
        assert distance(one.piece_PS, all_.piece_PS) <= 1e-12


@pytest.mark.parametrize("model", FAMILIES)
def test_gradient_importance_is_the_mean_magnitude(model: str, backbone_of: Backbones) -> None:
    backbone = backbone_of(model)
    data, scoring, prompt = task_of(backbone), scoring_of(backbone), prompt_of(backbone)
    found = gradient.measure(backbone, prompt, data, scoring, S)
    gradients = []
    for b in range(len(data)):
        leaf = prompt.clone().requires_grad_()
        backbone.losses(leaf[None], data.batch(backbone, [b]), scoring.loss, scoring.score).sum().backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad.double())
    gradient_BPH = torch.stack(gradients)
    pieces_BPS = gradient_BPH.unflatten(-1, (S, -1))
    assert distance(found.token_P, gradient_BPH.abs().mean((0, 2))) <= 1e-5
    assert distance(found.piece_PS, pieces_BPS.abs().mean((0, 3))) <= 1e-5
    assert distance(gradient_BPH.mean(0).abs().mean(1), gradient_BPH.abs().mean((0, 2))) > 1e-3
    ours, at = example_gradients(backbone, prompt, data, tuple(range(len(data))), scoring)
    assert distance(ours, gradient_BPH) <= 1e-5
    assert torch.equal(at, prompt.expand_as(at))


@pytest.mark.parametrize("model", FAMILIES)
def test_leave_one_out_is_the_loss_without_minus_with(model: str, backbone_of: Backbones) -> None:
    backbone = backbone_of(model, "float64")
    data, scoring, prompt = task_of(backbone), scoring_of(backbone), prompt_of(backbone)
    found = leave_one_out.measure(backbone, prompt, data, scoring, S)
    batch = data.batch(backbone, range(len(data)))

    def loss_of(vectors: torch.Tensor) -> float:
        with torch.no_grad():
            return float(backbone.losses(vectors[None], batch, scoring.loss, scoring.score).mean())

    base, width = loss_of(prompt), prompt.shape[1] // S
    for i in range(P):
        without = prompt.clone()
        without[i] = 0.0
        assert float(found.token_P[i]) == pytest.approx(loss_of(without) - base, rel=1e-8, abs=1e-10)
        for s in range(S):
            without = prompt.clone()
            without[i, s * width : (s + 1) * width] = 0.0
            assert float(found.piece_PS[i, s]) == pytest.approx(loss_of(without) - base, rel=1e-8, abs=1e-10)
    assert float(found.token_P.abs().min()) > 1e-6
    assert distance(found.token_P.flip(0), found.token_P) > 1e-3


def ratio_of(found: Importance) -> float:
    return float(found.token_P.max() / found.piece_PS.max())


def test_where_embeddings_are_normalised_token_scores_vanish_and_auto_turns_to_leave_one_out(
    backbone_of: Backbones,
) -> None:
    """BLOOM: LN(gamma p) = LN(p)."""
    backbone = backbone_of("bloom")
    data, scoring, prompt = task_of(backbone), scoring_of(backbone), prompt_of(backbone)
    asked = measure(backbone, prompt, data, scoring, S, "paper")
    assert asked.vanishes
    assert ratio_of(asked) < VANISHING
    assert asked.method == "paper", "what is asked for is done, with a warning"
    auto = measure(backbone, prompt, data, scoring, S, "auto")
    assert auto.method == "leave_one_out"
    assert auto.token_over_piece == asked.token_over_piece, "the reason is kept"
    assert torch.equal(auto.token_P, leave_one_out.measure(backbone, prompt, data, scoring, S).token_P)
    assert ratio_of(auto) > VANISHING, "leave-one-out measures what equation 3 can't"
    for name, criterion in CRITERIA.items():
        assert measure(backbone, prompt, data, scoring, S, name).vanishes == criterion.scales, name


@pytest.mark.parametrize("model", ["t5", "bart", "gpt2", "llama", "bert", "sentence"])
def test_elsewhere_auto_is_the_papers(model: str, backbone_of: Backbones) -> None:
    backbone = backbone_of(model)
    data, scoring, prompt = task_of(backbone), scoring_of(backbone), prompt_of(backbone)
    auto = measure(backbone, prompt, data, scoring, S, "auto")
    assert not auto.vanishes
    assert auto.method == "paper"
    assert auto.token_over_piece == ratio_of(auto)
    assert torch.equal(auto.token_P, paper.measure(backbone, prompt, data, scoring, S).token_P)


def test_nothing_at_all_vanishes() -> None:
    assert Importance(torch.zeros(2), torch.zeros(2, 2), "paper", 1).vanishes
