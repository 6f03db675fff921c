"""Attention of packed texts, with the importance of their tokens.

    P = softmax(q k^T / sqrt(D)),  context = P v,  s_j = sum over heads h and queries i of P[h, i, j] / heads

Probabilities of one bucket at a time, in buffers that are used again: fresh pages cost as much as the arithmetic. They
are made once more on the way back instead of being kept.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from softprune.token_pruning.packing import Bucket, back, places_of

WRITTEN_WIDE = 128
"""Tokens of a text whose sums over bfloat16 probabilities are as quick in float32 on a CPU."""
PARTS = 8
"""Of a sum of probabilities that a product writes in bfloat16; as quick as one."""


@dataclass(frozen=True, slots=True)
class Attended:
    """What attention gives back: contexts `[M, H]`, and the importance `[M]` of every token if it was asked for."""

    context_MH: torch.Tensor
    score_M: torch.Tensor | None


def attend(
    query_MH: torch.Tensor,
    key_MH: torch.Tensor,
    value_MH: torch.Tensor,
    groups: Sequence[Bucket],
    heads: int,
    *,
    scored: bool,
    dropout: float = 0.0,
    fused: bool = True,
) -> Attended:
    """Self-attention of every text over itself.

    Args:
        query_MH, key_MH, value_MH: of all tokens.
        groups: the buckets, which hold every text once.
        heads: of attention.
        scored: whether importance is wanted (before the division by D), in float32 at least, and before dropout.
        dropout: of the probabilities.
        fused: whether torch's fused attention may be taken where importance isn't wanted.
    """
    if dropout:
        return _plain(query_MH, key_MH, value_MH, groups, heads, scored, dropout)
    # Fused attention is slow backwards in bfloat16 on a CPU.
    if fused and not scored and (query_MH.is_cuda or not torch.is_grad_enabled()):
        return Attended(_fused(query_MH, key_MH, value_MH, groups, heads), None)
    context_MH, score_M = _Attention.apply(  # type: ignore[no-untyped-call]
        query_MH, key_MH, value_MH, groups, heads, scored
    )
    return Attended(context_MH, score_M if scored else None)


def _fused(
    query_MH: torch.Tensor, key_MH: torch.Tensor, value_MH: torch.Tensor, groups: Sequence[Bucket], heads: int
) -> torch.Tensor:
    parts, whole_MhD = [], None if torch.is_grad_enabled() else _empty(query_MH, heads)
    for group in groups:
        q, k, v = (group.take(x, heads) for x in (query_MH, key_MH, value_MH))
        mask = None if group.valid_BN is None else group.valid_BN[:, None, None, :]
        context = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        if whole_MhD is None:
            parts.append(_merged(context))
        else:
            group.put(context.transpose(1, 2), whole_MhD)
    return back(parts, groups, places_of(groups)) if whole_MhD is None else whole_MhD.flatten(1)


def _plain(
    query_MH: torch.Tensor,
    key_MH: torch.Tensor,
    value_MH: torch.Tensor,
    groups: Sequence[Bucket],
    heads: int,
    scored: bool,
    dropout: float,
) -> Attended:
    """By autograd, which keeps the draws of a dropout."""
    contexts, scores = [], []
    with torch.autocast(query_MH.device.type, enabled=False):
        for group in groups:
            q, k, v = (group.take(x, heads) for x in (query_MH, key_MH, value_MH))
            logits = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
            if group.valid_BN is not None:
                logits = logits.masked_fill(~group.valid_BN[:, None, None, :], torch.finfo(logits.dtype).min)
            p = logits.softmax(-1)
            scores.append(_column_sums(p, group.valid_BN).flatten())
            contexts.append(_merged(torch.matmul(F.dropout(p, dropout), v)))
    places = places_of(groups)
    return Attended(back(contexts, groups, places), back(scores, groups, places) if scored else None)


class _Scratch(threading.local):
    """Buffers that are used again; results in them are read before the next bucket."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, torch.dtype, torch.device], torch.Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
        """An uninitialised tensor of that shape."""
        key, size = (name, like.dtype, like.device), torch.Size(shape).numel()
        if key not in self._kept or self._kept[key].numel() < size:
            with torch.inference_mode(False):  # made in it, a buffer could not be written to outside of it
                self._kept[key] = torch.empty(size, dtype=like.dtype, device=like.device)
        return self._kept[key][:size].view(shape)


_scratch = _Scratch()


