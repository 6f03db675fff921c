"""The two losses by hand, what they cost, and that nothing but the prompt ever learns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from reference import EXAMPLES

from models import names_of
from softprune.errors import SoftpruneError
from softprune.models.base import Backbone, gold_only
from softprune.types import Batch, Encoded


@pytest.fixture
def backbone(model_name: str, backbone_of: Callable[..., Backbone]) -> Backbone:
    return backbone_of(model_name, "float64")


@pytest.fixture
def batch(backbone: Backbone) -> Batch:
    return backbone.batch(backbone.encode(EXAMPLES, max_length=64, max_answer_length=16))


@pytest.fixture
def prompts(backbone: Backbone) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    shape = (2, 3, backbone.info.hidden)
    return torch.randn(shape, generator=generator, dtype=backbone.prompt_dtype)


def golds() -> torch.Tensor:
    return torch.tensor([item.gold for item in EXAMPLES])


def test_likelihood_is_the_mean_over_the_gold_answers_tokens(
    backbone: Backbone, batch: Batch, prompts: torch.Tensor
) -> None:
    if backbone.family == "sentence":
        with pytest.raises(SoftpruneError, match="cosines are no token likelihoods"):
            backbone.check_loss("likelihood")
        return
    at = torch.arange(len(EXAMPLES))
    sums = backbone.scores(prompts, batch, "sum")[:, at, golds()]
    tokens = batch.answer_mask.sum(-1)[at, golds()]
    assert len(set(tokens.tolist())) > 1
    found = backbone.losses(prompts, batch, "likelihood", "sum")
    assert torch.allclose(found, -sums / tokens, rtol=1e-7)
    assert not torch.allclose(found, -sums, rtol=1e-3)


@pytest.mark.parametrize("score", ["sum", "mean"])
def test_rank_is_the_cross_entropy_over_the_answers(
    backbone: Backbone, batch: Batch, prompts: torch.Tensor, score: str
) -> None:
    sums = backbone.scores(prompts, batch, "sum")
    tokens = batch.answer_mask.sum(-1)
    per = tokens.clamp(min=1) if score == "mean" and backbone.family != "sentence" else torch.ones_like(tokens)
    scores = backbone.scores(prompts, batch, score)
    assert torch.allclose(scores, sums / per)
    found = backbone.losses(prompts, batch, "rank", score)
    for k in range(2):
        for b, item in enumerate(EXAMPLES):
            real = (sums[k, b] / per[b])[: len(item.answers)]
            by_hand = torch.logsumexp(real, 0) - real[item.gold]
            assert torch.allclose(found[k, b], by_hand, rtol=1e-7, atol=1e-9)


def test_default_losses(backbone: Backbone) -> None:
    expected = "likelihood" if backbone.family in ("seq2seq", "causal") else "rank"
    assert backbone.check_loss("auto") == expected
    assert backbone.check_loss("rank") == "rank"


def test_gold_only_keeps_the_right_answer(backbone: Backbone, batch: Batch) -> None:
    only = gold_only(batch)
    for b, item in enumerate(EXAMPLES):
        expected = batch.answer_ids[b, item.gold][batch.answer_mask[b, item.gold]]
        assert torch.equal(only.answer_ids[b, 0][only.answer_mask[b, 0]], expected)
    assert only.answer_mask.any(0).any(0).all()
    assert only.gold.tolist() == [0] * len(EXAMPLES)


@pytest.mark.parametrize("loss", ["likelihood", "rank"])
def test_only_the_prompt_gets_a_gradient(backbone: Backbone, batch: Batch, prompts: torch.Tensor, loss: str) -> None:
    if backbone.family == "sentence" and loss == "likelihood":
        return
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    leaf = prompts.clone().requires_grad_()
    losses = backbone.losses(leaf, batch, loss, "sum")
    losses.sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
    assert (leaf.grad != 0).any(-1).all()
    assert not any(p.requires_grad or p.grad is not None for p in backbone.model.parameters())
    assert all(torch.equal(before[name], value) for name, value in backbone.model.state_dict().items())
    # It is the gradient of that loss: the steepest direction by differences.
    direction = leaf.grad / leaf.grad.norm() * 1e-4
    with torch.no_grad():
        up = backbone.losses(prompts + direction, batch, loss, "sum").sum()
        down = backbone.losses(prompts - direction, batch, loss, "sum").sum()
    slope = (leaf.grad * direction).sum() * 2
    assert torch.allclose(up - down, slope, rtol=2e-2)


def test_each_row_has_a_gradient_of_its_own(backbone: Backbone, batch: Batch, prompts: torch.Tensor) -> None:
    """Expanding the prompt to one leaf a row gives every example's gradient at once."""
    loss = backbone.check_loss("auto")
    rows = prompts[0].expand(len(batch), -1, -1).clone().requires_grad_()
    backbone.row_losses(rows, batch, loss, "sum").sum().backward()
    assert rows.grad is not None
    shared = prompts[:1].clone().requires_grad_()
    one = backbone.losses(shared, batch, loss, "sum")[0, 2]
    (alone,) = torch.autograd.grad(one, shared)
    assert torch.allclose(rows.grad[2], alone[0], rtol=1e-4, atol=1e-8)
    assert not torch.allclose(rows.grad[1], alone[0], rtol=1e-2)


