"""The criteria that a recipe can name: rivals of the paper's against their equations, and how one is added."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from pkgutil import iter_modules
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file
from toys import distance, drawn, scoring_of, task_of
from whole_runs import Models, execute_one

from softprune.config import resolve
from softprune.config.criteria import CRITERIA, Criterion
from softprune.config.schema import PruningConfig
from softprune.models.base import Backbone
from softprune.prompts.ticket import Ticket
from softprune.pruning import criteria
from softprune.pruning.criteria import fisher, norm, paper, random, taylor
from softprune.pruning.importance import measure
from softprune.pruning.masks import piece_mask, random_mask, token_mask, whole_tokens
from softprune.report import write_report
from softprune.training.scoring import ScoredSet, Scoring

Backbones = Callable[..., Backbone]
FAMILIES = ("t5", "gpt2", "bert", "sentence")
P, S = 4, 4


def prompt_of(backbone: Backbone, tokens: int = P) -> torch.Tensor:
    return drawn(tokens, backbone.info.hidden, seed=3, dtype=backbone.prompt_dtype)


def slopes(
    backbone: Backbone, prompt_QH: torch.Tensor, data: ScoredSet, scoring: Scoring
) -> tuple[torch.Tensor, torch.Tensor]:
    """Every example's derivatives to gamma `[B, Q]` and zeta `[B, Q, S]`, by autograd on the mask written out."""
    tokens, hidden = prompt_QH.shape
    gammas, zetas = [], []
    for b in range(len(data)):
        gamma_Q = torch.ones(tokens, dtype=prompt_QH.dtype, requires_grad=True)
        zeta_QS = torch.ones(tokens, S, dtype=prompt_QH.dtype, requires_grad=True)
        masked = prompt_QH * gamma_Q[:, None] * zeta_QS.repeat_interleave(hidden // S, dim=1)
        loss = backbone.losses(masked[None], data.batch(backbone, [b]), scoring.loss, scoring.score)[0, 0]
        for found, gradient in zip((gammas, zetas), torch.autograd.grad(loss, (gamma_Q, zeta_QS)), strict=True):
            found.append(gradient)
    return torch.stack(gammas), torch.stack(zetas)


@pytest.mark.parametrize("model", FAMILIES)
def test_taylor_is_the_square_of_the_mean_slope(model: str, backbone_of: Backbones) -> None:
    backbone = backbone_of(model, "float64")
    data, scoring, prompt = task_of(backbone), scoring_of(backbone), prompt_of(backbone)
    found = taylor.measure(backbone, prompt, data, scoring, S)
    for scores, slope in zip((found.token_P, found.piece_PS), slopes(backbone, prompt, data, scoring), strict=True):
        assert distance(scores, slope.mean(0).square()) <= 1e-9
        assert distance(scores, slope.square().mean(0)) > 1e-3, "squares of examples would do as well"
    assert (found.method, found.examples) == ("taylor", len(data))


@pytest.mark.parametrize("model", FAMILIES)
def test_fisher_is_half_the_mean_square_of_the_slopes(model: str, backbone_of: Backbones) -> None:
    backbone = backbone_of(model, "float64")
    data, scoring, prompt = task_of(backbone), scoring_of(backbone), prompt_of(backbone)
    found = fisher.measure(backbone, prompt, data, scoring, S)
    for scores, slope in zip((found.token_P, found.piece_PS), slopes(backbone, prompt, data, scoring), strict=True):
        assert distance(scores, slope.square().mean(0) / 2) <= 1e-9
        assert distance(scores, slope.square().mean(0)) > 1e-3, "the half doesn't matter"
        assert distance(scores, slope.mean(0).square() / 2) > 1e-3, "the square of a batch's slope would do as well"
    assert (found.method, found.examples) == ("fisher", len(data))


def test_near_zero_taylor_is_what_masking_a_token_does(backbone_of: Backbones) -> None:
    """Its source: the square of the change of the loss to first order, so exact for small tokens."""
    backbone = backbone_of("gpt2", "float64")
    data, scoring = task_of(backbone), scoring_of(backbone)
    for size, tolerance in ((1e-4, 1e-2), (3.0, None)):
        prompt = size * prompt_of(backbone)
        first = taylor.measure(backbone, prompt, data, scoring, 1).token_P
        exact = measure(backbone, prompt, data, scoring, 1, "leave_one_out").token_P.square()
        if tolerance is None:
            assert distance(first, exact) > 1e-1, "any size of tokens would do"
        else:
            assert distance(first, exact) <= tolerance


def test_norm_is_the_length_of_the_vectors(backbone_of: Backbones) -> None:
    backbone = backbone_of("sentence")
    prompt = torch.zeros(2, 8)
    prompt[0, 0], prompt[0, 7], prompt[1, 3] = 3.0, -4.0, 2.0
    found = norm.measure(backbone, prompt, task_of(backbone), scoring_of(backbone), 4)
    assert found.token_P.tolist() == [5.0, 2.0]
    assert found.piece_PS.tolist() == [[3.0, 0.0, 0.0, 4.0], [0.0, 2.0, 0.0, 0.0]]


def test_random_scores_are_the_seeds(backbone_of: Backbones) -> None:
    backbone = backbone_of("sentence")
    data, scoring, prompt = task_of(backbone), scoring_of(backbone), prompt_of(backbone, 20)
    first, again = (random.measure(backbone, prompt, data, scoring, S) for _ in range(2))
    other = random.measure(backbone, prompt, data, replace(scoring, seed=1), S)
    for name in ("token_P", "piece_PS"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert distance(getattr(other, name), getattr(first, name)) > 1e-1
        assert getattr(first, name).min() >= 0
        assert getattr(first, name).max() < 1
        assert len(getattr(first, name).unique()) == getattr(first, name).numel()


@pytest.mark.parametrize("seed", range(5))
def test_a_random_criterion_is_not_the_random_mask_of_a_report(seed: int, backbone_of: Backbones) -> None:
    backbone = backbone_of("sentence")
    scoring = replace(scoring_of(backbone), seed=seed)
    scores = random.measure(backbone, prompt_of(backbone, 20), task_of(backbone), scoring, S)
    chosen_P = token_mask(scores.token_P, 0.5)
    assert not torch.equal(random_mask(whole_tokens(chosen_P, S), seed).token_P, chosen_P)


def test_every_criterion_is_measured_under_its_name(backbone_of: Backbones) -> None:
    backbone = backbone_of("sentence")
    data, scoring, prompt = task_of(backbone), scoring_of(backbone), prompt_of(backbone)
    for name, criterion in CRITERIA.items():
        assert resolve([f"pruning.importance={name}"]).pruning.importance == name
        found = measure(backbone, prompt, data, scoring, S, name)
        reads = criterion.reads in ("gradients", "losses")
        assert found.method == name
        assert (found.token_P.shape, found.piece_PS.shape) == ((P,), (P, S))
        assert (found.token_P.dtype, found.piece_PS.dtype) == (torch.float64, torch.float64)
        assert found.examples == (len(data) if reads else 0)
        assert (criterion.passes(P, S) > 0) == reads
    assert CRITERIA["leave_one_out"].passes(P, S) == 1 + P + P * S


def test_no_two_criteria_rank_alike(backbone_of: Backbones) -> None:
    backbone = backbone_of("gpt2", "float64")
    data, scoring, prompt = task_of(backbone), scoring_of(backbone), prompt_of(backbone, 20)
    found = [measure(backbone, prompt, data, scoring, S, name) for name in CRITERIA]
    ranks = {tuple(each.token_P.argsort().tolist()) for each in found}
    assert len(ranks) == len(CRITERIA)
    twice = paper.measure(backbone, 2 * prompt, data, scoring, S), paper.measure(backbone, 2 * prompt, data, scoring, S)
    assert len({tuple(each.token_P.argsort().tolist()) for each in twice}) == 1


# --- in a run ---


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("name", "removal"), [("taylor", "zero"), ("fisher", "drop"), ("random", "drop")])
def test_a_run_prunes_by_it_and_says_so(
    name: str, removal: str, tmp_path: Path, tiny_models: Models, task_file: Path
) -> None:
    keys = (f"pruning.importance={name}", f"pruning.removal={removal}", "search.strategy=grid", "selection.seeds=0")
    changes = (*keys, "tuning.epochs=1", "search.epochs=1", "search.token_ratios=0.5", "search.piece_ratios=0.5")
    run = execute_one(tiny_models("sentence"), task_file, tmp_path / "run", *changes)
    winner = Ticket.load(run.out / "ticket")
    scores = load_file(run.out / "importance.safetensors")
    token_P = token_mask(scores["token_P"], 0.5)
    assert torch.equal(winner.state.mask.token_P, token_P)
    assert torch.equal(winner.state.mask.piece_PS, piece_mask(scores["winner_piece_PS"], token_P, 0.5))
    assert not torch.equal(winner.state.mask.token_P, token_mask(-scores["token_P"], 0.5))
    assert run.info["importance"]["method"] == name
    assert not [note for note in run.info["notes"] if "vanishes" in note]

    assert CRITERIA[name].gloss in unescape(write_report(run.out).read_text())

    again = execute_one(tiny_models("sentence"), task_file, tmp_path / "again", *changes)
    assert torch.equal(load_file(again.out / "importance.safetensors")["token_P"], scores["token_P"])
    other = execute_one(tiny_models("sentence"), task_file, tmp_path / "other", *changes, "seed=1")
    assert distance(load_file(other.out / "importance.safetensors")["token_P"], scores["token_P"]) > 1e-3


# --- adding one ---


def test_a_criterion_is_a_module_and_an_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone_of: Backbones
) -> None:
    modules = {module.name for module in iter_modules(criteria.__path__)} - {"base"}
    assert modules == set(CRITERIA)
    assert set(get_args(PruningConfig.model_fields["importance"].annotation)) == {"auto", *CRITERIA}

    (tmp_path / "mean_value.py").write_text(
        "from softprune.pruning.criteria.base import Importance\n"
        "def measure(backbone, prompt_QH, data, scoring, pieces):\n"
        "    pieces_QS = prompt_QH.double().unflatten(-1, (pieces, -1)).abs().mean(-1)\n"
        "    return Importance(pieces_QS.mean(-1), pieces_QS, 'mean_value', 0)\n"
    )
    monkeypatch.setattr(criteria, "__path__", [*criteria.__path__, str(tmp_path)])
    monkeypatch.setitem(CRITERIA, "mean_value", Criterion("a", "b", "c", reads="vectors"))
    backbone = backbone_of("sentence")
    prompt = prompt_of(backbone)
    found = measure(backbone, prompt, task_of(backbone), scoring_of(backbone), S, "mean_value")
    assert distance(found.token_P, prompt.abs().mean(1)) <= 1e-5
    assert distance(found.token_P, prompt.norm(dim=1)) > 1e-1
    assert not found.vanishes
