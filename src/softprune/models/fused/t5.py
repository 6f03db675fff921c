"""T5 for a prompt in front of frozen weights; see `layers.py` for why.

    norm        y = w * x / sqrt(mean(x^2) + eps)                            (RMSNorm, Zhang and Sennrich 2019)
    attention   x + softmax(q k^T + bias) v W_o,  with q, k, v of the norm   (T5 doesn't scale by sqrt(d))
    dense       x + (act(y W_0) * y W_1) W_2, or x + act(y W_0) W_2          (T5 1.1, T5 1.0)

Decoder to encoder: `q_h . (W_k,h m) = (W_k,h^T q_h) . m` for a head h and a memory row m. An answer has few tokens, so
queries are carried to the memory, and the memory's keys and values are never computed. U are the decoder's positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from softprune.models.fused.layers import (
    ACTIVATIONS,
    Backward,
    Unary,
    additive_mask,
    join,
    plain,
    run,
    softmax,
    softmax_back,
    split,
)


@dataclass(frozen=True, slots=True)
class Norm:
    """An RMSNorm's weight `[H]` and epsilon."""

    weight: torch.Tensor
    eps: float


@dataclass(frozen=True, slots=True)
class Attention:
    """Weights of an attention sublayer: q, k, v `[heads * D, H]`, o `[H, heads * D]`, and the norm before them."""

    norm: Norm
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    o: torch.Tensor
    heads: int

    def by_head(self) -> tuple[torch.Tensor, torch.Tensor]:
        """k and v as `[heads, D, H]`."""
        return self.k.unflatten(0, (self.heads, -1)), self.v.unflatten(0, (self.heads, -1))


@dataclass(frozen=True, slots=True)
class Dense:
    """Weights of a dense sublayer: first and gate `[F, H]` (no gate in T5 1.0), last `[H, F]`, and the norm before."""

    norm: Norm
    first: torch.Tensor
    gate: torch.Tensor | None
    last: torch.Tensor
    activation: tuple[Unary, Backward]


def _norm(x: torch.Tensor, norm: Norm) -> tuple[torch.Tensor, torch.Tensor]:
    """The norm of x `[..., H]`, and the inverse root `[..., 1]` that it divides by, in float32 at least."""
    wide = torch.promote_types(x.dtype, torch.float32)
    mean = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide).square() / x.shape[-1]
    root: torch.Tensor = torch.rsqrt(mean + norm.eps)
    if wide == x.dtype:
        return (x * root).mul_(norm.weight), root
    # A float32 root as the sum of two bfloat16 numbers: exact to the last bit of y, without a float32 copy of x.
    high = root.to(x.dtype)
    return torch.addcmul(x * (root - high).to(x.dtype), x, high).mul_(norm.weight), root


def _norm_back(
    grad: torch.Tensor, x: torch.Tensor, root: torch.Tensor, norm: Norm, residual: torch.Tensor
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
    def forward(ctx: Any, x: torch.Tensor, norm: Norm) -> torch.Tensor:
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
    def forward(ctx: Any, x_RLH: torch.Tensor, bias_GLL: torch.Tensor, layer: Attention) -> torch.Tensor:
        rows, heads = x_RLH.shape[0], layer.heads
        x_MH = x_RLH.flatten(0, 1)
        y_MH, root = _norm(x_MH, layer.norm)
        q, k, v = (split(F.linear(y_MH, weight), rows, heads) for weight in (layer.q, layer.k, layer.v))
        p_GLL = softmax(torch.baddbmm(bias_GLL, q, k.transpose(1, 2)))
        out = torch.addmm(x_MH, join(torch.bmm(p_GLL, v), rows), layer.o.t())
        ctx.save_for_backward(x_MH, root, q, k, v, p_GLL)
        ctx.layer = layer
        return out.view_as(x_RLH)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_RLH: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        x_MH, root, q, k, v, p_GLL = ctx.saved_tensors
        layer: Attention = ctx.layer
        rows = grad_RLH.shape[0]
        grad_MH = grad_RLH.reshape_as(x_MH)
        out = split(grad_MH @ layer.o, rows, layer.heads)
        scores = softmax_back(torch.bmm(out, v.transpose(1, 2)), p_GLL)
        norm = join(torch.bmm(p_GLL.transpose(1, 2), out), rows) @ layer.v
        norm.addmm_(join(torch.bmm(scores, k), rows), layer.q)
        norm.addmm_(join(torch.bmm(scores.transpose(1, 2), q), rows), layer.k)
        return _norm_back(norm, x_MH, root, layer.norm, grad_MH).view_as(grad_RLH), None, None


class _Transform(torch.autograd.Function):
    """A dense sublayer."""

    @staticmethod
    def forward(ctx: Any, x_RLH: torch.Tensor, layer: Dense) -> torch.Tensor:
        x_MH = x_RLH.flatten(0, 1)
        y_MH, root = _norm(x_MH, layer.norm)
        first = F.linear(y_MH, layer.first)
        active = layer.activation[0](first)
        gate = None if layer.gate is None else F.linear(y_MH, layer.gate)
        out = torch.addmm(x_MH, active if gate is None else active * gate, layer.last.t())
        ctx.save_for_backward(x_MH, root, first, *([] if gate is None else [active, gate]))
        ctx.layer = layer
        return out.view_as(x_RLH)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_RLH: torch.Tensor) -> tuple[torch.Tensor, None]:
        x_MH, root, first, *gated = ctx.saved_tensors
        layer: Dense = ctx.layer
        grad_MH = grad_RLH.reshape_as(x_MH)
        inner = grad_MH @ layer.last
        if layer.gate is None:
            norm = layer.activation[1](inner, first) @ layer.first
        else:
            active, gate = gated
            norm = (inner * active) @ layer.gate
            norm.addmm_(layer.activation[1](inner.mul_(gate), first), layer.first)
        return _norm_back(norm, x_MH, root, layer.norm, grad_MH).view_as(grad_RLH), None


