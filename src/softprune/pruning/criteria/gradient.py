"""The magnitude of the gradient, as in the BART study of pruned prompts.

I_i = E_x mean_h |dL(x)/dp_ih|          I_is = the same mean over the piece's dimensions
"""

from __future__ import annotations

import torch

from softprune.models.base import Backbone
from softprune.pruning.criteria.base import Importance, Parts, average
from softprune.training.scoring import ScoredSet, Scoring


def measure(backbone: Backbone, prompt_QH: torch.Tensor, data: ScoredSet, scoring: Scoring, pieces: int) -> Importance:
    """Importance by the mean magnitude of each example's gradient, over all of `data`."""
    return Importance(*average(_magnitudes, backbone, prompt_QH, data, scoring, pieces), "gradient", len(data))


def _magnitudes(gradient_BQH: torch.Tensor, _: torch.Tensor, pieces: int) -> Parts:
    return gradient_BQH.abs().mean(-1), gradient_BQH.unflatten(-1, (pieces, -1)).abs().mean(-1)
