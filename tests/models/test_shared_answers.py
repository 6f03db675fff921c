"""What an example's answers share is computed once, and sharing changes no number and no gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference import EXAMPLES

from softprune.models.base import Backbone
from softprune.models.causal import find_stems
from softprune.models.log_probs import token_log_probs
from softprune.models.seq2seq import Seq2SeqBackbone
from softprune.types import Batch


def batch_of(backbone: Backbone) -> Batch:
    return backbone.batch(backbone.encode(EXAMPLES, max_length=64, max_answer_length=16))


def prompts_for(backbone: Backbone) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    shape = (len(EXAMPLES), 3, backbone.info.hidden)
    return torch.randn(shape, generator=generator, dtype=backbone.prompt_dtype).requires_grad_()


def rows_decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each call of the decoder, from now on."""
    rows: list[int] = []
    decode = Seq2SeqBackbone._decode

    def counted(self: Seq2SeqBackbone, ids: torch.Tensor, *args: Any) -> torch.Tensor:
        rows.append(len(ids))
        return decode(self, ids, *args)

    monkeypatch.setattr(Seq2SeqBackbone, "_decode", counted)
    return rows


@pytest.mark.parametrize("name", ["t5", "t5_v1_1", "mt5"])
def test_packed_answers_score_as_answers_decoded_apart(
    name: str, backbone_of: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = backbone_of(name, "float64")
    batch, prompts = batch_of(backbone), prompts_for(backbone)
    answers = batch.answer_ids.shape[1]
    rows = rows_decoded(monkeypatch)

    def scored() -> tuple[torch.Tensor, torch.Tensor]:
        sums = backbone.answer_sums(prompts, batch)
        (gradient,) = torch.autograd.grad(sums[torch.isfinite(sums)].sum(), prompts)
        return sums.detach(), gradient

    packed, packed_gradient = scored()
    monkeypatch.setattr("softprune.models.seq2seq.RELATIVE", ())
    apart, apart_gradient = scored()
    assert rows == [len(EXAMPLES), len(EXAMPLES) * answers]
    real = torch.isfinite(apart)
    assert (packed - apart)[real].abs().max() <= 1e-12 * apart[real].abs().max()
    assert (packed_gradient - apart_gradient).abs().max() <= 1e-10 * apart_gradient.abs().max()
    swapped = apart.flip(0)
    assert (packed - swapped)[real & torch.isfinite(swapped)].abs().max() > 1e-3 * apart[real].abs().max()


def test_answers_that_could_see_each_other_would_score_otherwise(
    backbone_of: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test above: without the block mask, the numbers move."""
    backbone = backbone_of("t5", "float64")
    batch, prompts = batch_of(backbone), prompts_for(backbone)
    right = backbone.answer_sums(prompts, batch)
    decode = Seq2SeqBackbone._decode
    monkeypatch.setattr(
        Seq2SeqBackbone, "_decode", lambda self, ids, memory, mask, _=None: decode(self, ids, memory, mask)
    )
    wrong = backbone.answer_sums(prompts, batch)
    real = torch.isfinite(right)
    assert (right - wrong)[real].abs().max() > 1e-4 * right[real].abs().max()


@pytest.mark.parametrize("name", ["t5", "bart", "gpt2", "llama"])
def test_first_tokens_share_their_logits(
    name: str, backbone_of: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = backbone_of(name, "float64")
    batch, prompts = batch_of(backbone), prompts_for(backbone)
    widths: list[int] = []
    head = backbone.model.get_output_embeddings()
    hook = head.register_forward_hook(lambda _module, given, _logits: widths.append(len(given[0])))
    backbone.answer_sums(prompts, batch)
    hook.remove()
    tokens = int(batch.answer_mask.sum())
    starts = int(batch.answer_mask[:, :, 0].sum())
    assert widths[0] <= tokens - starts + len(EXAMPLES) < tokens


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_packed_stems_score_as_stems_read_apart(
    name: str, backbone_of: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = backbone_of(name, "float64")
    batch, prompts = batch_of(backbone), prompts_for(backbone)
    read: list[torch.Size] = []
    hook = backbone.model.base_model.register_forward_pre_hook(
        lambda _module, _args, named: read.append(named["inputs_embeds"].shape), with_kwargs=True
    )

    def scored() -> tuple[torch.Tensor, torch.Tensor]:
        sums = backbone.answer_sums(prompts, batch)
        (gradient,) = torch.autograd.grad(sums[torch.isfinite(sums)].sum(), prompts)
        return sums.detach(), gradient

    packed, gradient = scored()
    with monkeypatch.context() as patch:
        patch.setattr("softprune.models.causal.PACKED", ())
        apart, wanted = scored()
    stems = find_stems(batch).ids_BUT.shape[1]
    assert stems > 1
    assert [shape[0] for shape in read] == [len(EXAMPLES), len(EXAMPLES) * stems]
    real = torch.isfinite(apart)
    assert (packed - apart)[real].abs().max() <= 1e-12 * apart[real].abs().max()
    tolerance = 1e-6 if name == "llama" else 1e-10  # Llama's norms go back in float32
    assert (gradient - wanted).abs().max() <= tolerance * wanted.abs().max()
    # The control: stems that see each other score otherwise.
    monkeypatch.setattr(
        "softprune.models.causal.sees_packed", lambda text, count, width, _: all_before(text + count * width)
    )
    wrong, _ = scored()
    hook.remove()
    assert (wrong - apart)[real].abs().max() > 1e-4 * apart[real].abs().max()


def all_before(length: int) -> torch.Tensor:
    return torch.ones(length, length, dtype=torch.bool).tril()


def test_log_probabilities_and_their_gradients_are_those_of_log_softmax() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(5, 30, generator=generator, dtype=torch.float64).requires_grad_()
    which, targets = torch.tensor([0, 0, 3, 4, 1, 4, 0]), torch.tensor([2, 2, 9, 29, 0, 7, 5])
    weights = torch.randn(7, generator=generator, dtype=torch.float64)
    ours = token_log_probs(logits, which, targets)
    plain = logits.log_softmax(-1)[which, targets]
    assert (ours - plain).abs().max() <= 1e-12 * plain.abs().max()
    (found,) = torch.autograd.grad(ours @ weights, logits)
    (wanted,) = torch.autograd.grad(plain @ weights, logits)
    assert (found - wanted).abs().max() <= 1e-12 * wanted.abs().max()
    (once,) = torch.autograd.grad(logits.log_softmax(-1)[which[1:], targets[1:]] @ weights[1:], logits)
    assert (found - once).abs().max() > 1e-2 * wanted.abs().max()
    half = token_log_probs(logits.detach().bfloat16(), which, targets)
    assert half.dtype == torch.float32
