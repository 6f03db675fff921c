"""BERT and RoBERTa encoders for a prompt in front of frozen weights; see `layers.py` for why.

attention   LN(x + softmax(q k^T / sqrt(D) + mask) v W_o)     (Vaswani et al. 2017; norms behind, as in BERT)
dense       LN(x + act(x W_1) W_2)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from softprune.models.fused.layers import (
    ACTIVATIONS,
    Backward,
    Unary,
    additive_mask,
    join,
    linear,
    plain,
    run,
    softmax,
    softmax_back,
    split,
)

TYPES = ("bert", "roberta", "xlm-roberta", "camembert")
"""Model types whose modules are named as BERT's are."""

Linear = tuple[torch.Tensor, torch.Tensor]
"""Weight `[out, in]` and bias `[out]`."""


@dataclass(frozen=True, slots=True)
class Norm:
    """A LayerNorm's weight and bias `[H]`, and epsilon."""

    weight: torch.Tensor
    bias: torch.Tensor
    eps: float


@dataclass(frozen=True, slots=True)
class Attention:
    """An attention sublayer: q, k, v, o, and the norm behind them."""

    q: Linear
    k: Linear
    v: Linear
    o: Linear
    norm: Norm
    heads: int


@dataclass(frozen=True, slots=True)
class Dense:
    """A dense sublayer, and the norm behind it."""

    first: Linear
    last: Linear
    norm: Norm
    activation: tuple[Unary, Backward]


