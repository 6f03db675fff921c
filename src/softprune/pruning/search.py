"""Which ratios to try, in which groups candidates train, and which of them wins. Choices look at `select` only."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from softprune.errors import SoftpruneError
from softprune.training.jobs import Fitted
from softprune.types import Candidate, Mask

Ratios = tuple[float, float]
"""Token ratio and piece ratio: the fractions to prune of the tokens, and of the kept tokens' pieces."""


@dataclass(frozen=True, slots=True)
class MaskedCandidate:
    """A candidate with its mask, before it is retrained."""

    candidate: Candidate
    mask: Mask


@dataclass(frozen=True, slots=True)
class Trial:
    """A retrained candidate, its mask and its prompt."""

    candidate: Candidate
    mask: Mask
    fitted: Fitted


def first_ratios(
    strategy: str, levels: str, token_ratios: Sequence[float], piece_ratios: Sequence[float], samples: int, seed: int
) -> list[Ratios]:
    """The pairs of ratios that a search tries at first.

    Args:
        strategy: `grid` (every token ratio with every piece ratio), `random` (some of these pairs) or `sequential`
            (the token ratios alone; the piece ratios follow at the best of them). Grid and sequential are the two
            readings of the paper's "linearly searched".
        levels: both, token or piece; a level that is off has ratio 0.
        token_ratios, piece_ratios: fractions to prune.
        samples: how many pairs `random` tries; all of them, where there are no more.
        seed: what `random` draws by.
    """
    tokens = (0.0,) if levels == "piece" else token_ratios
    pieces = (0.0,) if levels == "token" or (levels == "both" and strategy == "sequential") else piece_ratios
    pairs = list(product(tokens, pieces))
    if strategy != "random" or samples >= len(pairs):
        return pairs
    drawn = np.random.default_rng(seed).choice(len(pairs), size=samples, replace=False)
    return [pairs[at] for at in sorted(drawn)]


def in_groups(candidates: Sequence[Candidate], size: int, removal: str) -> Iterator[list[Candidate]]:
    """Candidates that train side by side: at most `size`; under `drop`, of equal length, so none is padded."""
    if removal == "zero":
        lengths = [list(candidates)]
    else:
        counts = sorted({c.tokens_kept for c in candidates})
        lengths = [[c for c in candidates if c.tokens_kept == count] for count in counts]
    for same in lengths:
        for start in range(0, len(same), size):
            yield same[start : start + size]


def choose(
    candidates: Sequence[Candidate],
    objective: str,
    standard_errors: Mapping[str, float] | float = 0.0,
    within: float | None = None,
) -> Candidate:
    """The winner among trained candidates, by `select` alone.

    Args:
        candidates: those that were trained to the end count.
        objective: `best` (highest score), `one_se` (smallest ticket within one standard error of the best),
            `smallest_within` (smallest within `within` of the best).
        standard_errors: for `one_se`, of each candidate's difference to the best by its id, or one for all.
        within: for `smallest_within`, a fraction of 1.
    """
    trained = [c for c in candidates if c.select is not None]
    if not trained:
        raise SoftpruneError("at least one trained candidate", "none", "run the search first")
    best = max(trained, key=_quality)
    slack = {"best": 0.0, "one_se": standard_errors, "smallest_within": within or 0.0}[objective]
    if objective == "best":
        return best

    def is_good(candidate: Candidate) -> bool:
        room = slack if isinstance(slack, float | int) else slack.get(candidate.id, 0.0)
        # A hair of room, so that a score equal to the bound counts as within it.
        return (candidate.select or 0.0) >= (best.select or 0.0) - room - 1e-12

    good = [candidate for candidate in trained if is_good(candidate)]
    return min(good, key=lambda c: (c.parameters, *(-q for q in _quality(c))))


def pareto(candidates: Sequence[Candidate]) -> set[str]:
    """Ids on the Pareto front: no other trained candidate is as small and better, or smaller and as good."""
    trained = [c for c in candidates if c.select is not None]
    return {c.id for c in trained if not any(_dominates(other, c) for other in trained)}


def foresight(candidates: Sequence[Candidate]) -> dict[str, float | int | None] | None:
    """How well the loss of the masked, unretrained prompt told the `select` scores; None for fewer than three.

    Returns:
        `spearman`: rank correlation of lower loss with higher score, None where all are alike; `regret`: the best
        score less that of the candidate with the lowest loss, a fraction; `candidates`: how many were trained.
    """
    from scipy.stats import rankdata  # takes seconds to import

    known = [(c.rank_loss, c.select) for c in candidates if c.rank_loss is not None and c.select is not None]
    if len(known) < 3:
        return None
    losses, scores = (list(column) for column in zip(*known, strict=True))
    even = len(set(losses)) == 1 or len(set(scores)) == 1
    agreement = None if even else statistics.correlation(rankdata(losses), rankdata([-s for s in scores]))
    return {"spearman": agreement, "regret": max(scores) - scores[losses.index(min(losses))], "candidates": len(known)}


def _dominates(a: Candidate, b: Candidate) -> bool:
    size_a, size_b, score_a, score_b = a.parameters, b.parameters, a.select or 0.0, b.select or 0.0
    return size_a <= size_b and score_a >= score_b and (size_a, score_a) != (size_b, score_b)


def _quality(candidate: Candidate) -> tuple[float, int, float]:
    """Order of merit: score, then fewer parameters, then lower loss."""
    return (candidate.select or 0.0, -candidate.parameters, -(candidate.select_loss or 0.0))
