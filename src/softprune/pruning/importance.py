"""How much the loss depends on each token and piece (paper, section 4.2; Michel et al. 2019), and rival criteria.

With gamma_i multiplying token p_i, at gamma = 1 the chain rule gives (equation 3)

    I_i = E_x |dL(x) / dgamma_i| = E_x |<dL(x)/dp_i, p_i>|

and the same over a piece's dimensions for zeta (equation 5). The absolute value is per example, inside the
expectation: a batch gradient's magnitude is a different number, since examples that pull in opposite directions cancel
in it. Per-example gradients cost nothing extra: every row of a call has its own copy of the prompt, which is the leaf.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import torch

from softprune.models.base import Backbone
from softprune.training.scoring import ScoredSet, Scoring, my_batches, score_prompts

# Where the model normalises its input embeddings (BLOOM), a token's scale changes nothing and equation 3 vanishes.
VANISHING = 1e-2


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
        return not self.token_over_piece >= VANISHING


def measure(
    backbone: Backbone, prompt_QH: torch.Tensor, data: ScoredSet, scoring: Scoring, pieces: int, method: str
) -> Importance:
    """Importance over all of `train`, by a key of `CRITERIA`, or by `auto`: the paper's, unless it vanishes."""
    if method != "auto":
        return MEASURES[method](backbone, prompt_QH, data, scoring, pieces)
    paper = sensitivity(backbone, prompt_QH, data, scoring, pieces)
    if not paper.vanishes:
        return paper
    instead = leave_one_out(backbone, prompt_QH, data, scoring, pieces)
    return replace(instead, sensitivity_ratio=paper.token_over_piece)


def _multiply(gradient_BQH: torch.Tensor, prompt_BQH: torch.Tensor, pieces: int) -> tuple[torch.Tensor, torch.Tensor]:
    """|<g, p>| of tokens and pieces, g an example's own gradient (equations 3 and 5)."""
    product_BQS = (gradient_BQH * prompt_BQH).unflatten(-1, (pieces, -1)).sum(-1)
    return product_BQS.sum(-1).abs(), product_BQS.abs()


def _average(gradient_BQH: torch.Tensor, _: torch.Tensor, pieces: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean |g| over the dimensions of tokens and pieces (the BART study's)."""
    return gradient_BQH.abs().mean(-1), gradient_BQH.unflatten(-1, (pieces, -1)).abs().mean(-1)


def _measure_gradients(
    scores: Callable[[torch.Tensor, torch.Tensor, int], tuple[torch.Tensor, torch.Tensor]],
    method: str,
    backbone: Backbone,
    prompt_QH: torch.Tensor,
    data: ScoredSet,
    scoring: Scoring,
    pieces: int,
) -> Importance:
    """Means over all examples of the scores of their gradients."""
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
    return Importance(token_sum / len(data), piece_sum / len(data), method, len(data))


def example_gradients(
    backbone: Backbone, prompt_QH: torch.Tensor, data: ScoredSet, indices: tuple[int, ...], scoring: Scoring
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each example's own gradient of its loss, `[B, Q, H]`, and the prompt it was taken at, `[B, Q, H]`."""
    batch = data.batch(backbone, indices)
    leaf_BQH = prompt_QH.detach().expand(len(batch), *prompt_QH.shape).clone().requires_grad_()
    losses_B = backbone.row_losses(leaf_BQH, batch, scoring.loss, scoring.score)
    (gradient_BQH,) = torch.autograd.grad(losses_B.sum(), leaf_BQH)
    return gradient_BQH, leaf_BQH.detach()


sensitivity: Final = partial(_measure_gradients, _multiply, "paper")
magnitude: Final = partial(_measure_gradients, _average, "gradient")


def leave_one_out(
    backbone: Backbone, prompt_QH: torch.Tensor, data: ScoredSet, scoring: Scoring, pieces: int
) -> Importance:
    """Mean loss with one token (or piece) masked, minus the loss with none; forward passes only.

    Signed: a token whose absence lowers the loss scores below zero and goes first.
    """
    tokens, hidden = prompt_QH.shape
    base = score_prompts(backbone, prompt_QH[None], data, scoring)[0].loss
    one_token = torch.eye(tokens, dtype=torch.bool)[:, :, None].expand(-1, -1, hidden)
    one_piece = torch.eye(tokens * pieces, dtype=torch.bool).view(-1, tokens, pieces)
    one_piece = one_piece.repeat_interleave(hidden // pieces, dim=2)

    def losses_without(masked_MQH: torch.Tensor) -> torch.Tensor:
        losses: list[float] = []
        for part in masked_MQH.split(32):  # prompts at once: P * S of them would fill the memory
            prompts = prompt_QH.masked_fill(part.to(prompt_QH.device), 0.0)
            losses += [scores.loss for scores in score_prompts(backbone, prompts, data, scoring)]
        return torch.tensor(losses, dtype=torch.float64)

    token_P, piece_M = losses_without(one_token) - base, losses_without(one_piece) - base
    return Importance(token_P, piece_M.view(tokens, pieces), "leave_one_out", len(data))


def norm(backbone: Backbone, prompt_QH: torch.Tensor, data: ScoredSet, scoring: Scoring, pieces: int) -> Importance:
    """The Euclidean length of each token and piece, which needs no example."""
    vectors_QH = prompt_QH.detach().double().cpu()
    return Importance(vectors_QH.norm(dim=1), vectors_QH.unflatten(-1, (pieces, -1)).norm(dim=-1), "norm", 0)


MEASURES: Final[dict[str, Callable[[Backbone, torch.Tensor, ScoredSet, Scoring, int], Importance]]] = {
    "paper": sensitivity,
    "gradient": magnitude,
    "leave_one_out": leave_one_out,
    "norm": norm,
}
"""What measures each criterion of `CRITERIA`."""
