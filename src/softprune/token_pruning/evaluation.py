"""Texts evaluated by a pruned model: what it predicts, how many tokens it keeps, and what that costs.

Costs are multiply-accumulate operations, as the paper counts them and as they were computed:

    paper_macs     4 d^2 n + 2 d n^2 + 8 d^2 n'         a layer; n tokens before, n' after its pruning (section 4.1)
    executed_macs  3 d^2 n + 2 d n^2 + d^2 n' + 2 d f n'   as computed here: tokens that left need no output projection

d is the hidden size, f the feed-forward width. Only real tokens count, in the baseline too. A first token that was
pruned but is read by the head costs d^2 + 2 d f in the layer after which it left and 2 d f in every later one; the
paper's formula doesn't count it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from softprune.models.batching import scoring_batches
from softprune.token_pruning.families import Encoder
from softprune.token_pruning.forward import forward, soft_forward
from softprune.token_pruning.packing import pack
from softprune.token_pruning.rules import Convention, Rule, Thresholds
from softprune.training.trainable import products_in


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
        layers, hidden, inner = len(encoder.layers), encoder.hidden, encoder.inner
        if not executed:
            return relative_macs(hidden, self.lengths, self.kept_NL.T.tolist())
        pruned = whole = 0
        for length, kept_L, first in zip(self.lengths, self.kept_NL.tolist(), self.first_N.tolist(), strict=True):
            pruned += executed_macs(hidden, inner, length, kept_L, head_only=head_only, first_left=first)
            whole += executed_macs(hidden, inner, length, [length] * layers)
        return pruned / whole


def evaluate(
    encoder: Encoder,
    texts: Sequence[Sequence[int]],
    rule: Rule,
    convention: Convention,
    *,
    compute: torch.dtype,
    rows: int = 64,
    soft: bool = False,
) -> Predictions:
    """Predict texts, up to `rows` of similar length together, with matrix products in `compute`.

    The model is put into eval mode. `soft` uses the soft masks of thresholds, and nothing is removed.
    """
    encoder.model.eval()
    lengths = tuple(map(len, texts))
    logits_NC = np.zeros((len(texts), int(encoder.config.num_labels)), dtype=np.float32)
    kept_NL = np.zeros((len(texts), len(encoder.layers)), dtype=np.int64)
    first_N = np.zeros(len(texts), dtype=np.int64)
    with torch.no_grad(), products_in(compute, encoder.dtype, encoder.device):
        for indices in scoring_batches(lengths, rows):
            packed = pack([texts[i] for i in indices], encoder.device)
            if soft:
                assert isinstance(rule, Thresholds)
                output = soft_forward(encoder, packed, rule)
            else:
                output = forward(encoder, packed, rule, convention)
            logits_NC[list(indices)] = output.logits_BC.float().cpu().numpy()
            kept_NL[list(indices)] = np.array(output.kept_LB).T
            first_N[list(indices)] = output.left_M[packed.position_M == 0].cpu().numpy()
    return Predictions(logits_NC, kept_NL, first_N, lengths)


def paper_macs(hidden: int, original: int, kept_L: Sequence[int]) -> int:
    """Of one text of `original` tokens, of which `kept_L` are left after each layer."""
    total, before = 0, original
    for after in kept_L:
        total += 4 * hidden**2 * before + 2 * hidden * before**2 + 8 * hidden**2 * after
        before = after
    return total


def executed_macs(
    hidden: int,
    inner: int,
    original: int,
    kept_L: Sequence[int],
    *,
    head_only: bool = False,
    first_left: int | None = None,
) -> int:
    """Of one text of `original` tokens, as `forward.forward` computes it.

    `head_only`: the last layer ran for one token alone (keys and values of all, the rest once). `first_left`: the layer
    after which the first token was pruned, if it was.
    """
    total, before, last = 0, original, len(kept_L) - 1
    feed_forward = 2 * hidden * inner
    if first_left is None:
        first_left = len(kept_L)
    for number, after in enumerate(kept_L):
        fallen = first_left < number
        if head_only and number == last:
            if not fallen:  # a fallen first token attends to nothing
                total += 2 * hidden**2 * (before + 1) + 2 * hidden * before
            total += feed_forward
            break
        total += 3 * hidden**2 * before + 2 * hidden * before**2 + (hidden**2 + feed_forward) * after
        if fallen:
            total += feed_forward
        elif first_left == number:
            total += hidden**2 + feed_forward
        before = after
    return total


def relative_macs(hidden: int, lengths: Sequence[int], kept_LB: Sequence[Sequence[int]]) -> float:
    """Paper's operations of some texts over those of the same texts unpruned."""
    pruned = whole = 0
    for text, length in enumerate(lengths):
        pruned += paper_macs(hidden, length, [kept_B[text] for kept_B in kept_LB])
        whole += paper_macs(hidden, length, [length] * len(kept_LB))
    return pruned / whole
