"""A classifier read layer by layer, with its tokens leaving on the way.

A layer's tokens are scored by its attention and leave before its feed-forward part. Those that left are gone: the next
layer's tensors are shorter. A text's first token, which the head reads, stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

from softprune.tokens.attention import Attended, attend
from softprune.tokens.families import Anatomy, Layer
from softprune.tokens.packed import Packed, buckets
from softprune.tokens.rules import Alive, Convention, Rule, Thresholds


@dataclass(frozen=True, slots=True)
class Pass:
    """What reading a batch gave.

    Attributes:
        logits_BC: of the classes.
        kept_LB: tokens of each text that are left after each layer, as lists.
        left_M: per token of the batch, the layer after which it left; L for those that stayed to the end.
        soft_B: the regulariser, per text: the sum over layers of the mean soft mask; None but in the soft stage.
        state_MH: last states of the tokens in `origin_M`.
        origin_M: the tokens that are left, as places in the batch.
    """

    logits_BC: torch.Tensor
    kept_LB: list[list[int]]
    left_M: torch.Tensor
    soft_B: torch.Tensor | None
    state_MH: torch.Tensor
    origin_M: torch.Tensor


@dataclass(slots=True)
class _Tokens:
    """Tokens that are still there.

    Attributes:
        hidden_MH, row_M, position_M, origin_M: their states, texts, places in these and in the batch.
        lengths: of each text.
        alive_M: False for a first token that is read but not attended to any more; None where there is none.
    """

    hidden_MH: torch.Tensor
    row_M: torch.Tensor
    position_M: torch.Tensor
    origin_M: torch.Tensor
    lengths: list[int]
    alive_M: torch.Tensor | None = None

    def only(self, there_M: torch.Tensor) -> None:
        """Forget the others; their states are the caller's business."""
        self.row_M, self.position_M = self.row_M[there_M], self.position_M[there_M]
        self.origin_M = self.origin_M[there_M]
        self.alive_M = None if self.alive_M is None else self.alive_M[there_M]
        self.lengths = self._per_text(self.row_M)

    def counts(self) -> list[int]:
        """Alive tokens of each text."""
        return self.lengths if self.alive_M is None else self._per_text(self.row_M[self.alive_M])

    def _per_text(self, row_M: torch.Tensor) -> list[int]:
        counts: list[int] = torch.bincount(row_M, minlength=len(self.lengths)).tolist()
        return counts


def hard_pass(
    anatomy: Anatomy,
    batch: Packed,
    rule: Rule,
    convention: Convention,
    *,
    head_only: bool = False,
    fused: bool = True,
) -> Pass:
    """Read a batch; tokens that a rule takes away are gone.

    Args:
        anatomy: the model.
        batch: texts, end to end.
        rule: who stays.
        convention: how importance is counted and who is protected.
        head_only: in the last layer, compute for the head's token alone; nothing is pruned there, and `state_MH` is
            of these tokens only.
        fused: as `attention.attend` has it.
    """
    tokens = _begin(anatomy, batch)
    last = len(anatomy.layers) - 1
    left_M = torch.full_like(batch.row_M, len(anatomy.layers))
    kept_LB = []
    for number, layer in enumerate(anatomy.layers):
        if head_only and number == last:
            tokens.hidden_MH = _for_the_head(anatomy, layer, tokens)
            tokens.only(tokens.position_M == 0)
            kept_LB.append(tokens.lengths)
            break
        prunes = rule.prunes(number)
        attended = _attention(anatomy, layer, tokens, scored=prunes and rule.scored, fused=fused)
        context_MH = attended.context_MH
        if prunes:
            alive = Alive(number, tokens.row_M, tokens.position_M, tokens.lengths, batch.lengths, batch.keys)
            score_M = None if attended.score_M is None else attended.score_M / convention.divisor
            stays_M = _stays(rule, convention, alive, tokens.alive_M, score_M)
            leaving_M = ~stays_M if tokens.alive_M is None else tokens.alive_M & ~stays_M
            left_M[tokens.origin_M[leaving_M]] = number
            tokens.alive_M = stays_M
            there_M = stays_M | (tokens.position_M == 0)
            tokens.hidden_MH, context_MH = tokens.hidden_MH[there_M], context_MH[there_M]
            tokens.only(there_M)
            if convention.protect:
                tokens.alive_M = None
        tokens.hidden_MH = _behind_attention(anatomy, layer, tokens.hidden_MH, context_MH)
        kept_LB.append(tokens.counts())
    logits_BC = anatomy.classify(tokens.hidden_MH[tokens.position_M == 0])
    return Pass(logits_BC, kept_LB, left_M, None, tokens.hidden_MH, tokens.origin_M)


