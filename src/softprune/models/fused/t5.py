"""T5 for a prompt in front of frozen weights; see `layers.py` for why.

    norm        y = w * x / sqrt(mean(x^2) + eps)                            (RMSNorm, Zhang and Sennrich 2019)
    attention   x + softmax(q k^T + bias) v W_o,  with q, k, v of the norm   (T5 doesn't scale by sqrt(d))
    dense       x + (act(y W_0) * y W_1) W_2, or x + act(y W_0) W_2          (T5 1.1, T5 1.0)

Decoder to encoder: `q_h . (W_k,h m) = (W_k,h^T q_h) . m` for a head h and a memory row m. An answer has few tokens, so
queries are carried to the memory, and the memory's keys and values are never computed. U are the decoder's positions.

The sublayers read the weights of transformers' modules where they are.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from softprune.models.fused.layers import (
    ACTIVATIONS,
    additive_mask,
    is_plain,
    join,
    run,
    softmax,
    softmax_back,
    split,
)


def suits(model: Any) -> bool:
    """Whether a model is a T5 that this file reads: plain weights of one dtype on a CPU.

    On a GPU transformers' fused attention is taken. float16 would overflow without transformers' clamps, and in float64
    transformers' norms are float32's, to which ours could be held no better.
    """
    config = model.config
    known = config.model_type in ("t5", "mt5") and config.dense_act_fn in ACTIVATIONS
    return known and is_plain(model, (torch.bfloat16, torch.float32))


class FrozenT5:
    """Encoder and decoder over the weights of a model for which `suits` is true, which are shared, not copied."""

    def __init__(self, model: Any) -> None:
        self._config = model.config
        self._encoder, self._decoder = model.get_encoder(), model.get_decoder()

    @property
    def most_positions(self) -> int:
        """Decoder positions from which on it is cheaper to compute keys and values of the memory than to do without."""
        return int(self._config.d_kv)

    def encode(self, embeds_RLH: torch.Tensor, mask_RL: torch.Tensor) -> torch.Tensor:
        """Last hidden states `[R, L, H]` of the encoder."""
        bias_GLL = self._bias(self._encoder, mask_RL[:, None, None, :] == 0)
        hidden = embeds_RLH
        for block in self._encoder.block:
            attention, dense = block.layer
            hidden = run(_Attend, hidden, bias_GLL, attention)
            hidden = run(_Transform, hidden, dense, self._config.dense_act_fn)
        return run(_Final, hidden, self._encoder.final_layer_norm)

    def decode(
        self, embeds_RUH: torch.Tensor, hides_UU: torch.Tensor, memory_RLH: torch.Tensor, mask_RL: torch.Tensor
    ) -> torch.Tensor:
        """Last hidden states `[R, U, H]` of the decoder; `hides_UU` is true where a position doesn't see another."""
        bias_GUU = self._bias(self._decoder, hides_UU.expand(embeds_RUH.shape[0], 1, -1, -1))
        hides_R1L = additive_mask(mask_RL == 0, memory_RLH.dtype)[:, None]
        hidden = embeds_RUH
        for block in self._decoder.block:
            attention, cross, dense = block.layer
            hidden = run(_Attend, hidden, bias_GUU, attention)
            hidden, memory_RLH = run(_Cross, hidden, memory_RLH, hides_R1L, cross)
            hidden = run(_Transform, hidden, dense, self._config.dense_act_fn)
        return run(_Final, hidden, self._decoder.final_layer_norm)

    @torch.no_grad()
    def _bias(self, stack: Any, hides: torch.Tensor) -> torch.Tensor:
        """Position bias where one may look, the lowest number elsewhere, `[R * heads, L, L]`; shared by all layers."""
        length = hides.shape[-1]
        bias: torch.Tensor = stack.block[0].layer[0].SelfAttention.compute_bias(length, length)
        return bias.masked_fill(hides, torch.finfo(bias.dtype).min).flatten(0, 1)


