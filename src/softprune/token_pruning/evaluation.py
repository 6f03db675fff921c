"""Texts evaluated by a pruned model: logits, predictions, and how many tokens were kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from softprune.models.batching import scoring_batches
from softprune.token_pruning.families import Encoder
from softprune.token_pruning.forward import forward, soft_forward
from softprune.token_pruning.macs import executed_macs, relative_macs
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
    """Predict texts, those of similar length together.

    Args:
        encoder: the model; it is put into eval mode.
        compute: dtype of the matrix products.
        rows: texts of a call.
        soft: use the soft masks of thresholds instead.
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
