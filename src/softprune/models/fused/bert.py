"""BERT and RoBERTa encoders for a prompt in front of frozen weights; see `layers.py` for why.

attention   LN(x + softmax(q k^T / sqrt(D) + mask) v W_o)     (Vaswani et al. 2017; norms behind, as in BERT)
dense       LN(x + act(x W_1) W_2)
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from softprune.models.fused.layers import (
    ACTIVATIONS,
    additive_mask,
    is_plain,
    join,
    linear,
    run,
    softmax,
    softmax_back,
    split,
)

TYPES = ("bert", "roberta", "xlm-roberta", "camembert")
"""Model types whose modules are named as BERT's are."""


def suits(model: Any) -> bool:
    """Whether an encoder is a BERT that this file reads: plain weights of one dtype on a CPU (a GPU has fused ones)."""
    config = model.config
    known = config.model_type in TYPES and config.hidden_act in ACTIVATIONS
    return known and not config.is_decoder and is_plain(model, (torch.bfloat16, torch.float32, torch.float64))


class FrozenBert:
    """The encoder over the weights of a bare encoder for which `suits` is true, which are shared, not copied."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, embeds_RLH: torch.Tensor, mask_RL: torch.Tensor) -> torch.Tensor:
        """Last hidden states `[R, L, H]`."""
        config, hides_G1L = self._model.config, None
        if not bool(mask_RL.all()):
            hides_R1L = additive_mask(mask_RL == 0, embeds_RLH.dtype)[:, None]
            hides_G1L = hides_R1L.repeat_interleave(config.num_attention_heads, dim=0)
        hidden: torch.Tensor = self._model.embeddings(inputs_embeds=embeds_RLH)
        for layer in self._model.encoder.layer:
            hidden = run(_Attend, hidden, hides_G1L, layer.attention, config.num_attention_heads)
            hidden = run(_Transform, hidden, layer, config.hidden_act)
        return hidden


class _Attend(torch.autograd.Function):
    """An attention sublayer."""

    @staticmethod
    def forward(ctx: Any, x_RLH: torch.Tensor, hides_G1L: torch.Tensor | None, layer: Any, heads: int) -> torch.Tensor:
        rows, x_MH, read, out = x_RLH.shape[0], x_RLH.flatten(0, 1), layer.self, layer.output
        q, k, v = (split(linear(x_MH, m.weight, m.bias), rows, heads) for m in (read.query, read.key, read.value))
        scale = q.shape[-1] ** -0.5
        p_GLL = softmax(_product(q, k.transpose(1, 2), scale, hides_G1L))
        summed = linear(join(torch.bmm(p_GLL, v), rows), out.dense.weight, out.dense.bias, x_MH)
        y_MH, mean, deviation = _norm(summed, out.LayerNorm)
        ctx.save_for_backward(summed, mean, deviation, q, k, v, p_GLL)
        ctx.layer, ctx.heads, ctx.scale = layer, heads, scale
        return y_MH.view_as(x_RLH)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_RLH: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        summed, mean, deviation, q, k, v, p_GLL = ctx.saved_tensors
        rows, read, out = grad_RLH.shape[0], ctx.layer.self, ctx.layer.output
        around = _norm_back(grad_RLH.reshape_as(summed), summed, mean, deviation, out.LayerNorm)
        grad_out = split(around @ out.dense.weight, rows, ctx.heads)
        scores = softmax_back(torch.bmm(grad_out, v.transpose(1, 2)), p_GLL)
        grad_MH = torch.addmm(around, join(torch.bmm(p_GLL.transpose(1, 2), grad_out), rows), read.value.weight)
        grad_MH.addmm_(join(_product(scores, k, ctx.scale), rows), read.query.weight)
        grad_MH.addmm_(join(_product(scores.transpose(1, 2), q, ctx.scale), rows), read.key.weight)
        return grad_MH.view_as(grad_RLH), None, None, None


class _Transform(torch.autograd.Function):
    """A dense sublayer."""

    @staticmethod
    def forward(ctx: Any, x_RLH: torch.Tensor, layer: Any, activation: str) -> torch.Tensor:
        x_MH, inner, out = x_RLH.flatten(0, 1), layer.intermediate.dense, layer.output
        first = linear(x_MH, inner.weight, inner.bias)
        summed = linear(ACTIVATIONS[activation][0](first), out.dense.weight, out.dense.bias, x_MH)
        y_MH, mean, deviation = _norm(summed, out.LayerNorm)
        ctx.save_for_backward(summed, mean, deviation, first)
        ctx.layer, ctx.activation = layer, activation
        return y_MH.view_as(x_RLH)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_RLH: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        summed, mean, deviation, first = ctx.saved_tensors
        out = ctx.layer.output
        around = _norm_back(grad_RLH.reshape_as(summed), summed, mean, deviation, out.LayerNorm)
        inner = ACTIVATIONS[ctx.activation][1](around @ out.dense.weight, first)
        return torch.addmm(around, inner, ctx.layer.intermediate.dense.weight).view_as(grad_RLH), None, None


def _product(a: torch.Tensor, b: torch.Tensor, scale: float, plus: torch.Tensor | None = None) -> torch.Tensor:
    """`scale * a b + plus` in one pass."""
    if plus is None:
        return torch.baddbmm(a.new_zeros(1), a, b, beta=0, alpha=scale)
    return torch.baddbmm(plus, a, b, alpha=scale)


def _norm(x_MH: torch.Tensor, norm: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A LayerNorm, with mean and inverse deviation `[M, 1]` for the way back."""
    y_MH, mean, scale = torch.native_layer_norm(x_MH, x_MH.shape[-1:], norm.weight, norm.bias, norm.eps)
    return y_MH, mean, scale


def _norm_back(
    grad_MH: torch.Tensor, x_MH: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor, norm: Any
) -> torch.Tensor:
    weights = (norm.weight, norm.bias, (True, False, False))  # the input's gradient alone
    grads = torch.ops.aten.native_layer_norm_backward(grad_MH, x_MH, x_MH.shape[-1:], mean, scale, *weights)
    return grads[0]  # type: ignore[no-any-return]
