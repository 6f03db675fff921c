"""Which ratios to try, in which groups candidates train, and which of them wins. Choices look at `select` only."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from softprune.errors import SoftpruneError
from softprune.runs.record_parts import Foresight
from softprune.statistics.frontier import non_dominated
from softprune.training.jobs import Fitted
from softprune.types import Candidate, Mask

Ratios = tuple[float, float]
"""Token ratio and piece ratio: the fractions to prune of the tokens, and of the kept tokens' pieces."""


@dataclass(frozen=True, slots=True)
class MaskedCandidate:
    """A candidate with its mask, before it is retrained."""

    candidate: Candidate
    mask: Mask

    @classmethod
    def make(cls, name: str, mask: Mask, hidden: int, token_ratio: float, piece_ratio: float) -> MaskedCandidate:
        """One of tokens of `hidden` dimensions, counted."""
        sizes = (mask.tokens, mask.pieces, mask.parameters(hidden))
        return cls(Candidate(name, token_ratio, piece_ratio, *sizes), mask)


@dataclass(frozen=True, slots=True)
class Trial:
    """A retrained candidate, its mask and its prompt."""

    candidate: Candidate
    mask: Mask
    fitted: Fitted


def first_ratios(
    strategy: str, levels: str, token_ratios: Sequence[float], piece_ratios: Sequence[float], samples: int, seed: int
) -> list[Ratios]:
    """The pairs of ratios that a search tries at first; a level that is off has ratio 0.

    By strategy: `grid`, every token ratio with every piece ratio; `random`, `samples` of these pairs, drawn by `seed`;
    or `sequential`, the token ratios alone, whose best the piece ratios follow. Grid and sequential are the two
    readings of the paper's "linearly searched".
    """
    tokens = (0.0,) if levels == "piece" else token_ratios
    pieces = (0.0,) if levels == "token" or (levels == "both" and strategy == "sequential") else piece_ratios
    pairs = list(product(tokens, pieces))
    if strategy != "random" or samples >= len(pairs):
        return pairs
    drawn = np.random.default_rng(seed).choice(len(pairs), size=samples, replace=False)
    return [pairs[at] for at in sorted(drawn)]


def in_groups(lengths: Sequence[int], size: int, removal: str) -> Iterator[list[int]]:
    """Places of prompts, by their tokens, that train side by side: `size` at most, under `drop` of equal length."""
    by_length: dict[int, list[int]] = {}
    for place, length in enumerate(lengths):
        if removal == "zero":  # a pruned token is still read: all are equally long
            length = 0
        by_length.setdefault(length, []).append(place)
    for length in sorted(by_length):
        for start in range(0, len(by_length[length]), size):
            yield by_length[length][start : start + size]


def choose(
    candidates: Sequence[Candidate],
    objective: str,
    standard_errors: Mapping[str, float] | float = 0.0,
    within: float | None = None,
) -> Candidate:
    """The winner among candidates that were trained to the end, by `select` alone.

    By objective: `best`, the highest score; `one_se`, the smallest ticket within one standard error of the best, that
    of each candidate's difference to it by id, or one for all; `smallest_within`, the smallest within `within` of it.
    """
    trained = [candidate for candidate in candidates if candidate.select is not None]
    if not trained:
        raise SoftpruneError("at least one trained candidate", "none", "run the search first")
    best = max(trained, key=_quality)
    if objective == "best":
        return best
    slack = {"one_se": standard_errors, "smallest_within": within or 0.0}[objective]
    good = []
    for candidate in trained:
        room = slack.get(candidate.id, 0.0) if isinstance(slack, Mapping) else slack
        # A hair of room, so that a score equal to the bound counts as within it.
        if (candidate.select or 0.0) >= (best.select or 0.0) - room - 1e-12:
            good.append(candidate)
    return min(good, key=lambda c: (c.parameters, *(-q for q in _quality(c))))


def pareto(candidates: Sequence[Candidate]) -> set[str]:
    """Ids on the Pareto front: no other trained candidate is as small and better, or smaller and as good."""
    trained = [(c.id, (c.parameters, c.select)) for c in candidates if c.select is not None]
    front = non_dominated([point for _, point in trained])
    return {name for (name, _), kept in zip(trained, front, strict=True) if kept}


def foresight(candidates: Sequence[Candidate]) -> Foresight | None:
    """How well the loss of the masked, unretrained prompt predicted the `select` scores; None for fewer than three.

    The rank correlation is of lower loss with higher score, None where all are alike; the regret is the best score less
    that of the candidate with the lowest loss.
    """
    from scipy.stats import rankdata  # takes seconds to import

    known = [(c.rank_loss, c.select) for c in candidates if c.rank_loss is not None and c.select is not None]
    if len(known) < 3:
        return None
    losses, scores = (list(column) for column in zip(*known, strict=True))
    spearman = None
    if len(set(losses)) > 1 and len(set(scores)) > 1:
        spearman = statistics.correlation(rankdata(losses), rankdata([-score for score in scores]))
    regret = max(scores) - scores[losses.index(min(losses))]
    return Foresight(spearman=spearman, regret=regret, candidates=len(known))


def _quality(candidate: Candidate) -> tuple[float, int, float]:
    """Order of merit: score, then fewer parameters, then lower loss."""
    return (candidate.select or 0.0, -candidate.parameters, -(candidate.select_loss or 0.0))
