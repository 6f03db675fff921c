"""A classifier read layer by layer, with its tokens leaving on the way.

A layer's tokens are scored by its attention and leave before its feed-forward part. Those that left are gone: the next
layer's tensors are shorter. Only the state of a text's first token, which the head reads, outlives its pruning
(`Fallen`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

from softprune.token_pruning.attention import Attended, attend
from softprune.token_pruning.families import Anatomy, Layer
from softprune.token_pruning.packing import Packed, buckets
from softprune.token_pruning.rules import Alive, Convention, Rule, Thresholds


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
    """The tokens that are alive.

    Attributes:
        hidden_MH, row_M, position_M, origin_M: their states, texts, places in these and in the batch.
        lengths: of each text.
    """

    hidden_MH: torch.Tensor
    row_M: torch.Tensor
    position_M: torch.Tensor
    origin_M: torch.Tensor
    lengths: list[int]

    def keep(self, stays_M: torch.Tensor) -> None:
        """Forget the others."""
        self.hidden_MH, self.row_M = self.hidden_MH[stays_M], self.row_M[stays_M]
        self.position_M, self.origin_M = self.position_M[stays_M], self.origin_M[stays_M]
        self.lengths = torch.bincount(self.row_M, minlength=len(self.lengths)).tolist()


@dataclass(frozen=True, slots=True)
class _Fallen:
    """First tokens that were pruned although the head reads them (`Convention.protect` is False).

    They neither attend nor are attended to: their context is zero, so that attention gives them the output projection's
    bias alone. The rest of each layer goes on for them.

    Attributes:
        hidden_KH, row_K: their states and texts.
    """

    hidden_KH: torch.Tensor
    row_K: torch.Tensor

    def joined(self, hidden_KH: torch.Tensor, row_K: torch.Tensor) -> _Fallen:
        """With further ones."""
        return _Fallen(torch.cat([self.hidden_KH, hidden_KH]), torch.cat([self.row_K, row_K]))


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
    fallen = _Fallen(tokens.hidden_MH[:0], tokens.row_M[:0])
    last = len(anatomy.layers) - 1
    left_M = torch.full_like(batch.row_M, len(anatomy.layers))
    kept_LB = []
    for number, layer in enumerate(anatomy.layers):
        if head_only and number == last:
            first_BH = _for_the_head(anatomy, layer, tokens, fallen)
            kept_LB.append([1] * len(batch))
            origin_B = (batch.position_M == 0).nonzero().flatten()
            return Pass(anatomy.classify(first_BH), kept_LB, left_M, None, first_BH, origin_B)
        prunes = rule.prunes(number)
        attended = _attention(anatomy, layer, tokens, scored=prunes and rule.scored, fused=fused)
        context_MH, falls_M = attended.context_MH, None
        if prunes:
            originals, protect = batch.lengths, convention.protect
            alive = Alive(number, tokens.row_M, tokens.position_M, tokens.lengths, originals, batch.keys, protect)
            stays_M = _stays(rule, alive, None if attended.score_M is None else attended.score_M / convention.divisor)
            left_M[tokens.origin_M[~stays_M]] = number
            # A first token that falls now has attended in this layer, and goes through the rest of it with the others.
            there_M = stays_M | (tokens.position_M == 0)
            context_MH, falls_M = context_MH[there_M], ~stays_M[there_M]
            tokens.keep(there_M)
        fallen = _behind_attention(anatomy, layer, tokens, context_MH, fallen)
        if falls_M is not None and bool(falls_M.any()):
            fallen = fallen.joined(tokens.hidden_MH[falls_M], tokens.row_M[falls_M])
            tokens.keep(~falls_M)
        kept_LB.append(tokens.lengths)
    logits_BC = anatomy.classify(_first_states(tokens, fallen))
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
        hidden_MH = _after_attention(anatomy, layer, tokens.hidden_MH, _linear(layer.output, attended.context_MH))
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
    groups = buckets(tokens.lengths, x_MH.device)
    dropout = anatomy.attention_dropout if anatomy.training else 0.0
    read = (_linear(layer.query, x_MH), _linear(layer.key, x_MH), _linear(layer.value, x_MH))
    return attend(*read, groups, anatomy.heads, scored=scored, dropout=dropout, fused=fused)


def _behind_attention(
    anatomy: Anatomy, layer: Layer, tokens: _Tokens, context_MH: torch.Tensor, fallen: _Fallen
) -> _Fallen:
    """The rest of a layer for the tokens, in place, and for the fallen, which come back."""
    alive, projected_MH = len(context_MH), _linear(layer.output, context_MH)
    if not len(fallen.row_K):
        tokens.hidden_MH = _after_attention(anatomy, layer, tokens.hidden_MH, projected_MH)
        return fallen
    bias_KH = layer.output.bias.to(projected_MH.dtype).expand(len(fallen.row_K), -1)  # the projection of zero
    hidden_MH = torch.cat([tokens.hidden_MH, fallen.hidden_KH])
    found_MH = _after_attention(anatomy, layer, hidden_MH, torch.cat([projected_MH, bias_KH]))
    tokens.hidden_MH = found_MH[:alive]
    return replace(fallen, hidden_KH=found_MH[alive:])


def _after_attention(
    anatomy: Anatomy, layer: Layer, hidden_MH: torch.Tensor, projected_MH: torch.Tensor
) -> torch.Tensor:
    """A layer's output from its input and its projected context: each token on its own."""
    p = anatomy.hidden_dropout if anatomy.training else 0.0
    inner_MH: torch.Tensor = layer.attention_norm(F.dropout(projected_MH, p) + hidden_MH)
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