def _norm(x_MH: torch.Tensor, norm: Norm) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The norm, and mean and inverse deviation `[M, 1]` for the way back."""
    y_MH, mean, scale = torch.native_layer_norm(x_MH, x_MH.shape[-1:], norm.weight, norm.bias, norm.eps)
    return y_MH, mean, scale


def _norm_back(
    grad_MH: torch.Tensor, x_MH: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor, norm: Norm
) -> torch.Tensor:
    weights = (norm.weight, norm.bias, (True, False, False))
    grads = torch.ops.aten.native_layer_norm_backward(grad_MH, x_MH, x_MH.shape[-1:], mean, scale, *weights)
    return grads[0]  # type: ignore[no-any-return]


class _Attend(torch.autograd.Function):
    """An attention sublayer."""

    @staticmethod
    def forward(ctx: Any, x_RLH: torch.Tensor, hides_G1L: torch.Tensor | None, layer: Attention) -> torch.Tensor:
        rows, x_MH = x_RLH.shape[0], x_RLH.flatten(0, 1)
        q, k, v = (split(linear(x_MH, *weights), rows, layer.heads) for weights in (layer.q, layer.k, layer.v))
        scale = q.shape[-1] ** -0.5
        p_GLL = softmax(_product(q, k.transpose(1, 2), scale, hides_G1L))
        summed = linear(join(torch.bmm(p_GLL, v), rows), *layer.o, x_MH)
        y_MH, mean, deviation = _norm(summed, layer.norm)
        ctx.save_for_backward(summed, mean, deviation, q, k, v, p_GLL)
        ctx.layer, ctx.scale = layer, scale
        return y_MH.view_as(x_RLH)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_RLH: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        summed, mean, deviation, q, k, v, p_GLL = ctx.saved_tensors
        layer: Attention = ctx.layer
        rows = grad_RLH.shape[0]
        around = _norm_back(grad_RLH.reshape_as(summed), summed, mean, deviation, layer.norm)
        out = split(around @ layer.o[0], rows, layer.heads)
        scores = softmax_back(torch.bmm(out, v.transpose(1, 2)), p_GLL)
        grad_MH = torch.addmm(around, join(torch.bmm(p_GLL.transpose(1, 2), out), rows), layer.v[0])
        grad_MH.addmm_(join(_product(scores, k, ctx.scale), rows), layer.q[0])
        grad_MH.addmm_(join(_product(scores.transpose(1, 2), q, ctx.scale), rows), layer.k[0])
        return grad_MH.view_as(grad_RLH), None, None


class _Transform(torch.autograd.Function):
    """A dense sublayer."""

    @staticmethod
    def forward(ctx: Any, x_RLH: torch.Tensor, layer: Dense) -> torch.Tensor:
        x_MH = x_RLH.flatten(0, 1)
        first = linear(x_MH, *layer.first)
        summed = linear(layer.activation[0](first), *layer.last, x_MH)
        y_MH, mean, deviation = _norm(summed, layer.norm)
        ctx.save_for_backward(summed, mean, deviation, first)
        ctx.layer = layer
        return y_MH.view_as(x_RLH)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_RLH: torch.Tensor) -> tuple[torch.Tensor, None]:
        summed, mean, deviation, first = ctx.saved_tensors
        layer: Dense = ctx.layer
        around = _norm_back(grad_RLH.reshape_as(summed), summed, mean, deviation, layer.norm)
        inner = layer.activation[1](around @ layer.last[0], first)
        return torch.addmm(around, inner, layer.first[0]).view_as(grad_RLH), None


def _product(a: torch.Tensor, b: torch.Tensor, scale: float, plus: torch.Tensor | None = None) -> torch.Tensor:
    """`scale * a b + plus` in one pass."""
    if plus is None:
        return torch.baddbmm(a.new_zeros(1), a, b, beta=0, alpha=scale)
    return torch.baddbmm(plus, a, b, alpha=scale)


def suits(model: Any) -> bool:
    """Whether an encoder is a BERT that this file reads: plain weights of one dtype on a CPU.

    On a GPU transformers' fused attention is taken.
    """
    config = model.config
    known = config.model_type in TYPES and config.hidden_act in ACTIVATIONS
    return known and not config.is_decoder and plain(model, (torch.bfloat16, torch.float32, torch.float64))


class FrozenBert:
    """The encoder over transformers' weights; see the file's head.

    Args:
        model: a bare encoder for which `suits` is true. Its weights are shared, not copied.
    """

    def __init__(self, model: Any) -> None:
        activation = ACTIVATIONS[model.config.hidden_act]
        self._embeddings, self._heads = model.embeddings, int(model.config.num_attention_heads)
        self._layers = [(_attention(layer, self._heads), _dense(layer, activation)) for layer in model.encoder.layer]

    def __call__(self, embeds_RLH: torch.Tensor, mask_RL: torch.Tensor) -> torch.Tensor:
        """Last hidden states `[R, L, H]`."""
        hides_G1L = None
        if not bool(mask_RL.all()):
            hides_G1L = additive_mask(mask_RL == 0, embeds_RLH.dtype).repeat_interleave(self._heads, dim=0)[:, None]
        hidden: torch.Tensor = self._embeddings(inputs_embeds=embeds_RLH)
        for attention, dense in self._layers:
            hidden = run(_Transform, run(_Attend, hidden, hides_G1L, attention), dense)
        return hidden


class Encoder:
    """An encoder's last hidden states, by the layers above where they suit it, else by transformers.

    Args:
        model: a bare encoder of any architecture.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.fast = FrozenBert(model) if suits(model) else None

    def __call__(self, embeds_RLH: torch.Tensor, mask_RL: torch.Tensor, adapted: bool = False) -> torch.Tensor:
        """`[R, L, H]` for embeddings `[R, L, H]`, padded where the mask `[R, L]` is 0; by transformers if adapted."""
        if self.fast is not None and not adapted:
            return self.fast(embeds_RLH, mask_RL)
        hidden: torch.Tensor = self._model(inputs_embeds=embeds_RLH, attention_mask=mask_RL).last_hidden_state
        return hidden


def _linear(module: Any) -> Linear:
    return module.weight, module.bias


def _read_norm(module: Any) -> Norm:
    return Norm(module.weight, module.bias, float(module.eps))


def _attention(layer: Any, heads: int) -> Attention:
    inside, behind = layer.attention.self, layer.attention.output
    read = (_linear(inside.query), _linear(inside.key), _linear(inside.value))
    return Attention(*read, _linear(behind.dense), _read_norm(behind.LayerNorm), heads)


def _dense(layer: Any, activation: tuple[Unary, Backward]) -> Dense:
    behind = layer.output
    return Dense(_linear(layer.intermediate.dense), _linear(behind.dense), _read_norm(behind.LayerNorm), activation)
