"""A whole prompt that teaches smaller ones: its distribution over answers, or next tokens, beside the labels.

    L(x) = (1 - w) * loss of the label + w * KL(p_teacher(. | x) || p(. | x))

(Hinton et al. 2015, arXiv 1503.02531, section 2, at temperature 1). Rows without a label have the second term alone.
Over answers, p is the softmax of their scores; where a text is written, p is over the vocabulary at each of its tokens,
and the divergence is their mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import cast

import torch

from softprune.models.base import Backbone, per_token, tile
from softprune.models.generation import GenerativeBackbone
from softprune.models.log_probs import scatter_sums
from softprune.types import Batch


@dataclass(frozen=True, slots=True)
class Teacher:
    """A trained prompt `[Q, H]`, as the backbone reads it, and its share w of the loss.

    Within the block of `reading`, the backbone reads the batch that it gives as the teacher does.
    """

    prompt_QH: torch.Tensor
    weight: float
    reading: Callable[[Batch], AbstractContextManager[Batch]] = nullcontext

    def losses(
        self,
        backbone: Backbone,
        prompts_KPH: torch.Tensor,
        batch: Batch,
        loss: str,
        score: str,
        counts: Sequence[int],
    ) -> torch.Tensor:
        """Loss of each row, `[R]`, of prompts that rows share; the arguments are those of `Backbone.row_losses`."""
        read = self._read_texts if batch.answer_ids.shape[1] == 1 else self._read_answers
        sums_RA, taught_R = read(backbone, prompts_KPH, batch, score, counts)
        if self.weight == 1:
            return taught_R
        has_label_R = tile(batch.gold, len(taught_R)) >= 0
        labelled = replace(batch, gold=batch.gold.clamp(min=0))
        labelled_R = backbone.answer_losses(sums_RA, labelled, loss, score)
        return self.weight * taught_R + (1 - self.weight) * torch.where(has_label_R, labelled_R, 0.0)

    def _read_answers(
        self, backbone: Backbone, prompts_KPH: torch.Tensor, batch: Batch, score: str, counts: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Answer sums `[R, A]`, and the divergence over answers `[R]`."""
        with torch.no_grad(), self.reading(batch) as read:
            sums_BA = backbone.shared_sums(self.prompt_QH[None], read)
            wanted_BA = backbone.answer_scores(sums_BA, read, score).log_softmax(-1)
        sums_RA = backbone.shared_sums(prompts_KPH, batch, counts)
        given_RA = backbone.answer_scores(sums_RA, batch, score).log_softmax(-1)
        return sums_RA, divergence(tile(wanted_BA, len(given_RA)), given_RA)

    def _read_texts(
        self, backbone: Backbone, prompts_KPH: torch.Tensor, batch: Batch, score: str, counts: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same of texts, with the divergence over next tokens."""
        del score  # there is nothing to choose between
        writer = cast(GenerativeBackbone, backbone)
        with torch.no_grad(), self.reading(batch) as read:
            wanted_MV = writer.predict_tokens(self.prompt_QH[None], read).token_distributions()
        given = writer.predict_tokens(prompts_KPH, batch, counts)
        given_MV = given.token_distributions()
        taught_M = divergence(wanted_MV.repeat(len(given_MV) // len(wanted_MV), 1), given_MV)
        return given.answer_sums(), per_token(scatter_sums(taught_M, given.mask_RAT), batch)[:, 0]


def divergence(wanted_XA: torch.Tensor, given_XA: torch.Tensor) -> torch.Tensor:
    """KL(wanted || given) of log-probabilities over A choices, `[X]`; choices that are none are -inf in both."""
    gap_XA = torch.where(wanted_XA == float("-inf"), 0.0, wanted_XA - given_XA)
    return (wanted_XA.exp() * gap_XA).sum(-1)
