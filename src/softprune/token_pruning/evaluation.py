"""Texts read by a pruned model: logits, predictions, and what was kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from softprune.models.batching import scoring_batches
from softprune.token_pruning.families import Anatomy
from softprune.token_pruning.forward import hard_pass, soft_pass
from softprune.token_pruning.macs import executed_macs, paper_macs
from softprune.token_pruning.packing import pack
from softprune.token_pruning.rules import Convention, Rule, Thresholds
from softprune.token_pruning.trainable import autocast


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model said of some texts, in their order.

    Attributes:
        logits_NC: float32.
        kept_NL: tokens left after each layer.
        first_N: the layer after which each text's first token was pruned; L where it was not.
        lengths: tokens of each text.
    """

    logits_NC: np.ndarray
    kept_NL: np.ndarray
    first_N: np.ndarray
    lengths: tuple[int, ...]

    @property
    def predicted(self) -> list[int]:
        """The class of each text; ties go to the first."""
        found: list[int] = self.logits_NC.argmax(1).tolist()
        return found

    def loss(self, golds: Sequence[int]) -> float:
        """Mean cross-entropy."""
        return float(F.cross_entropy(torch.from_numpy(self.logits_NC), torch.tensor(golds)))

    def kept(self) -> list[float]:
        """Share of all tokens that is left after each layer."""
        shares: list[float] = (self.kept_NL.sum(0) / sum(self.lengths)).tolist()
        return shares

    def relative_macs(self, anatomy: Anatomy, *, executed: bool = False, head_only: bool = False) -> float:
        """Operations over those of the unpruned model on the same real tokens: the paper's count, or what was done.

        `head_only` as `executed_macs` has it; the paper's count knows nothing of it.
        """
        layers, hidden, inner = len(anatomy.layers), anatomy.hidden, anatomy.inner
        pruned = whole = 0
        for length, kept_L, first in zip(self.lengths, self.kept_NL.tolist(), self.first_N.tolist(), strict=True):
            if executed:
                pruned += executed_macs(hidden, inner, length, kept_L, head_only=head_only, first_left=first)
                whole += executed_macs(hidden, inner, length, [length] * layers)
            else:
                pruned += paper_macs(hidden, length, kept_L)
                whole += paper_macs(hidden, length, [length] * layers)
        return pruned / whole


def answer(
    anatomy: Anatomy,
    texts: Sequence[Sequence[int]],
    rule: Rule,
    convention: Convention,
    *,
    compute: torch.dtype,
    rows: int = 64,
    soft: bool = False,
) -> Answers:
    """Read texts, those of similar length together.

    Args:
        anatomy: the model; it is put into eval mode.
        texts: token ids with special tokens.
        rule: who stays.
        convention: how importance is counted.
        compute: dtype of the matrix products.
        rows: texts of a call.
        soft: with the soft masks of thresholds instead, to see the gap between the two.
    """
    anatomy.model.eval()
    lengths = tuple(map(len, texts))
    classes = int(anatomy.config.num_labels)
    logits_NC = np.zeros((len(texts), classes), dtype=np.float32)
    kept_NL = np.zeros((len(texts), len(anatomy.layers)), dtype=np.int64)
    first_N = np.zeros(len(texts), dtype=np.int64)
    with torch.no_grad(), autocast(anatomy, compute):
        for indices in scoring_batches(lengths, rows):
            packed = pack([texts[i] for i in indices], anatomy.device)
            if soft:
                assert isinstance(rule, Thresholds)
                read = soft_pass(anatomy, packed, rule)
            else:
                read = hard_pass(anatomy, packed, rule, convention)
            logits_NC[list(indices)] = read.logits_BC.float().cpu().numpy()
            kept_NL[list(indices)] = np.array(read.kept_LB).T
            first_N[list(indices)] = read.left_M[packed.position_M == 0].cpu().numpy()
    return Answers(logits_NC, kept_NL, first_N, lengths)
