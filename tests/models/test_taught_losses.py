"""What a teacher adds to the loss, held to probabilities by hand and to the model's own forward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from reference import EXAMPLES

from softprune.models.base import Backbone
from softprune.training.teaching import Teacher, divergence
from softprune.types import Batch, Encoded

Backbones = Callable[..., Backbone]
FAMILIES = ("gpt2", "t5", "bert", "sentence")


def vectors(backbone: Backbone, *shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, backbone.info.hidden, generator=generator, dtype=backbone.prompt_dtype)


def far(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def read(backbone: Backbone) -> Batch:
    return backbone.batch(backbone.encode(EXAMPLES, max_length=64, max_answer_length=16))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("score", ["sum", "mean"])
def test_the_loss_over_answers_by_hand(name: str, score: str, backbone_of: Backbones) -> None:
    backbone = backbone_of(name, "float64")
    batch, prompts, teacher = read(backbone), vectors(backbone, 2, 3, seed=3), vectors(backbone, 5, seed=4)
    loss = backbone.check_loss("auto")
    found = Teacher(teacher, 0.3).losses(backbone, prompts, batch, loss, score, [len(EXAMPLES)] * 2).view(2, -1)
    labelled = backbone.losses(prompts, batch, loss, score)
    given, wanted = backbone.scores(prompts, batch, score), backbone.scores(teacher[None], batch, score)[0]
    by_hand = torch.empty_like(labelled)
    for k in range(2):
        for b, item in enumerate(EXAMPLES):
            p = wanted[b, : len(item.answers)].softmax(0)
            q = given[k, b, : len(item.answers)].softmax(0)
            by_hand[k, b] = 0.7 * labelled[k, b] + 0.3 * float((p * (p / q).log()).sum())
    assert far(found, by_hand) <= 1e-6
    other = Teacher(teacher, 0.31).losses(backbone, prompts, batch, loss, score, [len(EXAMPLES)] * 2).view(2, -1)
    assert far(other, by_hand) > 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_a_row_without_a_label_has_the_teacher_alone(name: str, backbone_of: Backbones) -> None:
    backbone = backbone_of(name, "float64")
    batch, prompts, teacher = read(backbone), vectors(backbone, 1, 3, seed=3), vectors(backbone, 5, seed=4)
    count = [len(EXAMPLES)]
    loss = backbone.check_loss("auto")
    whole = Teacher(teacher, 1).losses(backbone, prompts, batch, loss, "sum", count)
    mixed = Teacher(teacher, 0.25).losses(backbone, prompts, batch, loss, "sum", count)
    gold = batch.gold.clone()
    gold[0] = -1
    found = Teacher(teacher, 0.25).losses(backbone, prompts, replace(batch, gold=gold), loss, "sum", count)
    assert far(found[0], 0.25 * whole[0]) <= 1e-9
    assert far(found[1:], mixed[1:]) <= 1e-9
    assert far(mixed[0], 0.25 * whole[0]) > 1e-3


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_the_loss_over_next_tokens_by_the_models_own_forward(name: str, backbone_of: Backbones) -> None:
    backbone = backbone_of(name, "float64")
    texts = [replace(item, answers=item.answers[:1], gold=0) for item in EXAMPLES]
    encoded = backbone.encode(texts, max_length=64, max_answer_length=16)
    prompts, teacher = vectors(backbone, 2, 3, seed=3), vectors(backbone, 5, seed=4)
    counts = [len(encoded)] * 2
    found = Teacher(teacher, 1).losses(backbone, prompts, backbone.batch(encoded), "likelihood", "sum", counts)
    found = found.view(2, -1)

    def by_hand(prompt: torch.Tensor, text: Encoded) -> torch.Tensor:
        wanted = backbone.read_plainly(teacher, text).log_softmax(-1)
        given = backbone.read_plainly(prompt, text).log_softmax(-1)
        return (wanted.exp() * (wanted - given)).sum(-1).mean()

    wanted = torch.stack([torch.stack([by_hand(prompt, text) for text in encoded]) for prompt in prompts])
    assert far(found, wanted) <= 1e-6
    assert far(found, wanted.flip(0)) > 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_has_nothing_to_learn_from_itself(name: str, backbone_of: Backbones) -> None:
    backbone = backbone_of(name, "float64")
    batch, prompt = read(backbone), vectors(backbone, 1, 3, seed=3).requires_grad_()
    losses = {}
    for which, teacher in (("itself", prompt.detach()[0]), ("other", vectors(backbone, 3, seed=4))):
        found = Teacher(teacher, 1).losses(backbone, prompt, batch, "rank", "sum", [len(EXAMPLES)])
        (gradient,) = torch.autograd.grad(found.sum(), prompt)
        losses[which] = float(found.detach().abs().max()), float(gradient.abs().max())
    assert losses["itself"][0] <= 1e-9 * losses["other"][0]
    assert losses["itself"][1] <= 1e-6 * losses["other"][1]


@pytest.mark.parametrize("name", FAMILIES)
def test_prompts_with_rows_of_their_own_are_taught_alike(name: str, backbone_of: Backbones) -> None:
    backbone = backbone_of(name, "float64")
    prompts, teacher = vectors(backbone, 2, 3, seed=3), Teacher(vectors(backbone, 5, seed=4), 0.5)
    encoded = backbone.encode(EXAMPLES, max_length=64, max_answer_length=16)
    loss, half = backbone.check_loss("auto"), len(encoded) // 2
    found = teacher.losses(backbone, prompts, backbone.batch(encoded), loss, "sum", [half, len(encoded) - half])
    parts = [(prompts[:1], encoded[:half]), (prompts[1:], encoded[half:])]
    apart = [teacher.losses(backbone, one, backbone.batch(rows), loss, "sum", [len(rows)]) for one, rows in parts]
    assert far(found, torch.cat(apart)) <= 1e-6
    assert far(found, torch.cat(apart).flip(0)) > 1e-4


def test_the_divergence_leaves_out_answers_that_are_none() -> None:
    wanted = torch.tensor([[0.25, 0.75, 0.0]]).log()
    given = torch.tensor([[0.5, 0.5, 0.0]]).log()
    by_hand = 0.25 * torch.tensor(0.5).log() + 0.75 * torch.tensor(1.5).log()
    assert far(divergence(wanted, given), by_hand[None]) <= 1e-6
    assert far(divergence(given, wanted), by_hand[None]) > 1e-2
