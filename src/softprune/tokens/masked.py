"""The same pruning by masks, as the official code does it: every token is computed, the pruned ones aren't attended to.

Slow and plain on purpose: what `walk` computes is held to this.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from softprune.tokens.families import Anatomy
from softprune.tokens.packed import Packed
from softprune.tokens.rules import Alive, Convention, Rule, Thresholds


@dataclass(frozen=True, slots=True)
class MaskedPass:
    """What a batch's padded texts gave.

    Attributes:
        logits_BC: of the classes.
        alive_LBN: who is alive after each layer; padding never is.
        score_LBN: importance in each layer, 0 of those that aren't alive.
    """

    logits_BC: torch.Tensor
    alive_LBN: torch.Tensor
    score_LBN: torch.Tensor


def masked_pass(
    anatomy: Anatomy, batch: Packed, rule: Rule, convention: Convention, *, soft: bool = False
) -> MaskedPass:
    """Read a batch padded to its longest text.

    Args:
        anatomy: the model, in eval mode.
        batch: texts; they are padded here.
        rule: who stays.
        convention: how importance is counted and who is protected.
        soft: multiply outputs by the soft masks of a rule of thresholds instead.
    """
    size, longest = len(batch), max(batch.lengths)
    real_BN = torch.arange(longest, device=anatomy.device) < torch.tensor(batch.lengths, device=anatomy.device)[:, None]
    ids_BN = torch.zeros(size, longest, dtype=torch.long, device=anatomy.device).masked_scatter(real_BN, batch.ids_M)
    place_BN = torch.arange(longest, device=anatomy.device).expand(size, -1)
    x = anatomy.embed(ids_BN.flatten(), place_BN.flatten()).view(size, longest, -1)
    alive_BN, alive_L, score_L = real_BN, [], []
    for number, layer in enumerate(anatomy.layers):
        q, k, v = (_heads(part(x), anatomy.heads) for part in (layer.query, layer.key, layer.value))
        logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        p = logits.masked_fill(~alive_BN[:, None, None, :], -torch.inf).softmax(-1)
        by_alive = p.to(torch.promote_types(p.dtype, torch.float32)) * alive_BN[:, None, :, None]
        score_BN = by_alive.sum((1, 2)) / (anatomy.heads * convention.divisor)
        context = (p @ v).transpose(1, 2).flatten(2)
        x = layer.attention_norm(layer.output(context) + x)
        x = layer.norm(layer.last(layer.activation(layer.first(x))) + x)
        if soft and rule.prunes(number):
            assert isinstance(rule, Thresholds)
            m_BN = rule.soft(number, score_BN)
            if convention.protect:
                m_BN = torch.where(place_BN == 0, 1.0, m_BN)
            x = x * m_BN[..., None].to(x.dtype)
        elif rule.prunes(number):
            alive_BN = _survivors(rule, convention, batch, number, alive_BN, score_BN)
        alive_L.append(alive_BN)
        score_L.append(score_BN)
    return MaskedPass(anatomy.classify(x[:, 0]), torch.stack(alive_L), torch.stack(score_L))


def _heads(x_BNH: torch.Tensor, heads: int) -> torch.Tensor:
    by_head: torch.Tensor = x_BNH.unflatten(-1, (heads, -1)).transpose(1, 2)
    return by_head


def _survivors(
    rule: Rule,
    convention: Convention,
    batch: Packed,
    number: int,
    alive_BN: torch.Tensor,
    score_BN: torch.Tensor,
) -> torch.Tensor:
    """Who is alive after a layer, `[B, N]`; a text that would lose everybody keeps its most important token."""
    row_M, position_M = alive_BN.nonzero(as_tuple=True)
    lengths = alive_BN.sum(1).tolist()
    alive = Alive(number, row_M, position_M, lengths, batch.lengths, batch.keys, convention.protect)
    stays_BN = torch.zeros_like(alive_BN).masked_scatter(alive_BN, rule.stays(alive, score_BN[alive_BN]))
    if convention.protect:
        stays_BN[:, 0] = True
    best_B1: torch.Tensor = score_BN.masked_fill(~alive_BN, -torch.inf).argmax(1, keepdim=True)
    lost_B1 = ~stays_BN.any(1, keepdim=True)
    kept_BN: torch.Tensor = stays_BN.scatter(1, best_B1, stays_BN.gather(1, best_B1) | lost_B1)
    return kept_BN