def _for_the_head(anatomy: Anatomy, layer: Layer, tokens: _Tokens, fallen: _Fallen) -> torch.Tensor:
    """A layer's output for each text's first token alone, `[B, H]`; it attends to all that are alive.

    Where it has fallen, nothing of its text is attended to.
    """
    firsts, heads = replace(tokens), anatomy.heads
    firsts.keep(tokens.position_M == 0)
    lengths = [length for length, attends in zip(tokens.lengths, firsts.lengths, strict=True) if attends]
    x_MH = tokens.hidden_MH[~torch.isin(tokens.row_M, fallen.row_K)]
    keys_MH, values_MH = _linear(layer.key, x_MH), _linear(layer.value, x_MH)
    queries_BH = _linear(layer.query, firsts.hidden_MH)
    context_BH = torch.empty_like(queries_BH)
    for group in buckets(lengths, x_MH.device, waste=1.0):
        rows = torch.tensor(group.rows, device=x_MH.device)
        q = queries_BH[rows].view(len(group.rows), heads, 1, -1)
        mask = None if group.valid_BN is None else group.valid_BN[:, None, None, :]
        k, v = group.take(keys_MH, heads), group.take(values_MH, heads)
        context_BH[rows] = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).flatten(1)
    fallen = _behind_attention(anatomy, layer, firsts, context_BH, fallen)
    return _first_states(firsts, fallen)


def _first_states(tokens: _Tokens, fallen: _Fallen) -> torch.Tensor:
    """Of each text's first token, alive or fallen, `[B, H]`."""
    first_M = tokens.position_M == 0
    state_BH, row_B = tokens.hidden_MH[first_M], tokens.row_M[first_M]
    if not len(fallen.row_K):
        return state_BH
    return torch.cat([state_BH, fallen.hidden_KH])[torch.cat([row_B, fallen.row_K]).argsort()]


def _stays(rule: Rule, alive: Alive, score_M: torch.Tensor | None) -> torch.Tensor:
    """Who is alive afterwards `[M]`: the rule's choice and the protected; no text loses all of its tokens."""
    stays_M = rule.stays(alive, score_M)
    if alive.protect:
        return stays_M | (alive.position_M == 0)
    begin = 0
    for length in alive.lengths:
        text = slice(begin, begin + length)
        if not bool(stays_M[text].any()):
            stays_M[begin + (0 if score_M is None else int(score_M[text].argmax()))] = True
        begin += length
    return stays_M
