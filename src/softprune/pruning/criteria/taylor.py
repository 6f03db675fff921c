"""First-order Taylor importance of a group of weights (Molchanov et al. 2019, arXiv 1906.10771, on gates).

The squared change of the loss when the group is removed, to first order, with E the loss over the data set:

    I_i = (E(p) - E(p | p_i = 0))^2 ~ (dE/dgamma_i)^2 = (E_x <dL(x)/dp_i, p_i>)^2          I_is = (E_x dL(x)/dzeta_is)^2

The square is outside the mean over examples, as in the paper, whose gradients are those of a batch: examples that pull
in opposite directions cancel. (Its authors then average over batches; here all examples are one batch, so that scores
don't depend on batches.) With the square inside it would rank as `fisher` does. At a prompt that training has brought
to rest the mean gradient is near zero, and what is left of it is partly chance.
"""

from __future__ import annotations

import torch

from softprune.models.base import Backbone
from softprune.pruning.criteria.base import Importance, average, mask_gradients
from softprune.training.scoring import ScoredSet, Scoring


def measure(backbone: Backbone, prompt_QH: torch.Tensor, data: ScoredSet, scoring: Scoring, pieces: int) -> Importance:
    """Importance by the square of the mean derivative of the loss to the mask, over all of `data`."""
    token_Q, piece_QS = average(mask_gradients, backbone, prompt_QH, data, scoring, pieces)
    return Importance(token_Q.square(), piece_QS.square(), "taylor", len(data))
