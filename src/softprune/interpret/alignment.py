"""How alike two prompts are, in the order of their tokens and under the best alignment of them.

A prompt's tokens have an order that training chose by chance: two prompts may hold the same vectors in other places. So
the Frobenius norm of B - A is compared with the smallest one over all assignments of A's tokens to B's (the linear
assignment problem on squared distances; Kuhn, Naval Research Logistics Quarterly 2, 1955).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from softprune.errors import SoftpruneError
from softprune.interpret.neighbours import cosines


@dataclass(frozen=True, slots=True)
class Alignment:
    """Two prompts A `[P, H]` and B `[Q, H]` side by side.

    Where P and Q differ, the alignment leaves out the longer one's other tokens: it says how well the shorter one is
    contained in the longer, and is no distance of the two as wholes.
    """

    frobenius: float | None  # of B - A in order; None where P and Q differ
    aligned: float  # the smallest over all ways to give each token of the shorter prompt one of the longer prompt's
    cosine: float | None  # mean over tokens in order; None where P and Q differ, or no pair has a direction
    aligned_cosine: float | None  # mean over the pairs of the alignment
    mean_cosine: float | None  # of the two mean vectors; None where one is zero
    pairs: tuple[tuple[int, int], ...]  # (token of A, token of B), in A's order; ties as scipy settles them


def align(a_PH: torch.Tensor, b_QH: torch.Tensor) -> Alignment:
    """Compare two prompts. Pairs with a vector of zeros have no cosine, and are left out of its mean.

    Raises:
        SoftpruneError: for prompts of other embedding sizes, or without tokens.
    """
    from scipy.optimize import linear_sum_assignment  # takes long to import

    if a_PH.dim() != 2 or b_QH.dim() != 2 or a_PH.shape[1] != b_QH.shape[1] or not len(a_PH) or not len(b_QH):
        expected = "two prompts of one embedding size, each with a token at least"
        found = f"{list(a_PH.shape)} and {list(b_QH.shape)}"
        raise SoftpruneError(expected, found, "compare prompts of one model")
    a_PH, b_QH = a_PH.detach().cpu().double(), b_QH.detach().cpu().double()
    rows, columns = linear_sum_assignment((a_PH[:, None] - b_QH[None]).square().sum(-1).numpy())
    first_NH, second_NH = a_PH[rows], b_QH[columns]
    same_length = len(a_PH) == len(b_QH)
    return Alignment(
        frobenius=float((b_QH - a_PH).norm()) if same_length else None,
        aligned=float((second_NH - first_NH).norm()),
        cosine=_mean_cosine(a_PH, b_QH) if same_length else None,
        aligned_cosine=_mean_cosine(first_NH, second_NH),
        mean_cosine=_mean_cosine(a_PH.mean(0, keepdim=True), b_QH.mean(0, keepdim=True)),
        pairs=tuple(zip(rows.tolist(), columns.tolist(), strict=True)),
    )


def _mean_cosine(a_NH: torch.Tensor, b_NH: torch.Tensor) -> float | None:
    real_N = a_NH.any(-1) & b_NH.any(-1)
    return float(cosines(a_NH[real_N], b_NH[real_N]).mean()) if real_N.any() else None
