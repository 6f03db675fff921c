"""Second-order importance with a diagonal Fisher matrix (Kwon et al. 2022, arXiv 2204.09656; LeCun et al. 1989).

Where training has come to rest, the loss grows without a part by half of its second derivative to the mask. The Hessian
is approximated by the diagonal of the empirical Fisher matrix:

    I_i = 1/2 E_x (dL(x)/dgamma_i)^2          I_is = 1/2 E_x (dL(x)/dzeta_is)^2

The square is per example, inside the expectation. Examples with large gradients count for
more than in `paper`.
"""

from __future__ import annotations

import torch

from softprune.models.base import Backbone
from softprune.pruning.criteria.base import Importance, Parts, average, mask_gradients
from softprune.training.scoring import ScoredSet, Scoring


def measure(backbone: Backbone, prompt_QH: torch.Tensor, data: ScoredSet, scoring: Scoring, pieces: int) -> Importance:
    """Importance by half the mean square of the derivative of the loss to the mask, over all of `data`."""
    return Importance(*average(_half_squares, backbone, prompt_QH, data, scoring, pieces), "fisher", len(data))


def _half_squares(gradient_BQH: torch.Tensor, prompt_BQH: torch.Tensor, pieces: int) -> Parts:
    token_BQ, piece_BQS = mask_gradients(gradient_BQH, prompt_BQH, pieces)
    return token_BQ.square() / 2, piece_BQS.square() / 2
