"""A classifier run layer by layer, with input tokens leaving on the way.

In each layer the tokens that are left attend to each other, attention scores them, the rule decides which stay, and
only those go on to the output projection and the feed-forward part: every later tensor is shorter. The head reads the
last state of a text's first token; where the rule may remove that one, too, its state outlives it (see `forward`).

Costs are multiply-accumulate operations, as the paper counts them and as they were computed:

    paper_macs     4 d^2 n + 2 d n^2 + 8 d^2 n'         a layer; n tokens before, n' after its pruning (section 4.1)
    executed_macs  3 d^2 n + 2 d n^2 + d^2 n' + 2 d f n'   as computed here: tokens that left need no output projection

d is the hidden size, f the feed-forward width. Only real tokens count, in the baseline too. A first token that was
pruned but is read by the head costs d^2 + 2 d f in the layer after which it left and 2 d f in every later one; the
paper's formula doesn't count it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from softprune.models.batching import scoring_batches
from softprune.token_pruning.attention import attend
from softprune.token_pruning.cpu_kernels import linear
from softprune.token_pruning.families import Encoder, Layer
from softprune.token_pruning.packing import Packed, make_buckets, pack
from softprune.token_pruning.rules import AliveTokens, Convention, Rule, Thresholds, tokens_to_keep
from softprune.training.trainable import products_in


@dataclass(frozen=True, slots=True)
class ForwardOutput:
    """What a batch of B texts and M tokens gave."""

    logits_BC: torch.Tensor
    kept_LB: list[list[int]]  # number of tokens of each text that are left after each layer
    left_M: torch.Tensor  # per token of the batch, the layer after which it left; L for those that stayed to the end
    soft_B: torch.Tensor  # in the soft stage: the sum over layers of a text's mean soft mask; else 0
    state_MH: torch.Tensor  # last states of the tokens in `origin_M`
    origin_M: torch.Tensor  # the tokens that are left, as positions in the batch


@dataclass(frozen=True, slots=True)
class _Tokens:
    """The tokens that go into a layer."""

    hidden_MH: torch.Tensor
    row_M: torch.Tensor  # the text of each
    position_M: torch.Tensor  # its position there
    origin_M: torch.Tensor  # its position in the whole batch
    lengths: list[int]  # tokens of each text

    def select(self, mask_M: torch.Tensor) -> _Tokens:
        row_M = self.row_M[mask_M]
        lengths = torch.bincount(row_M, minlength=len(self.lengths)).tolist()
        return _Tokens(self.hidden_MH[mask_M], row_M, self.position_M[mask_M], self.origin_M[mask_M], lengths)

    def join(self, other: _Tokens) -> _Tokens:
        pairs = zip(self.lengths, other.lengths, strict=True)
        return _Tokens(
            torch.cat([self.hidden_MH, other.hidden_MH]),
            torch.cat([self.row_M, other.row_M]),
            torch.cat([self.position_M, other.position_M]),
            torch.cat([self.origin_M, other.origin_M]),
            [mine + others for mine, others in pairs],
        )


def forward(
    encoder: Encoder,
    batch: Packed,
    rule: Rule,
    convention: Convention,
    *,
    soft: bool = False,
    head_only: bool = False,
    keep_in_last: bool = False,
    fused: bool = True,
) -> ForwardOutput:
    """Run a batch without the tokens that a rule removes.

    Args:
        soft: remove nothing, but multiply the layers' outputs by the soft masks of thresholds (section 3.3).
        head_only: in the last layer, compute the first token of each text alone; nothing is pruned there, and
            `state_MH` is of these tokens only.
        keep_in_last: remove nothing after the last layer. There, only the price of a token decides, so that trained
            thresholds remove nearly all of them, which says nothing about what the head's token has attended to.
        fused: whether layers without scores may use torch's fused attention.
    """
    device, last = batch.ids_M.device, len(encoder.layers) - 1
    hidden_MH, origin_M = encoder.embed(batch.ids_M, batch.position_M), torch.arange(len(batch.ids_M), device=device)
    tokens = _Tokens(hidden_MH, batch.row_M, batch.position_M, origin_M, list(batch.lengths))
    # First tokens that were removed although the head reads them. They neither attend nor are attended to: attention
    # gives them the output projection's bias alone. Norms and feed-forward parts go on for them.
    fallen = tokens.select(torch.zeros_like(batch.row_M, dtype=torch.bool))
    left_M = torch.full_like(batch.row_M, len(encoder.layers))
    kept_LB, soft_B = [], torch.zeros(len(batch), device=device)
    for number, layer in enumerate(encoder.layers[:last] if head_only else encoder.layers):
        prunes = rule.prunes(number) and not (keep_in_last and number == last)
        context_MH, score_M = attend(
            *encoder.project(layer, tokens.hidden_MH),
            make_buckets(tokens.lengths, device),
            encoder.heads,
            scored=prunes and rule.scored,
            dropout=encoder.attention_dropout if encoder.model.training else 0.0,
            fused=fused,
        )
        if score_M is not None:
            score_M = score_M / convention.divisor
        keep_M = None
        if prunes and not soft:
            alive = AliveTokens(
                number, tokens.row_M, tokens.position_M, tokens.lengths, batch.lengths, batch.keys, convention.protect
            )
            keep_M = tokens_to_keep(rule, alive, score_M)
            left_M[tokens.origin_M[~keep_M]] = number
            # A first token removed now has attended in this layer, so it goes through the rest of it with the others.
            computed_M = keep_M | (tokens.position_M == 0)
            tokens, context_MH, keep_M = tokens.select(computed_M), context_MH[computed_M], keep_M[computed_M]
        tokens, fallen = _rest_of_layer(encoder, layer, tokens, context_MH, fallen)
        if keep_M is not None and not convention.protect:
            fallen, tokens = fallen.join(tokens.select(~keep_M)), tokens.select(keep_M)
        elif prunes and soft:
            assert isinstance(rule, Thresholds)
            assert score_M is not None
            tokens, mean_B = _mask_softly(tokens, rule.soft(number, score_M), convention.protect)
            soft_B = soft_B + mean_B
        kept_LB.append(tokens.lengths)
    if head_only:
        first_BH = _last_layer_of_first_tokens(encoder, encoder.layers[last], tokens, fallen)
        kept_LB.append([1] * len(batch))
        origin_B = (batch.position_M == 0).nonzero().flatten()
        return ForwardOutput(encoder.classify(first_BH), kept_LB, left_M, soft_B, first_BH, origin_B)
    logits_BC = encoder.classify(_first_states(tokens, fallen))
    return ForwardOutput(logits_BC, kept_LB, left_M, soft_B, tokens.hidden_MH, tokens.origin_M)


def _mask_softly(tokens: _Tokens, m_M: torch.Tensor, protect: bool) -> tuple[_Tokens, torch.Tensor]:
    """Tokens with their states multiplied by m, and the mean of m in each text; a protected token has no part in it."""
    counted_M = tokens.position_M >= int(protect)
    sum_B = m_M.new_zeros(len(tokens.lengths)).index_add(0, tokens.row_M, m_M * counted_M)
    sizes_B = torch.tensor(tokens.lengths, device=m_M.device) - int(protect)
    m_M = torch.where(counted_M, m_M, 1.0)
    masked_MH = tokens.hidden_MH * m_M[:, None].to(tokens.hidden_MH.dtype)
    return replace(tokens, hidden_MH=masked_MH), sum_B / sizes_B.clamp(min=1)  # the only token may be protected


def _rest_of_layer(
    encoder: Encoder, layer: Layer, tokens: _Tokens, context_MH: torch.Tensor, fallen: _Tokens
) -> tuple[_Tokens, _Tokens]:
    """Output projection, residual and feed-forward part, for the tokens and for the fallen ones."""
    projected_MH, hidden_MH, count = linear(layer.output, context_MH), tokens.hidden_MH, len(tokens.row_M)
    if len(fallen.row_M):
        bias_KH = layer.output.bias.to(projected_MH.dtype).expand(len(fallen.row_M), -1)  # the projection of zero
        hidden_MH = torch.cat([hidden_MH, fallen.hidden_MH])
        projected_MH = torch.cat([projected_MH, bias_KH])
    hidden_MH = encoder.feed_forward(layer, hidden_MH, projected_MH)
    return replace(tokens, hidden_MH=hidden_MH[:count]), replace(fallen, hidden_MH=hidden_MH[count:])


def _last_layer_of_first_tokens(encoder: Encoder, layer: Layer, tokens: _Tokens, fallen: _Tokens) -> torch.Tensor:
    """The last layer's output for the first token of each text alone, `[B, H]`; it attends to all that are alive."""
    firsts, heads = tokens.select(tokens.position_M == 0), encoder.heads
    # Where the first token has fallen, no token attends to the rest of the text any more.
    lengths = [length for length, attends in zip(tokens.lengths, firsts.lengths, strict=True) if attends]
    x_MH = tokens.hidden_MH[~torch.isin(tokens.row_M, fallen.row_M)]
    keys_MH, values_MH = linear(layer.key, x_MH), linear(layer.value, x_MH)
    queries_BH = linear(layer.query, firsts.hidden_MH)
    context_BH = torch.empty_like(queries_BH)
    for bucket in make_buckets(lengths, x_MH.device, waste=1.0):
        rows = torch.tensor(bucket.rows, device=x_MH.device)
        q = queries_BH[rows].view(len(bucket.rows), heads, 1, -1)
        k, v = bucket.gather_heads(keys_MH, heads), bucket.gather_heads(values_MH, heads)
        context_BH[rows] = F.scaled_dot_product_attention(q, k, v, attn_mask=bucket.attention_mask).flatten(1)
    return _first_states(*_rest_of_layer(encoder, layer, firsts, context_BH, fallen))


