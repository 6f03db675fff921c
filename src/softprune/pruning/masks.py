"""From importance and ratios to masks (paper, section 4.2). Token level first, then pieces of the kept tokens."""

from __future__ import annotations

import math
from fractions import Fraction

import torch

from softprune.ratios import exact
from softprune.types import Mask


def keep_count(ratio: float, n: int, rounding: str = "nearest") -> int:
    """How many of n stay when the fraction `ratio` is pruned: floor((1 - r) n + 0.5), or floor((1 - r) n).

    The ratio counts as the decimal that was meant: 0.9 of 5 leaves exactly half a token, which rounds up to one.
    """
    left = (1 - exact(ratio)) * n
    return math.floor(left + Fraction(1, 2)) if rounding == "nearest" else math.floor(left)


def top(scores: torch.Tensor, count: int) -> torch.Tensor:
    """True at the `count` largest of a flat tensor; ties go to the lower index."""
    kept = torch.zeros(scores.numel(), dtype=torch.bool)
    # A stable sort: topk doesn't say which of equal scores it takes.
    kept[torch.sort(scores.double().cpu(), descending=True, stable=True).indices[:count]] = True
    return kept


def token_mask(importance_P: torch.Tensor, ratio: float, rounding: str = "nearest") -> torch.Tensor:
    """gamma of equation 2, `[P]` bool: the most important tokens, at least one."""
    return top(importance_P, max(1, keep_count(ratio, importance_P.numel(), rounding)))


def piece_mask(
    importance_PS: torch.Tensor, token_P: torch.Tensor, ratio: float, scope: str = "global", rounding: str = "nearest"
) -> torch.Tensor:
    """zeta of equation 4, `[P, S]` bool: the most important pieces of the kept tokens, at least one each.

    The importance is that of the token-pruned prompt, which keeps the tokens `token_P`; `ratio` is the fraction of
    their pieces to prune. The scope `global` ranks all of them together, `per_token` each token's among themselves.
    """
    rows = importance_PS[token_P].double().cpu()
    if scope == "per_token":
        count = max(1, keep_count(ratio, rows.shape[1], rounding))
        kept = torch.stack([top(row, count) for row in rows])
    else:
        kept = _at_least_one_each(rows, keep_count(ratio, rows.numel(), rounding))
    mask = torch.zeros(importance_PS.shape, dtype=torch.bool)
    mask[token_P] = kept
    return mask


def random_mask(like: Mask, seed: int) -> Mask:
    """A random mask of another's size at each level: as many tokens, as many pieces, at least one piece a token."""
    generator = torch.Generator().manual_seed(seed)
    tokens, pieces = like.piece_PS.shape
    token_P = top(torch.rand(tokens, generator=generator), like.tokens)
    rows = torch.rand(like.tokens, pieces, generator=generator)
    piece_PS = torch.zeros(tokens, pieces, dtype=torch.bool)
    piece_PS[token_P] = _at_least_one_each(rows, like.pieces)
    return Mask(token_P, piece_PS)


def complement(mask: Mask) -> Mask | None:
    """What a mask prunes over `[P, S]`: whole tokens, and the other pieces of kept ones; None if it prunes nothing."""
    piece_PS = ~mask.piece_PS
    return Mask(piece_PS.any(1), piece_PS) if bool(piece_PS.any()) else None


def without_least(importance_P: torch.Tensor, count: int, pieces: int) -> Mask:
    """Whole tokens alone: the `count` least important ones pruned; of equal ones the higher index."""
    return whole_tokens(top(importance_P, importance_P.numel() - count), pieces)


def without_most(importance_P: torch.Tensor, count: int, pieces: int) -> Mask:
    """Whole tokens alone: the `count` most important ones pruned; of equal ones the lower index."""
    return whole_tokens(~top(importance_P, count), pieces)


def without_random(tokens: int, count: int, pieces: int, seed: int) -> Mask:
    """Whole tokens alone: `count` of `tokens` pruned that the seed draws."""
    drawn_P = torch.rand(tokens, generator=torch.Generator().manual_seed(seed))
    return without_least(drawn_P, count, pieces)


def whole_tokens(token_P: torch.Tensor, pieces: int) -> Mask:
    """The mask that keeps all `pieces` of the tokens of `token_P`, `[P]` bool."""
    return Mask(token_P, token_P[:, None].expand(-1, pieces).clone())


def _at_least_one_each(rows: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` largest of a matrix, but every row keeps its best: those are set first, the rest by rank."""
    best = torch.sort(rows, dim=1, descending=True, stable=True).indices[:, 0]
    kept = torch.zeros(rows.shape, dtype=torch.bool)
    kept[torch.arange(len(rows)), best] = True
    order = torch.sort(rows.flatten(), descending=True, stable=True).indices
    others = order[~kept.flatten()[order]]
    kept.view(-1)[others[: max(0, count - len(rows))]] = True
    return kept