def _norm(x: torch.Tensor, norm: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The norm of x `[..., H]`, and the inverse root `[..., 1]` that it divides by, in float32 at least."""
    wide = torch.promote_types(x.dtype, torch.float32)
    mean = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide).square() / x.shape[-1]
    root: torch.Tensor = torch.rsqrt(mean + norm.variance_epsilon)
    if wide == x.dtype:
        return (x * root).mul_(norm.weight), root
    # A float32 root as the sum of two bfloat16 numbers: exact to the last bit of y, without a float32 copy of x.
    high = root.to(x.dtype)
    return torch.addcmul(x * (root - high).to(x.dtype), x, high).mul_(norm.weight), root


def _norm_back(
    grad: torch.Tensor, x: torch.Tensor, root: torch.Tensor, norm: Any, residual: torch.Tensor
) -> torch.Tensor:
    """Gradient of a sublayer's input: through its norm, plus `residual`, the gradient that goes around the sublayer.

    `dx = r w dy - x r^3 / H * <w dy, x>`.
    """
    grad = grad * norm.weight
    along = (grad * x).sum(-1, keepdim=True) * root.pow(3) / -x.shape[-1]
    around: torch.Tensor = torch.addcmul(residual, grad, root.to(x.dtype))
    return around.addcmul_(x, along.to(x.dtype))


class _Final(torch.autograd.Function):
    """A norm alone."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, norm: Any) -> torch.Tensor:
        y, root = _norm(x, norm)
        ctx.save_for_backward(x, root)
        ctx.norm = norm
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        x, root = ctx.saved_tensors
        return _norm_back(grad, x, root, ctx.norm, torch.zeros_like(x)), None


class _Attend(torch.autograd.Function):
    """An attention sublayer over its own input."""

    @staticmethod
    def forward(ctx: Any, x_RLH: torch.Tensor, bias_GLL: torch.Tensor, layer: Any) -> torch.Tensor:
        rows, x_MH, read = x_RLH.shape[0], x_RLH.flatten(0, 1), layer.SelfAttention
        y_MH, root = _norm(x_MH, layer.layer_norm)
        q, k, v = (split(F.linear(y_MH, m.weight), rows, read.n_heads) for m in (read.q, read.k, read.v))
        p_GLL = softmax(torch.baddbmm(bias_GLL, q, k.transpose(1, 2)))
        out = torch.addmm(x_MH, join(torch.bmm(p_GLL, v), rows), read.o.weight.t())
        ctx.save_for_backward(x_MH, root, q, k, v, p_GLL)
        ctx.layer = layer
        return out.view_as(x_RLH)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_RLH: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        x_MH, root, q, k, v, p_GLL = ctx.saved_tensors
        rows, read = grad_RLH.shape[0], ctx.layer.SelfAttention
        grad_MH = grad_RLH.reshape_as(x_MH)
        out = split(grad_MH @ read.o.weight, rows, read.n_heads)
        scores = softmax_back(torch.bmm(out, v.transpose(1, 2)), p_GLL)
        norm = join(torch.bmm(p_GLL.transpose(1, 2), out), rows) @ read.v.weight
        norm.addmm_(join(torch.bmm(scores, k), rows), read.q.weight)
        norm.addmm_(join(torch.bmm(scores.transpose(1, 2), q), rows), read.k.weight)
        return _norm_back(norm, x_MH, root, ctx.layer.layer_norm, grad_MH).view_as(grad_RLH), None, None


class _Transform(torch.autograd.Function):
    """A dense sublayer; T5 1.1 has a gate, T5 1.0 none."""

    @staticmethod
    def forward(ctx: Any, x_RLH: torch.Tensor, layer: Any, activation: str) -> torch.Tensor:
        x_MH, dense = x_RLH.flatten(0, 1), layer.DenseReluDense
        y_MH, root = _norm(x_MH, layer.layer_norm)
        ctx.is_gated = hasattr(dense, "wi_1")
        ctx.layer, ctx.activation = layer, activation
        if ctx.is_gated:
            first, gate = F.linear(y_MH, dense.wi_0.weight), F.linear(y_MH, dense.wi_1.weight)
            active = ACTIVATIONS[activation][0](first)
            ctx.save_for_backward(x_MH, root, first, active, gate)
            inner = active * gate
        else:
            first = F.linear(y_MH, dense.wi.weight)
            ctx.save_for_backward(x_MH, root, first)
            inner = ACTIVATIONS[activation][0](first)
        return torch.addmm(x_MH, inner, dense.wo.weight.t()).view_as(x_RLH)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_RLH: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        x_MH, root, first, *gated = ctx.saved_tensors
        dense, back = ctx.layer.DenseReluDense, ACTIVATIONS[ctx.activation][1]
        grad_MH = grad_RLH.reshape_as(x_MH)
        inner = grad_MH @ dense.wo.weight
        if ctx.is_gated:
            active, gate = gated
            norm = (inner * active) @ dense.wi_1.weight
            norm.addmm_(back(inner.mul_(gate), first), dense.wi_0.weight)
        else:
            norm = back(inner, first) @ dense.wi.weight
        return _norm_back(norm, x_MH, root, ctx.layer.layer_norm, grad_MH).view_as(grad_RLH), None, None


class _Cross(torch.autograd.Function):
    """An attention sublayer over the encoder's output, for few positions U, without the memory's keys and values.

    The memory is handed on from layer to layer, so that its gradient grows in place on the way back.
    """

    @staticmethod
    def forward(
        ctx: Any, x_RUH: torch.Tensor, memory_RLH: torch.Tensor, hides_R1L: torch.Tensor, layer: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x_MH, read = x_RUH.flatten(0, 1), layer.EncDecAttention
        y_MH, root = _norm(x_MH, layer.layer_norm)
        q_hMD = _heads_first(F.linear(y_MH, read.q.weight), read.n_heads)
        carried = _by_row(torch.bmm(q_hMD, read.k.weight.unflatten(0, (read.n_heads, -1))), x_RUH.shape[0])
        p_RJL = softmax(torch.baddbmm(hides_R1L, carried, memory_RLH.transpose(1, 2)))
        read_hMH = _by_head(torch.bmm(p_RJL, memory_RLH), read.n_heads)
        v_hDH = read.v.weight.unflatten(0, (read.n_heads, -1))
        value_MI = torch.bmm(read_hMH, v_hDH.transpose(1, 2)).transpose(0, 1).flatten(1)
        ctx.save_for_backward(x_MH, root, memory_RLH, carried, p_RJL)
        ctx.layer = layer
        return torch.addmm(x_MH, value_MI, read.o.weight.t()).view_as(x_RUH), memory_RLH.view_as(memory_RLH)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_RUH: torch.Tensor, grad_RLH: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        x_MH, root, memory_RLH, carried, p_RJL = ctx.saved_tensors
        read, grad_MH = ctx.layer.EncDecAttention, grad_RUH.reshape_as(x_MH)
        value_hMD = _heads_first(grad_MH @ read.o.weight, read.n_heads)
        back_RJH = _by_row(torch.bmm(value_hMD, read.v.weight.unflatten(0, (read.n_heads, -1))), grad_RUH.shape[0])
        scores = softmax_back(torch.bmm(back_RJH, memory_RLH.transpose(1, 2)), p_RJL)
        query_hMH = _by_head(torch.bmm(scores, memory_RLH), read.n_heads)
        k_hDH = read.k.weight.unflatten(0, (read.n_heads, -1))
        query_MI = torch.bmm(query_hMH, k_hDH.transpose(1, 2)).transpose(0, 1).flatten(1)
        memory = torch.baddbmm(grad_RLH, p_RJL.transpose(1, 2), back_RJH)
        memory.baddbmm_(scores.transpose(1, 2), carried)
        x_grad = _norm_back(query_MI @ read.q.weight, x_MH, root, ctx.layer.layer_norm, grad_MH)
        return x_grad.view_as(grad_RUH), memory, None, None


def _heads_first(x_MI: torch.Tensor, heads: int) -> torch.Tensor:
    """`[M, heads * D]` to `[heads, M, D]`."""
    apart: torch.Tensor = x_MI.unflatten(1, (heads, -1)).transpose(0, 1)
    return apart


def _by_row(x_hMH: torch.Tensor, rows: int) -> torch.Tensor:
    """`[heads, R * U, H]` to `[R, U * heads, H]`."""
    by_row: torch.Tensor = x_hMH.unflatten(1, (rows, -1)).permute(1, 2, 0, 3).flatten(1, 2)
    return by_row


def _by_head(x_RJH: torch.Tensor, heads: int) -> torch.Tensor:
    """`[R, U * heads, H]` to `[heads, R * U, H]`."""
    by_head: torch.Tensor = x_RJH.unflatten(1, (-1, heads)).flatten(0, 1).transpose(0, 1)
    return by_head