def soft_pass(anatomy: Anatomy, batch: Packed, rule: Thresholds) -> Pass:
    """Read a batch with soft masks on the layers' outputs, and count what they let through.

    The regulariser of a text is the sum over layers of the mean of m over its tokens, the protected one aside.
    """
    convention = rule.convention
    tokens = _begin(anatomy, batch)
    sizes = torch.tensor(batch.lengths, device=batch.row_M.device)
    counted_M = (batch.position_M > 0) if convention.protect else torch.ones_like(batch.row_M, dtype=torch.bool)
    soft_B: torch.Tensor | None = None
    for number, layer in enumerate(anatomy.layers):
        prunes = rule.prunes(number)
        attended = _attention(anatomy, layer, tokens, scored=prunes)
        hidden_MH = _behind_attention(anatomy, layer, tokens.hidden_MH, attended.context_MH)
        if prunes:
            assert attended.score_M is not None
            m_M = rule.soft(number, attended.score_M / convention.divisor)
            sum_B = m_M.new_zeros(len(batch)).index_add(0, batch.row_M, m_M * counted_M)
            mean_B = sum_B / (sizes - int(convention.protect)).clamp(min=1)
            soft_B = mean_B if soft_B is None else soft_B + mean_B
            m_M = torch.where(counted_M, m_M, 1.0)
            hidden_MH = hidden_MH * m_M[:, None].to(hidden_MH.dtype)
        tokens.hidden_MH = hidden_MH
    logits_BC = anatomy.classify(tokens.hidden_MH[tokens.position_M == 0])
    kept_LB = [list(batch.lengths)] * len(anatomy.layers)
    left_M = torch.full_like(batch.row_M, len(anatomy.layers))
    return Pass(logits_BC, kept_LB, left_M, soft_B, tokens.hidden_MH, tokens.origin_M)


def _begin(anatomy: Anatomy, batch: Packed) -> _Tokens:
    origin_M = torch.arange(len(batch.ids_M), device=batch.ids_M.device)
    embedded_MH = anatomy.embed(batch.ids_M, batch.position_M)
    return _Tokens(embedded_MH, batch.row_M, batch.position_M, origin_M, list(batch.lengths))


def _attention(anatomy: Anatomy, layer: Layer, tokens: _Tokens, *, scored: bool, fused: bool = True) -> Attended:
    x_MH = tokens.hidden_MH
    groups = buckets(tokens.lengths, tokens.alive_M, x_MH.device)
    dropout = anatomy.attention_dropout if anatomy.training else 0.0
    read = (_linear(layer.query, x_MH), _linear(layer.key, x_MH), _linear(layer.value, x_MH))
    return attend(*read, groups, anatomy.heads, scored=scored, dropout=dropout, fused=fused)


def _behind_attention(
    anatomy: Anatomy, layer: Layer, hidden_MH: torch.Tensor, context_MH: torch.Tensor
) -> torch.Tensor:
    """The rest of a layer: each token on its own."""
    p = anatomy.hidden_dropout if anatomy.training else 0.0
    inner_MH: torch.Tensor = layer.attention_norm(F.dropout(_linear(layer.output, context_MH), p) + hidden_MH)
    last_MH = F.dropout(_linear(layer.last, _widened(layer, inner_MH)), p)
    found: torch.Tensor = layer.norm(last_MH + inner_MH)
    return found