def test_dropout_is_off(backbone: Backbone, batch: Batch, prompts: torch.Tensor) -> None:
    config = backbone.model.config.to_dict()
    rates = [value for key, value in config.items() if "drop" in key and isinstance(value, float)]
    assert any(rates) or config["model_type"] in ("bloom", "llama")  # these two are released without dropout
    assert not any(module.training for module in backbone.model.modules())
    with torch.no_grad():
        first, second = (backbone.scores(prompts, batch, "sum") for _ in range(2))
    assert torch.equal(first, second)


def test_logits_are_made_at_answer_positions_only(backbone: Backbone, batch: Batch, prompts: torch.Tensor) -> None:
    head = backbone.model.get_output_embeddings() if backbone.family != "sentence" else None
    if head is None:
        return
    rows: list[int] = []
    hook = head.register_forward_hook(lambda _, __, out: rows.append(out.numel() // out.shape[-1]))
    try:
        with torch.no_grad():
            backbone.losses(prompts, batch, "likelihood", "sum")
    finally:
        hook.remove()
    tokens = int(gold_only(batch).answer_mask.sum())
    # A masked model reads every row once per distinct answer length; the others exactly the answers' tokens.
    distinct = set(gold_only(batch).answer_mask.sum(-1).flatten().tolist())
    expected = len(batch) * sum(distinct) if backbone.family == "masked" else tokens
    assert sum(rows) == 2 * expected


def test_an_encoder_runs_once_for_all_answers(
    model_name: str, backbone: Backbone, batch: Batch, prompts: torch.Tensor
) -> None:
    if backbone.family != "seq2seq":
        return
    rows: list[int] = []
    hook = backbone.model.get_encoder().register_forward_hook(lambda _, __, out: rows.append(len(out[0])))
    try:
        with torch.no_grad():
            backbone.scores(prompts, batch, "sum")
    finally:
        hook.remove()
    assert rows == [2 * len(batch)]


@pytest.mark.parametrize("name", names_of("causal"))
def test_a_causal_model_reads_answers_that_differ_in_their_last_token_once(
    name: str, backbone_of: Callable[..., Backbone]
) -> None:
    backbone = backbone_of(name, "float64")
    rows: list[tuple[int, ...]] = []
    hook = backbone.model.base_model.register_forward_hook(lambda _, __, out: rows.append(tuple(out[0].shape[:2])))
    encoded = [
        Encoded((5, 6, 7), -1, ((8,), (9,), (10,)), 0),
        Encoded((4, 5), -1, ((11,), (12,)), 0),
        Encoded((5, 6, 7), -1, ((8,), (8, 9), (8, 10), (8, 9, 11)), 0),
    ]
    prompts = backbone.embeddings_VH()[None, 20:22]
    try:
        with torch.no_grad():
            together = backbone.scores(prompts, backbone.batch(encoded[:2]), "sum")[0]
            mixed = backbone.scores(prompts, backbone.batch(encoded), "sum")[0]
    finally:
        hook.remove()
    # The prompt, then three stems of up to two tokens: behind the text in turn, or each behind a text of its own.
    assert rows == [(1, 2), (2, 3), (1, 2), (3 * 3, 3 + 2) if name == "bloom" else (3, 3 + 3 * 2)]
    near = 1e-7 if name == "bloom" else 1e-12
    assert torch.allclose(mixed[:2, :3], together, rtol=near)
    step = mixed[2, 1:] - mixed[2, [0, 0, 1]]  # log p of the token that each answer adds
    assert (step < 0).all()
    assert len(set(step.tolist())) == 3


def test_answers_that_do_not_exist_change_nothing(backbone: Backbone, batch: Batch, prompts: torch.Tensor) -> None:
    """Padding answers of another example's making (more of them, longer ones) leave all scores as they are."""
    wider = replace(
        batch,
        answer_ids=torch.nn.functional.pad(batch.answer_ids, (0, 2, 0, 1), value=4),
        answer_mask=torch.nn.functional.pad(batch.answer_mask, (0, 2, 0, 1)),
    )
    with torch.no_grad():
        narrow_scores = backbone.scores(prompts, batch, "sum")
        wide_scores = backbone.scores(prompts, wider, "sum")
    assert torch.allclose(wide_scores[..., :-1], narrow_scores, rtol=1e-7)
    assert (wide_scores[..., -1] == float("-inf")).all()


def test_families_that_do_not_generate_say_so(backbone: Backbone, batch: Batch, prompts: torch.Tensor) -> None:
    if backbone.family in ("masked", "sentence"):
        with pytest.raises(SoftpruneError, match=r"task\.match=score"):
            backbone.generate(prompts[0], batch, 3)
