"""Token pruning by masks, after Kim et al. 2022 ("Learned Token Pruning for Transformers"): the reference of the tests.

Slow and plain on purpose: every token is computed, padded to the longest text, and a pruned one is hidden by masks. A
token that is pruned after layer l has, from layer l + 1 on,

- a column of zeros in the attention probabilities: nobody attends to it;
- a row of zeros: its context is zero, its attention output is the output projection's bias, its importance and its
  votes on others' importance are zero;
- its residual stream, the layer norms and the feed-forward part as before.

Of a pruned token, only the first is ever read again: by the head. In the soft stage nobody is pruned; outputs are
multiplied by soft masks instead (section 3.3). Nothing of `walk`, `packed` or `attention` is used here.

Axes: B texts, N tokens of the longest, L layers, H hidden, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from softprune.token_pruning.families import Encoder, Layer
from softprune.token_pruning.rules import AliveTokens, Convention, Rule, Thresholds, text_key


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

    def first_falls(self) -> list[bool]:
        """Of each text, whether its first token is pruned and a layer follows, in which it is hidden."""
        fallen_B: torch.Tensor = ~self.alive_LBN[-2, :, 0]
        return fallen_B.tolist()


def masked_pass(
    encoder: Encoder,
    texts: Sequence[Sequence[int]],
    rule: Rule,
    convention: Convention,
    *,
    soft: bool = False,
    dead_read: bool = False,
) -> MaskedPass:
    """Read texts.

    Args:
        encoder: the model's modules, in eval mode.
        texts: token ids.
        rule: who stays; with `soft`, thresholds.
        convention: how importance is counted and who is protected.
        soft: multiply outputs by the soft masks instead.
        dead_read: leave out the zero rows, which is wrong: what tests must be able to see.
    """
    lengths, longest = [len(ids) for ids in texts], max(map(len, texts))
    place_BN = torch.arange(longest).expand(len(texts), -1)
    real_BN = place_BN < torch.tensor(lengths)[:, None]
    ids_BN = torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in texts])
    x_BNH = encoder.embed(ids_BN.flatten(), place_BN.flatten()).unflatten(0, ids_BN.shape)

    alive_BN, alive_L, score_L = real_BN, [], []
    for number, layer in enumerate(encoder.layers):
        p_BhNN, value_BhND = probabilities_and_values(layer, x_BNH, encoder.heads, alive_BN)
        voting_BhNN = p_BhNN.to(torch.promote_types(p_BhNN.dtype, torch.float32)) * alive_BN[:, None, :, None]
        score_BN = voting_BhNN.sum((1, 2)) / (encoder.heads * convention.divisor)
        read_BhNN = p_BhNN if dead_read else p_BhNN * alive_BN[:, None, :, None]
        context_BNH = (read_BhNN @ value_BhND).transpose(1, 2).flatten(2)
        inner_BNH = layer.attention_norm(layer.output(context_BNH) + x_BNH)
        x_BNH = layer.norm(layer.last(layer.activation(layer.first(inner_BNH))) + inner_BNH)
        if rule.prunes(number) and soft:
            x_BNH = x_BNH * soft_mask(rule, convention, number, score_BN)[..., None].to(x_BNH.dtype)
        elif rule.prunes(number):
            keys = [text_key(ids) for ids in texts]
            alive_BN = survivors(rule, convention, number, alive_BN, score_BN, lengths, keys)
        alive_L.append(alive_BN)
        score_L.append(score_BN)
    return MaskedPass(encoder.classify(x_BNH[:, 0]), torch.stack(alive_L), torch.stack(score_L))


def probabilities_and_values(
    layer: Layer, x_BNH: torch.Tensor, heads: int, alive_BN: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention probabilities `[B, heads, N, N]` with zeros in dead columns, and values `[B, heads, N, D]`."""

    def split(y_BNH: torch.Tensor) -> torch.Tensor:
        by_head: torch.Tensor = y_BNH.unflatten(-1, (heads, -1)).transpose(1, 2)
        return by_head

    query, key, value = split(layer.query(x_BNH)), split(layer.key(x_BNH)), split(layer.value(x_BNH))
    logits_BhNN = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    return logits_BhNN.masked_fill(~alive_BN[:, None, None, :], -torch.inf).softmax(-1), value


def soft_mask(rule: Rule, convention: Convention, number: int, score_BN: torch.Tensor) -> torch.Tensor:
    """m `[B, N]`, 1 for a protected first token."""
    assert isinstance(rule, Thresholds)
    m_BN = rule.soft(number, score_BN)
    if convention.protect:
        m_BN = torch.cat([torch.ones_like(m_BN[:, :1]), m_BN[:, 1:]], dim=1)
    return m_BN


def survivors(
    rule: Rule,
    convention: Convention,
    number: int,
    alive_BN: torch.Tensor,
    score_BN: torch.Tensor,
    lengths: Sequence[int],
    keys: Sequence[int],
) -> torch.Tensor:
    """Who is alive after a layer, `[B, N]`; a text that would lose everybody keeps its most important token.

    Without scores, that is its first one that is alive.
    """
    row_M, position_M = alive_BN.nonzero(as_tuple=True)
    alive = AliveTokens(number, row_M, position_M, alive_BN.sum(1).tolist(), lengths, keys, convention.protect)
    stays_BN = torch.zeros_like(alive_BN)
    stays_BN[alive_BN] = rule.keep_mask(alive, score_BN[alive_BN])
    if convention.protect:
        stays_BN[:, 0] = True
    for row in (~stays_BN.any(1)).nonzero().flatten().tolist():
        worth_N = score_BN[row] if rule.scored else -torch.arange(len(alive_BN[row]), dtype=score_BN.dtype)
        stays_BN[row, worth_N.masked_fill(~alive_BN[row], -torch.inf).argmax()] = True
    return stays_BN