def _first_states(tokens: _Tokens, fallen: _Tokens) -> torch.Tensor:
    """States of the first token of each text, alive or fallen, in the order of the texts, `[B, H]`."""
    firsts = tokens.position_M == 0
    if not len(fallen.row_M):
        return tokens.hidden_MH[firsts]
    order_B = torch.cat([tokens.row_M[firsts], fallen.row_M]).argsort()  # every text is in one of the two, once
    return torch.cat([tokens.hidden_MH[firsts], fallen.hidden_MH])[order_B]


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a model predicted for some texts, in their order."""

    logits_NC: np.ndarray  # float32
    kept_NL: np.ndarray  # tokens left after each layer
    first_N: np.ndarray  # the layer after which each text's first token was pruned; L where it was not
    lengths: tuple[int, ...]  # tokens of each text

    @property
    def predicted(self) -> list[int]:
        """The class of each text; ties go to the first."""
        classes: list[int] = self.logits_NC.argmax(1).tolist()
        return classes

    def loss(self, golds: Sequence[int]) -> float:
        """Mean cross-entropy."""
        return float(F.cross_entropy(torch.from_numpy(self.logits_NC), torch.tensor(golds)))

    def kept(self) -> list[float]:
        """Share of all tokens that is left after each layer."""
        shares: list[float] = (self.kept_NL.sum(0) / sum(self.lengths)).tolist()
        return shares

    def relative_macs(self, encoder: Encoder, *, executed: bool = False, head_only: bool = False) -> float:
        """Operations over those of the unpruned model on the same real tokens.

        By the paper's formula, which ignores `head_only`; or (`executed`) what was computed, as of `executed_macs`.
        """
        if not executed:
            return relative_macs(encoder.hidden, self.lengths, self.kept_NL)
        sizes = (encoder.hidden, encoder.inner, self.lengths)
        pruned = executed_macs(*sizes, self.kept_NL, self.first_N, head_only=head_only)
        return pruned / executed_macs(*sizes, _keep_all(self.lengths, self.kept_NL))


def evaluate(
    encoder: Encoder,
    texts: Sequence[Sequence[int]],
    rule: Rule,
    convention: Convention,
    *,
    compute: torch.dtype,
    rows: int = 64,
    soft: bool = False,
    head_only: bool = False,
) -> Predictions:
    """Predict texts, up to `rows` of similar length together, with matrix products in `compute`.

    The model is put into eval mode. `soft` and `head_only` as of `forward`.
    """
    encoder.model.eval()
    lengths = tuple(map(len, texts))
    logits_NC = np.zeros((len(texts), int(encoder.config.num_labels)), dtype=np.float32)
    kept_NL = np.zeros((len(texts), len(encoder.layers)), dtype=np.int64)
    first_N = np.zeros(len(texts), dtype=np.int64)
    with torch.no_grad(), products_in(compute, encoder.dtype, encoder.device):
        for indices in map(list, scoring_batches(lengths, rows)):
            packed = pack([texts[i] for i in indices], encoder.device)
            output = forward(encoder, packed, rule, convention, soft=soft, head_only=head_only)
            logits_NC[indices] = output.logits_BC.float().cpu().numpy()
            kept_NL[indices] = np.array(output.kept_LB).T
            first_N[indices] = output.left_M[packed.position_M == 0].cpu().numpy()
    return Predictions(logits_NC, kept_NL, first_N, lengths)


def paper_macs(hidden: int, lengths: Sequence[int], kept_NL: npt.ArrayLike) -> int:
    """Of all texts, by their tokens and how many of them are left after each layer."""
    before_NL, after_NL = _before_and_after(lengths, kept_NL)
    macs_NL = 4 * hidden**2 * before_NL + 2 * hidden * before_NL**2 + 8 * hidden**2 * after_NL
    return int(macs_NL.sum())


def executed_macs(
    hidden: int,
    inner: int,
    lengths: Sequence[int],
    kept_NL: npt.ArrayLike,
    first_N: npt.ArrayLike = math.inf,
    *,
    head_only: bool = False,
) -> int:
    """Of all texts, as `forward` computes them.

    `first_N`: the layer after which each first token was pruned, L or infinity if it wasn't. `head_only`: the last
    layer ran for one token of a text alone (keys and values of all, the rest once).
    """
    before_NL, after_NL = _before_and_after(lengths, kept_NL)
    feed_forward, output = 2 * hidden * inner, hidden**2
    macs_NL = 3 * hidden**2 * before_NL + 2 * hidden * before_NL**2 + (output + feed_forward) * after_NL
    layer_L, first_N1 = np.arange(after_NL.shape[1]), np.reshape(first_N, (-1, 1))
    fallen_NL = first_N1 < layer_L
    macs_NL += feed_forward * fallen_NL + (output + feed_forward) * (first_N1 == layer_L)
    if head_only:
        before_N = before_NL[:, -1]
        attention_N = 2 * hidden**2 * (before_N + 1) + 2 * hidden * before_N
        macs_NL[:, -1] = feed_forward + attention_N * ~fallen_NL[:, -1]  # a fallen first token attends to nothing
    return int(macs_NL.sum())


def relative_macs(hidden: int, lengths: Sequence[int], kept_NL: npt.ArrayLike) -> float:
    """Paper's operations of some texts over those of the same texts unpruned."""
    return paper_macs(hidden, lengths, kept_NL) / paper_macs(hidden, lengths, _keep_all(lengths, kept_NL))


def _before_and_after(lengths: Sequence[int], kept_NL: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    after_NL = np.asarray(kept_NL, np.int64)
    return np.column_stack([np.asarray(lengths, np.int64), after_NL[:, :-1]]), after_NL


def _keep_all(lengths: Sequence[int], kept_NL: npt.ArrayLike) -> np.ndarray:
    return np.broadcast_to(np.asarray(lengths)[:, None], np.shape(kept_NL))