class _Attention(torch.autograd.Function):
    """All buckets, with importance where it is wanted; probabilities are made again on the way back."""

    @staticmethod
    def forward(
        ctx: Any,
        query_MH: torch.Tensor,
        key_MH: torch.Tensor,
        value_MH: torch.Tensor,
        groups: Sequence[Bucket],
        heads: int,
        scored: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(query_MH, key_MH, value_MH)
        ctx.groups, ctx.heads, ctx.scored = groups, heads, scored
        context_MhD = _empty(query_MH, heads)
        wide = torch.promote_types(query_MH.dtype, torch.float32)
        score_M = query_MH.new_zeros(len(query_MH) if scored else 0, dtype=wide)
        with torch.autocast(query_MH.device.type, enabled=False):
            for group in groups:
                q, k, v = (group.take(x, heads) for x in (query_MH, key_MH, value_MH))
                context, score_BN = _read(q, k, v, group.valid_BN, scored)
                group.put(context.transpose(1, 2), context_MhD)
                if scored:
                    group.put(score_BN, score_M)
        return context_MhD.flatten(1), score_M

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_MH: torch.Tensor, grad_M: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query_MH, key_MH, value_MH = ctx.saved_tensors
        whole = [_empty(query_MH, ctx.heads) for _ in range(3)]
        for group in ctx.groups:
            q, k, v, grad = (group.take(x, ctx.heads) for x in (query_MH, key_MH, value_MH, grad_MH))
            by_key_BN = group.spread(grad_M) / ctx.heads if ctx.scored else None
            if group.valid_BN is not None:
                grad = grad * group.valid_BN[:, None, :, None]  # padding holds a copy of some token
            for found_MhD, found in zip(whole, _read_back(q, k, v, grad, by_key_BN, group.valid_BN), strict=True):
                group.put(found.transpose(1, 2), found_MhD)
        return (*(found_MhD.flatten(1) for found_MhD in whole), None, None, None)


def _read(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, valid_BN: torch.Tensor | None, scored: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Context `[B, heads, N, D]` and importance `[B, N]` (empty if it isn't wanted) of one bucket."""
    p = _softmax(_logits(q * q.shape[-1] ** -0.5, k, valid_BN))
    return torch.matmul(p, v), _column_sums(p, valid_BN) if scored else v.new_zeros(0)


def _read_back(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    grad: torch.Tensor,
    by_key_BN: torch.Tensor | None,
    valid_BN: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of q, k and v from that of the context, and of importance `[B, N]` over the number of heads.

    The context's is 0 in padding, whose queries have no part in importance either.
    """
    scale = q.shape[-1] ** -0.5
    q = q * scale
    p = _softmax(_logits(q, k, valid_BN))
    grad_v = torch.matmul(p.transpose(-1, -2), grad)
    grad_p = torch.matmul(grad, v.transpose(-1, -2), out=_scratch.take("logits", tuple(p.shape), p))
    if by_key_BN is not None:
        every = by_key_BN[:, None, None, :]
        grad_p += (every if valid_BN is None else every * valid_BN[:, None, :, None]).to(grad_p.dtype)
    grad_s = torch.ops.aten._softmax_backward_data.out(
        grad_p, p, -1, p.dtype, grad_input=_scratch.take("gradient", tuple(p.shape), p)
    )
    return torch.matmul(grad_s, k) * scale, torch.matmul(grad_s.transpose(-1, -2), q), grad_v


def _logits(q: torch.Tensor, k: torch.Tensor, valid_BN: torch.Tensor | None) -> torch.Tensor:
    """`[B, heads, N, N]` in the scratch."""
    shape = (*q.shape[:-1], k.shape[-2])
    logits = torch.matmul(q, k.transpose(-1, -2), out=_scratch.take("logits", shape, q))
    if valid_BN is not None:
        logits.masked_fill_(~valid_BN[:, None, None, :], -torch.inf)
    return logits


def _softmax(logits: torch.Tensor) -> torch.Tensor:
    return torch.softmax(logits, -1, out=_scratch.take("p", tuple(logits.shape), logits))


def _column_sums(p_BhNN: torch.Tensor, valid_BN: torch.Tensor | None) -> torch.Tensor:
    """Importance `[B, N]` from probabilities.

    Sums are accumulated in float32. Those of a long text's head are written in the probabilities' dtype, as torch takes
    four times as long to write them wide, and those beside padding are made by products, which are written so, too:
    in eight parts. Heads are summed in float32. In bfloat16 that leaves some 5e-4 of a score, where temperatures are
    1e-2; logits in bfloat16 leave as much.
    """
    wide = torch.promote_types(p_BhNN.dtype, torch.float32)
    if valid_BN is None:
        narrow = p_BhNN.shape[-1] > WRITTEN_WIDE and not p_BhNN.is_cuda
        return p_BhNN.sum(2, dtype=None if narrow else wide).to(wide).mean(1)
    part_N = torch.arange(valid_BN.shape[1], device=valid_BN.device) % PARTS
    parts_BPN = valid_BN[:, None, :] & (part_N == torch.arange(PARTS, device=valid_BN.device)[:, None])
    by_part_BhPN = torch.matmul(parts_BPN[:, None].to(p_BhNN.dtype), p_BhNN)
    return by_part_BhPN.to(wide).sum(2).mean(1)


def _empty(like_MH: torch.Tensor, heads: int) -> torch.Tensor:
    return torch.empty_like(like_MH).view(len(like_MH), heads, -1)


def _merged(x_BhND: torch.Tensor) -> torch.Tensor:
    """`[B, heads, N, D]` to `[B * N, heads * D]`."""
    merged: torch.Tensor = x_BhND.transpose(1, 2).flatten(2).flatten(0, 1)
    return merged
