"""The paper's sensitivity of the loss to the mask (XPrompt, section 4.2; Michel et al. 2019, arXiv 1905.10650).

With gamma multiplying tokens and zeta multiplying pieces (equations 3 and 5)

    I_i = E_x |dL(x)/dgamma_i| = E_x |<dL(x)/dp_i, p_i>|          I_is = E_x |dL(x)/dzeta_is|

The absolute value is per example, inside the expectation: a batch gradient's magnitude is a different number, since
examples that pull in opposite directions cancel in it (taylor.py).
"""

from __future__ import annotations

import torch

from softprune.models.base import Backbone
from softprune.pruning.criteria.base import Importance, Parts, average, mask_gradients
from softprune.training.scoring import ScoredSet, Scoring


def measure(backbone: Backbone, prompt_QH: torch.Tensor, data: ScoredSet, scoring: Scoring, pieces: int) -> Importance:
    """Importance by equations 3 and 5, over all of `data`."""
    return Importance(*average(_sensitivities, backbone, prompt_QH, data, scoring, pieces), "paper", len(data))


def _sensitivities(gradient_BQH: torch.Tensor, prompt_BQH: torch.Tensor, pieces: int) -> Parts:
    token_BQ, piece_BQS = mask_gradients(gradient_BQH, prompt_BQH, pieces)
    return token_BQ.abs(), piece_BQS.abs()
