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
import numpy.typing as npt
import torch
import torch.nn.functional as F

from softprune.models.batching import scoring_batches
from softprune.token_pruning.families import Encoder
from softprune.token_pruning.forward import forward
from softprune.token_pruning.packing import pack
from softprune.token_pruning.rules import Convention, Rule
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
) -> Predictions:
    """Predict texts, up to `rows` of similar length together, with matrix products in `compute`.

    The model is put into eval mode. `soft` as of `forward`.
    """
    encoder.model.eval()
    lengths = tuple(map(len, texts))
    logits_NC = np.zeros((len(texts), int(encoder.config.num_labels)), dtype=np.float32)
    kept_NL = np.zeros((len(texts), len(encoder.layers)), dtype=np.int64)
    first_N = np.zeros(len(texts), dtype=np.int64)
    with torch.no_grad(), products_in(compute, encoder.dtype, encoder.device):
        for indices in map(list, scoring_batches(lengths, rows)):
            packed = pack([texts[i] for i in indices], encoder.device)
            output = forward(encoder, packed, rule, convention, soft=soft)
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
    first_N: npt.ArrayLike | None = None,
    *,
    head_only: bool = False,
) -> int:
    """Of all texts, as `forward.forward` computes them.

    `first_N`: the layer after which each first token was pruned; None if none was. `head_only`: the last layer ran for
    one token of a text alone (keys and values of all, the rest once).
    """
    before_NL, after_NL = _before_and_after(lengths, kept_NL)
    feed_forward, output = 2 * hidden * inner, hidden**2
    macs_NL = 3 * hidden**2 * before_NL + 2 * hidden * before_NL**2 + (output + feed_forward) * after_NL
    layers = after_NL.shape[1]
    first_N1 = np.full((len(lengths), 1), layers) if first_N is None else np.reshape(first_N, (-1, 1))
    fallen_NL = first_N1 < np.arange(layers)
    macs_NL += feed_forward * fallen_NL + (output + feed_forward) * (first_N1 == np.arange(layers))
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
