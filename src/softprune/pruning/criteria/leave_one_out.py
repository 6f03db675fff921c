"""What the loss grows by when a part is masked, measured by masking it.

    I_i = L(p | p_i = 0) - L(p)          I_is = the same with a piece of zeros,          L = E_x L(x)

Signed: a part whose absence lowers the loss scores below zero and goes first. `taylor` and `fisher` approximate this
from gradients.
"""

from __future__ import annotations

import torch

from softprune.models.base import Backbone
from softprune.pruning.criteria.base import Importance
from softprune.training.scoring import ScoredSet, Scoring, score_prompts


def measure(backbone: Backbone, prompt_QH: torch.Tensor, data: ScoredSet, scoring: Scoring, pieces: int) -> Importance:
    """Importance by the loss without each part in turn; forward passes only."""
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
