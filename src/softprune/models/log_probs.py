"""Log-probabilities of tokens, and their sums over answers.

Axes here: U places, V the vocabulary, M tokens, R rows, A answers, T tokens of an answer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from softprune.models.fused.layers import portions, run


class _TokenLogProbs(torch.autograd.Function):
    """Log-softmax at chosen places alone; its backward pass writes one gradient the size of the logits, not three."""

    @staticmethod
    def forward(ctx: Any, logits_UV: torch.Tensor, which_M: torch.Tensor, targets_M: torch.Tensor) -> torch.Tensor:
        wide = torch.promote_types(logits_UV.dtype, torch.float32)
        saved = torch.empty_like(logits_UV) if ctx.needs_input_grad[0] else None
        normalisers = []
        for at, part_uV in portions(logits_UV):
            probs_uV = torch.softmax(part_uV, -1, dtype=wide)
            # The normaliser from the likeliest word's probability, which can't underflow; exp over all would be slow.
            normalisers.append(part_uV.amax(-1) - probs_uV.amax(-1).log())
            if saved is not None:
                saved[at] = probs_uV
        normaliser_U = torch.cat(normalisers)
        ctx.save_for_backward(saved, which_M, targets_M)
        return logits_UV[which_M, targets_M] - normaliser_U[which_M]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_M: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        probs_UV, which_M, targets_M = ctx.saved_tensors
        total_U = grad_M.new_zeros(probs_UV.shape[0]).index_add_(0, which_M, grad_M)
        grad_UV = probs_UV * -total_U[:, None].to(probs_UV.dtype)
        grad_UV.index_put_((which_M, targets_M), grad_M.to(probs_UV.dtype), accumulate=True)
        return grad_UV, None, None


def token_log_probs(logits_UV: torch.Tensor, which_M: torch.Tensor, targets_M: torch.Tensor) -> torch.Tensor:
    """`log p(target)` of M tokens, in float32 at least, from the logits of the U distinct places that predict them.

    `which_M` is each token's place; answers that begin alike share places.
    """
    return run(_TokenLogProbs, logits_UV, which_M, targets_M)


class TokenPredictions(NamedTuple):
    """What a model says of every token of the answers."""

    logits_UV: torch.Tensor  # of the distinct places that predict them
    which_M: torch.Tensor  # the place that predicts each token, row by row and answer by answer
    ids_M: torch.Tensor
    mask_RAT: torch.Tensor  # where in the answers these tokens are

    def answer_sums(self) -> torch.Tensor:
        """Log-probability of each answer, summed over its tokens, `[R, A]`."""
        return scatter_sums(token_log_probs(self.logits_UV, self.which_M, self.ids_M), self.mask_RAT)

    def token_distributions(self) -> torch.Tensor:
        """Log-probabilities `[M, V]` of all tokens at each place, in float32 at least."""
        wide = torch.promote_types(self.logits_UV.dtype, torch.float32)
        return torch.log_softmax(self.logits_UV, -1, dtype=wide)[self.which_M]


def scatter_sums(values_M: torch.Tensor, mask_RAT: torch.Tensor) -> torch.Tensor:
    """Sum per answer the M values that belong to its real tokens: `[R, A]`, -inf where an answer has no token."""
    wide = values_M.new_zeros(mask_RAT.shape).masked_scatter(mask_RAT, values_M)
    return wide.sum(-1).masked_fill(~mask_RAT.any(-1), float("-inf"))
