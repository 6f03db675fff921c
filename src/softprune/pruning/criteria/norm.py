"""The Euclidean length of each vector, as magnitude pruning has it (Han et al. 2015, arXiv 1506.02626, for weights).

I_i = ||p_i||          I_is = the length of the piece
"""

from __future__ import annotations

import torch

from softprune.models.base import Backbone
from softprune.pruning.criteria.base import Importance
from softprune.training.scoring import ScoredSet, Scoring


def measure(backbone: Backbone, prompt_QH: torch.Tensor, data: ScoredSet, scoring: Scoring, pieces: int) -> Importance:
    """Importance by length, which needs no example."""
    vectors_QH = prompt_QH.detach().double().cpu()
    return Importance(vectors_QH.norm(dim=1), vectors_QH.unflatten(-1, (pieces, -1)).norm(dim=-1), "norm", 0)
