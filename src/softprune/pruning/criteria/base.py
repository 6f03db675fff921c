"""What criteria share: their result, each example's own gradient, and means over all examples.

With gamma_i multiplying token p_i and zeta_is its piece s, at gamma = zeta = 1 the chain rule gives for an example x

    dL(x)/dgamma_i = <dL(x)/dp_i, p_i>        dL(x)/dzeta_is = the same product over the piece's dimensions

Per-example gradients cost nothing extra: every row of a call has its own copy of the prompt, which is the leaf.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch

from softprune.config.criteria import CRITERIA
from softprune.models.base import Backbone
from softprune.training.scoring import ScoredSet, Scoring, my_batches

# Where the model normalises its input embeddings (BLOOM), a token's scale changes nothing and equation 3 vanishes.
VANISHING = 1e-2

Parts: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Scores of tokens `[..., Q]`, and of pieces `[..., Q, S]`."""


@dataclass(frozen=True, slots=True)
class Importance:
    """Scores of one prompt's tokens and pieces; higher is more important."""

    token_P: torch.Tensor  # `[Q]` float64, of the tokens that were read
    piece_PS: torch.Tensor  # `[Q, S]` float64
    method: str
    examples: int  # that it was measured on
    # `token_over_piece` of equation 3, where `auto` measured that first and turned away from it.
    sensitivity_ratio: float | None = None

    @property
    def token_over_piece(self) -> float:
        """Largest token score over largest piece score; near zero where equation 3 vanishes."""
        if self.sensitivity_ratio is not None:
            return self.sensitivity_ratio
        largest = float(self.piece_PS.max())
        return float(self.token_P.max()) / largest if largest > 0 else float("nan")

    @property
    def vanishes(self) -> bool:
        """Whether the token scores say nothing; so does the gradient of an open token's gate then."""
        threshold = VANISHING**2 if CRITERIA[self.method].squares else VANISHING
        return not self.token_over_piece >= threshold


Measure: TypeAlias = Callable[[Backbone, torch.Tensor, ScoredSet, Scoring, int], Importance]
"""A criterion's `measure(backbone, prompt_QH, data, scoring, pieces)`: of what the backbone reads of a prompt."""


def example_gradients(
    backbone: Backbone, prompt_QH: torch.Tensor, data: ScoredSet, indices: tuple[int, ...], scoring: Scoring
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each example's own gradient of its loss, `[B, Q, H]`, and the prompt it was taken at, `[B, Q, H]`."""
    batch = data.batch(backbone, indices)
    leaf_BQH = prompt_QH.detach().expand(len(batch), *prompt_QH.shape).clone().requires_grad_()
    losses_B = backbone.row_losses(leaf_BQH, batch, scoring.loss, scoring.score)
    (gradient_BQH,) = torch.autograd.grad(losses_B.sum(), leaf_BQH)
    return gradient_BQH, leaf_BQH.detach()


def mask_gradients(gradient_BQH: torch.Tensor, prompt_BQH: torch.Tensor, pieces: int) -> Parts:
    """dL/dgamma and dL/dzeta of every example, signed, from its gradient at the prompt."""
    piece_BQS = (gradient_BQH * prompt_BQH).unflatten(-1, (pieces, -1)).sum(-1)
    return piece_BQS.sum(-1), piece_BQS


def average(
    scores: Callable[[torch.Tensor, torch.Tensor, int], Parts],
    backbone: Backbone,
    prompt_QH: torch.Tensor,
    data: ScoredSet,
    scoring: Scoring,
    pieces: int,
) -> Parts:
    """Means over all examples, float64, of the scores of an example's gradient `[B, Q, H]` at the prompt `[B, Q, H]`.

    Several processes share the examples, and each gets the means over all of them.
    """
    token_sum = torch.zeros(len(prompt_QH), dtype=torch.float64)
    piece_sum = torch.zeros(len(prompt_QH), pieces, dtype=torch.float64)
    # Under `rank`, all but sentence models may read an input once an answer.
    multiple = 1
    if scoring.loss == "rank" and backbone.family != "sentence":
        multiple = max(len(e.answer_ids) for e in data.encoded)
    for indices in my_batches(data, scoring.gradient_rows, multiple, scoring.processes):
        token_BQ, piece_BQS = scores(*example_gradients(backbone, prompt_QH, data, indices, scoring), pieces)
        token_sum += token_BQ.double().sum(0).cpu()
        piece_sum += piece_BQS.double().sum(0).cpu()
    scoring.processes.sum_(token_sum, piece_sum)
    return token_sum / len(data), piece_sum / len(data)
