"""Attention of packed texts, with the importance of their tokens.

    P = softmax(q k^T / sqrt(D)),  context = P v,  s_j = sum over heads h and queries i of P[h, i, j] / heads

Fused attention never forms P, so layers that need scores compute it here, one bucket at a time, in buffers that are
used again: fresh memory pages cost as much as the arithmetic. The backward pass computes P again instead of keeping it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from softprune.token_pruning.packing import Bucket, unbucket

# On a CPU, float32 sums of bfloat16 probabilities are as fast as bfloat16 ones in texts of at most this many tokens.
FLOAT32_SUMS_UP_TO = 128
# Partial sums of probabilities that a bfloat16 product writes: 8 keep the rounding small and are as fast as 1.
PARTIAL_SUMS = 8


class AttentionOutput(NamedTuple):
    """Attention of packed texts."""

    context_MH: torch.Tensor
    score_M: torch.Tensor | None  # importance, where it was asked for


def attend(
    query_MH: torch.Tensor,
    key_MH: torch.Tensor,
    value_MH: torch.Tensor,
    buckets: Sequence[Bucket],
    heads: int,
    *,
    scored: bool,
    dropout: float = 0.0,
    fused: bool = True,
) -> AttentionOutput:
    """Self-attention of every text over itself; `buckets` hold every text once.

    Importance (`scored`) isn't divided by D yet; it is counted before dropout, in float32 at least. `fused` allows
    torch's fused attention where importance isn't wanted.
    """
    projections = (query_MH, key_MH, value_MH)
    if dropout:
        return _attend_with_dropout(projections, buckets, heads, scored, dropout)
    # On a CPU in bfloat16, the backward pass of fused attention is slow.
    if fused and not scored and (query_MH.is_cuda or not torch.is_grad_enabled()):
        return AttentionOutput(_attend_fused(projections, buckets, heads), None)
    context_MH, score_M = _Attention.apply(*projections, buckets, heads, scored)  # type: ignore[no-untyped-call]
    return AttentionOutput(context_MH, score_M if scored else None)


def _attend_fused(projections: Sequence[torch.Tensor], buckets: Sequence[Bucket], heads: int) -> torch.Tensor:
    parts, context_MhD = [], _empty_by_head(projections[0], heads)
    for bucket in buckets:
        q, k, v = (bucket.gather_heads(x_MH, heads) for x_MH in projections)
        part_BNhD = F.scaled_dot_product_attention(q, k, v, attn_mask=bucket.attention_mask).transpose(1, 2)
        if torch.is_grad_enabled():
            parts.append(part_BNhD)
        else:
            bucket.scatter(part_BNhD, context_MhD)
    if parts:  # writing into a buffer would lose the gradients
        context_MhD = unbucket(parts, buckets)
    return context_MhD.flatten(1)


def _attend_with_dropout(
    projections: Sequence[torch.Tensor], buckets: Sequence[Bucket], heads: int, scored: bool, dropout: float
) -> AttentionOutput:
    """By autograd, which keeps what dropout drew."""
    contexts, scores = [], []
    with torch.autocast(projections[0].device.type, enabled=False):
        for bucket in buckets:
            q, k, v = (bucket.gather_heads(x_MH, heads) for x_MH in projections)
            logits = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
            if bucket.attention_mask is not None:
                logits = logits.masked_fill(~bucket.attention_mask, torch.finfo(logits.dtype).min)
            p = logits.softmax(-1)
            scores.append(_column_sums(p, bucket.valid_BN))
            contexts.append(torch.matmul(F.dropout(p, dropout), v).transpose(1, 2))
    context_MH = unbucket(contexts, buckets).flatten(1)
    return AttentionOutput(context_MH, unbucket(scores, buckets) if scored else None)


_thread = threading.local()


def _scratch(name: str, shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """An uninitialised tensor in a buffer that is used again: its content must be used before the next bucket."""
    buffers: dict[str, torch.Tensor] = vars(_thread)  # each thread has its own
    key, size = f"{name} {like.dtype} {like.device}", math.prod(shape)
    if key not in buffers or buffers[key].numel() < size:
        with torch.inference_mode(False):  # a buffer made in inference mode can't be written to outside of it
            buffers[key] = torch.empty(size, dtype=like.dtype, device=like.device)
    return buffers[key][:size].view(*shape)


class _Attention(torch.autograd.Function):
    """All buckets, with importance where it is wanted; the backward pass computes probabilities again."""

    @staticmethod
    def forward(
        ctx: Any,
        query_MH: torch.Tensor,
        key_MH: torch.Tensor,
        value_MH: torch.Tensor,
        buckets: Sequence[Bucket],
        heads: int,
        scored: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(query_MH, key_MH, value_MH)
        ctx.buckets, ctx.heads, ctx.scored = buckets, heads, scored
        context_MhD = _empty_by_head(query_MH, heads)
        wide = torch.promote_types(query_MH.dtype, torch.float32)
        score_M = query_MH.new_zeros(len(query_MH) if scored else 0, dtype=wide)
        with torch.autocast(query_MH.device.type, enabled=False):
            for bucket in buckets:
                q, k, v = (bucket.gather_heads(x, heads) for x in (query_MH, key_MH, value_MH))
                p = _probabilities(q * q.shape[-1] ** -0.5, k, bucket.valid_BN)
                bucket.scatter(torch.matmul(p, v).transpose(1, 2), context_MhD)
                if scored:
                    bucket.scatter(_column_sums(p, bucket.valid_BN), score_M)
        return context_MhD.flatten(1), score_M

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_MH: torch.Tensor, grad_M: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query_MH, key_MH, value_MH = ctx.saved_tensors
        gradients = [_empty_by_head(query_MH, ctx.heads) for _ in range(3)]
        for bucket in ctx.buckets:
            q, k, v, grad = (bucket.gather_heads(x, ctx.heads) for x in (query_MH, key_MH, value_MH, grad_MH))
            if bucket.valid_BN is not None:
                grad = grad * bucket.valid_BN[:, None, :, None]  # padding holds a copy of some token
            scale = q.shape[-1] ** -0.5
            q = q * scale
            p = _probabilities(q, k, bucket.valid_BN)
            # The logits have become p in another buffer, so that theirs is free.
            grad_p = torch.matmul(grad, v.transpose(-1, -2), out=_scratch("logits", p.shape, p))
            if ctx.scored:
                by_key = (bucket.gather(grad_M) / ctx.heads)[:, None, None, :]
                if bucket.valid_BN is not None:  # queries in padding have no part in importance
                    by_key = by_key * bucket.valid_BN[:, None, :, None]
                grad_p += by_key.to(grad_p.dtype)
            # No public call writes softmax's gradient into a buffer.
            buffer = _scratch("gradient", p.shape, p)
            grad_s = torch.ops.aten._softmax_backward_data.out(grad_p, p, -1, p.dtype, grad_input=buffer)
            grad_v = torch.matmul(p.transpose(-1, -2), grad)
            parts = (torch.matmul(grad_s, k) * scale, torch.matmul(grad_s.transpose(-1, -2), q), grad_v)
            for part, whole_MhD in zip(parts, gradients, strict=True):
                bucket.scatter(part.transpose(1, 2), whole_MhD)
        return (*(whole_MhD.flatten(1) for whole_MhD in gradients), None, None, None)


def _probabilities(q: torch.Tensor, k: torch.Tensor, valid_BN: torch.Tensor | None) -> torch.Tensor:
    """P `[B, heads, N, N]` in the scratch, from scaled queries."""
    shape = (*q.shape[:-1], k.shape[-2])
    logits = torch.matmul(q, k.transpose(-1, -2), out=_scratch("logits", shape, q))
    if valid_BN is not None:
        logits.masked_fill_(~valid_BN[:, None, None, :], -torch.inf)
    return torch.softmax(logits, -1, out=_scratch("p", shape, logits))


def _column_sums(p_BhNN: torch.Tensor, valid_BN: torch.Tensor | None) -> torch.Tensor:
    """Importance `[B, N]` from probabilities.

    Sums are accumulated in float32, and heads are added in float32. For a long text, torch writes float32 sums of
    bfloat16 numbers four times as slowly, so each head's sum is written in the probabilities' dtype. Where there is
    padding, the sums are matrix products, which are written in that dtype, too; partial sums keep the rounding small.
    In bfloat16 that leaves an error of about 5e-4 of a score, where temperatures are 1e-2; logits in bfloat16 leave as
    much.
    """
    wide = torch.promote_types(p_BhNN.dtype, torch.float32)
    if valid_BN is None:
        narrow = p_BhNN.shape[-1] > FLOAT32_SUMS_UP_TO and not p_BhNN.is_cuda
        return p_BhNN.sum(2, dtype=None if narrow else wide).to(wide).mean(1)
    part_N = torch.arange(valid_BN.shape[1], device=valid_BN.device) % PARTIAL_SUMS
    parts_BPN = valid_BN[:, None, :] & (part_N == torch.arange(PARTIAL_SUMS, device=valid_BN.device)[:, None])
    by_part_BhPN = torch.matmul(parts_BPN[:, None].to(p_BhNN.dtype), p_BhNN)
    return by_part_BhPN.to(wide).sum(2).mean(1)


def _empty_by_head(like_MH: torch.Tensor, heads: int) -> torch.Tensor:
    return torch.empty_like(like_MH).view(len(like_MH), heads, -1)