def _widened(layer: Layer, inner_MH: torch.Tensor) -> torch.Tensor:
    """The feed-forward part's first half. A gelu in bfloat16 costs a CPU as much as the product: there they are one."""
    if _exact_gelu(layer.activation) and _one_kernel(layer.first, inner_MH):
        return _product(layer.first, inner_MH, "gelu", "none")
    return layer.activation(layer.first(inner_MH))


def _linear(linear: nn.Linear, x_MH: torch.Tensor) -> torch.Tensor:
    """What the module gives; without a pass of its own for the bias where there is a kernel for it."""
    if _one_kernel(linear, x_MH):
        return _product(linear, x_MH, "none", "")
    found: torch.Tensor = linear(x_MH)
    return found


def _product(linear: nn.Linear, x_MH: torch.Tensor, behind: str, how: str) -> torch.Tensor:
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x_MH, linear.weight, linear.bias, behind, [], how)
    return found


def _one_kernel(linear: nn.Linear, x_MH: torch.Tensor) -> bool:
    """Whether a product in bfloat16 and what follows can be one call: on a CPU, without gradients."""
    if torch.is_grad_enabled() or x_MH.is_cuda or {x_MH.dtype, linear.weight.dtype} != {torch.bfloat16}:
        return False
    return type(linear) is nn.Linear and _has_kernel()


def _exact_gelu(activation: object) -> bool:
    return activation is F.gelu or getattr(activation, "act", None) is F.gelu


@cache
def _has_kernel() -> bool:
    """torch.compile's own; not a public one, so it is looked for."""
    mkldnn = torch.ops.mkldnn
    return hasattr(mkldnn, "_linear_pointwise") and bool(mkldnn._is_mkldnn_bf16_supported())


def _for_the_head(anatomy: Anatomy, layer: Layer, tokens: _Tokens) -> torch.Tensor:
    """A layer's output for each text's first token alone, `[B, H]`; it attends to all that are alive."""
    x_MH, heads = tokens.hidden_MH, anatomy.heads
    first_M = tokens.position_M == 0
    first_BH, keys_MH, values_MH = x_MH[first_M], _linear(layer.key, x_MH), _linear(layer.value, x_MH)
    queries_BH = _linear(layer.query, first_BH)
    context_BH = torch.empty_like(queries_BH)
    for group in buckets(tokens.lengths, tokens.alive_M, x_MH.device, waste=1.0):
        rows = torch.tensor(group.rows, device=x_MH.device)
        q = queries_BH[rows].view(len(group.rows), heads, 1, -1)
        mask = None if group.valid_BN is None else group.valid_BN[:, None, None, :]
        k, v = group.take(keys_MH, heads), group.take(values_MH, heads)
        context_BH[rows] = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).flatten(1)
    return _behind_attention(anatomy, layer, first_BH, context_BH)


def _stays(
    rule: Rule, convention: Convention, alive: Alive, alive_M: torch.Tensor | None, score_M: torch.Tensor | None
) -> torch.Tensor:
    """Who is alive afterwards `[M]`: the rule's choice and the protected; no text loses all of its tokens."""
    stays_M = rule.stays(replace(alive, protect=convention.protect), score_M)
    if convention.protect:
        return stays_M | (alive.position_M == 0)
    if alive_M is not None:
        stays_M = stays_M & alive_M
    begin = 0
    for length in alive.lengths:
        text = slice(begin, begin + length)
        if not bool(stays_M[text].any()):
            worth = torch.zeros(length) if score_M is None else score_M[text]
            there = worth if alive_M is None else worth.masked_fill(~alive_M[text], -torch.inf)
            stays_M[begin + int(there.argmax())] = True
        begin += length
    return stays_M
