"""Numbers that the run's seed draws: what any other criterion has to beat.

    I_i, I_is ~ U(0, 1)

No mask of a report's row "random mask": that one has the ticket's size, and other draws (`pruning/masks.py`).
"""

from __future__ import annotations

import numpy as np
import torch

from softprune.models.base import Backbone
from softprune.pruning.criteria.base import Importance
from softprune.training.scoring import ScoredSet, Scoring


def measure(backbone: Backbone, prompt_QH: torch.Tensor, data: ScoredSet, scoring: Scoring, pieces: int) -> Importance:
    """Importance that `scoring.seed` draws, alike for prompts of equally many tokens; it needs no example."""
    tokens = len(prompt_QH)
    # Not torch's generator: random masks draw from that with the same seed, and would keep the same tokens.
    generator = np.random.default_rng([scoring.seed, tokens])
    token_Q, piece_QS = generator.random(tokens), generator.random((tokens, pieces))
    return Importance(torch.from_numpy(token_Q), torch.from_numpy(piece_QS), "random", 0)