class _Cross(torch.autograd.Function):
    """An attention sublayer over the encoder's output, for few positions U, without the memory's keys and values.

    The memory is handed on from layer to layer, so that its gradient grows in place on the way back.
    """

    @staticmethod
    def forward(
        ctx: Any, x_RUH: torch.Tensor, memory_RLH: torch.Tensor, hides_R1L: torch.Tensor, layer: Attention
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x_MH, (k_hDH, v_hDH) = x_RUH.flatten(0, 1), layer.by_head()
        y_MH, root = _norm(x_MH, layer.norm)
        q_hMD = F.linear(y_MH, layer.q).unflatten(1, (layer.heads, -1)).transpose(0, 1)
        carried = _by_row(torch.bmm(q_hMD, k_hDH), x_RUH.shape[0])
        p_RJL = softmax(torch.baddbmm(hides_R1L, carried, memory_RLH.transpose(1, 2)))
        read_hMH = _by_head(torch.bmm(p_RJL, memory_RLH), layer.heads)
        value_MI = torch.bmm(read_hMH, v_hDH.transpose(1, 2)).transpose(0, 1).flatten(1)
        ctx.save_for_backward(x_MH, root, memory_RLH, carried, p_RJL)
        ctx.layer = layer
        return torch.addmm(x_MH, value_MI, layer.o.t()).view_as(x_RUH), memory_RLH.view_as(memory_RLH)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_RUH: torch.Tensor, grad_RLH: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        x_MH, root, memory_RLH, carried, p_RJL = ctx.saved_tensors
        layer: Attention = ctx.layer
        (k_hDH, v_hDH), rows = layer.by_head(), grad_RUH.shape[0]
        grad_MH = grad_RUH.reshape_as(x_MH)
        value_hMD = (grad_MH @ layer.o).unflatten(1, (layer.heads, -1)).transpose(0, 1)
        read = _by_row(torch.bmm(value_hMD, v_hDH), rows)
        weights = torch.bmm(read, memory_RLH.transpose(1, 2))
        scores = softmax_back(weights, p_RJL)
        query_hMH = _by_head(torch.bmm(scores, memory_RLH), layer.heads)
        query_MI = torch.bmm(query_hMH, k_hDH.transpose(1, 2)).transpose(0, 1).flatten(1)
        memory = torch.baddbmm(grad_RLH, p_RJL.transpose(1, 2), read)
        memory.baddbmm_(scores.transpose(1, 2), carried)
        return _norm_back(query_MI @ layer.q, x_MH, root, layer.norm, grad_MH).view_as(grad_RUH), memory, None, None


def _by_row(x_hMH: torch.Tensor, rows: int) -> torch.Tensor:
    """`[heads, R * U, H]` to `[R, U * heads, H]`."""
    by_row: torch.Tensor = x_hMH.unflatten(1, (rows, -1)).permute(1, 2, 0, 3).flatten(1, 2)
    return by_row


def _by_head(x_RJH: torch.Tensor, heads: int) -> torch.Tensor:
    """`[R, U * heads, H]` to `[heads, R * U, H]`."""
    by_head: torch.Tensor = x_RJH.unflatten(1, (-1, heads)).flatten(0, 1).transpose(0, 1)
    return by_head


def suits(model: Any) -> bool:
    """Whether a model is a T5 that this file reads: plain weights of one dtype on a CPU.

    On a GPU transformers' fused attention is taken. float16 would overflow without transformers' clamps, and in float64
    transformers' norms are float32's, to which ours could be held no better.
    """
    config = model.config
    known = config.model_type in ("t5", "mt5") and config.dense_act_fn in ACTIVATIONS
    return known and plain(model, (torch.bfloat16, torch.float32))


class FrozenT5:
    """Encoder and decoder of a T5 or mT5 over transformers' weights; see the file's head.

    Args:
        model: its conditional generation model, for which `suits` is true. The weights are shared, not copied.
    """

    def __init__(self, model: Any) -> None:
        self._config = model.config
        self._encoder, self._decoder = model.get_encoder(), model.get_decoder()
        self._encoder_layers = [self._layers(block) for block in self._encoder.block]
        self._decoder_layers = [self._layers(block) for block in self._decoder.block]

    @property
    def most_positions(self) -> int:
        """Decoder positions from which on it is cheaper to compute keys and values of the memory than to do without."""
        return int(self._config.d_kv)

    def encode(self, embeds_RLH: torch.Tensor, mask_RL: torch.Tensor) -> torch.Tensor:
        """Last hidden states `[R, L, H]` of the encoder."""
        bias_GLL = self._bias(self._encoder, mask_RL[:, None, None, :] == 0)
        hidden = embeds_RLH
        for attention, dense in self._encoder_layers:
            hidden = run(_Transform, run(_Attend, hidden, bias_GLL, attention), dense)
        return run(_Final, hidden, _read_norm(self._encoder.final_layer_norm))

    def decode(
        self, embeds_RUH: torch.Tensor, hides_UU: torch.Tensor, memory_RLH: torch.Tensor, mask_RL: torch.Tensor
    ) -> torch.Tensor:
        """Last hidden states `[R, U, H]` of the decoder.

        Args:
            embeds_RUH: of its inputs.
            hides_UU: true where a position doesn't see another.
            memory_RLH, mask_RL: the encoder's output and which of it is real.
        """
        bias_GUU = self._bias(self._decoder, hides_UU.expand(embeds_RUH.shape[0], 1, -1, -1))
        hides_R1L = additive_mask(mask_RL == 0, memory_RLH.dtype)[:, None]
        hidden = embeds_RUH
        for attention, cross, dense in self._decoder_layers:
            hidden = run(_Attend, hidden, bias_GUU, attention)
            hidden, memory_RLH = run(_Cross, hidden, memory_RLH, hides_R1L, cross)
            hidden = run(_Transform, hidden, dense)
        return run(_Final, hidden, _read_norm(self._decoder.final_layer_norm))

    def _bias(self, stack: Any, hides: torch.Tensor) -> torch.Tensor:
        """Position bias where one may look, the lowest number elsewhere, `[R * heads, L, L]`; shared by all layers."""
        attention = stack.block[0].layer[0].SelfAttention
        length = hides.shape[-1]
        with torch.no_grad():
            bias: torch.Tensor = attention.compute_bias(length, length)
            return bias.masked_fill(hides, torch.finfo(bias.dtype).min).flatten(0, 1)

    def _layers(self, block: Any) -> tuple[Any, ...]:
        """A block's sublayers, in order."""
        *attentions, dense = block.layer
        return (*map(self._attention, attentions), self._dense(dense))

    def _attention(self, sublayer: Any) -> Attention:
        module = getattr(sublayer, "SelfAttention", None) or sublayer.EncDecAttention
        weights = (module.q.weight, module.k.weight, module.v.weight, module.o.weight)
        return Attention(_read_norm(sublayer.layer_norm), *weights, heads=int(module.n_heads))

    def _dense(self, sublayer: Any) -> Dense:
        module, activation = sublayer.DenseReluDense, ACTIVATIONS[self._config.dense_act_fn]
        if self._config.is_gated_act:
            weights = (module.wi_0.weight, module.wi_1.weight, module.wo.weight)
        else:
            weights = (module.wi.weight, None, module.wo.weight)
        return Dense(_read_norm(sublayer.layer_norm), *weights, activation=activation)


def _read_norm(module: Any) -> Norm:
    return Norm(module.weight, float(module.variance_epsilon))
