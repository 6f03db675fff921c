"""Which candidates to train, in which groups, and which of them wins. Choices look at `select` only."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

from softprune.errors import SoftpruneError
from softprune.types import Candidate

Train = Callable[[Sequence[tuple[float, float]]], list[Candidate]]
"""Makes candidates of (token ratio, piece ratio) pairs, ranks, rewinds and retrains them."""

Pick = Callable[[Sequence[Candidate]], Candidate]
"""Chooses among trained candidates by the run's objective."""


def search(
    strategy: str,
    levels: str,
    token_ratios: Sequence[float],
    piece_ratios: Sequence[float],
    train: Train,
    pick: Pick,
) -> list[Candidate]:
    """Train the candidates of a strategy.

    Args:
        strategy: `grid` (every token ratio with every piece ratio) or `sequential` (the token ratios alone, then the
            piece ratios at the one that the objective picks); the two readings of the paper's "linearly searched".
            `halving` plans what `grid` does, and leaves it to `train` to stop the worse ones early.
        levels: both, token or piece; a level that is off has ratio 0.
        token_ratios, piece_ratios: fractions to prune.
        train: what makes and trains candidates.
        pick: the run's objective.
    """
    if levels == "token":
        return train([(t, 0.0) for t in token_ratios])
    if levels == "piece":
        return train([(0.0, p) for p in piece_ratios])
    if strategy in ("grid", "halving"):
        return train([(t, p) for t in token_ratios for p in piece_ratios])
    first = train([(t, 0.0) for t in token_ratios])
    token_ratio = pick(first).token_ratio
    return first + train([(token_ratio, p) for p in piece_ratios])


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


def tiers(candidates: Sequence[Candidate], count: int) -> list[list[Candidate]]:
    """Levels of compression: candidates by parameters, on `count` equal steps of their logarithm; none is empty.

    Halving within each level keeps small tickets in the race, which lose to large ones at every rung, and so finds the
    Pareto front instead of the mildest ratio.
    """
    sizes = [math.log(c.parameters) for c in candidates]
    low, span = min(sizes), max(sizes) - min(sizes)
    levels: list[list[Candidate]] = [[] for _ in range(count)]
    for candidate, size in zip(candidates, sizes, strict=True):
        levels[min(count - 1, int(count * (size - low) / span)) if span else 0].append(candidate)
    return [level for level in levels if level]


def rungs(first: int, factor: int) -> list[tuple[int, float]]:
    """Successive halving (Jamieson and Talwalkar 2016): candidates of a tier, and their share of all steps, a rung.

    Args:
        first: candidates at the first rung.
        factor: by how much they get fewer, and their steps more, from one rung to the next.
    """
    counts = [first]
    while counts[-1] > 1:
        counts.append(max(1, counts[-1] // factor))
    return [(count, factor ** -(len(counts) - 1 - at)) for at, count in enumerate(counts)]


def leaders(level: Sequence[Candidate], count: int) -> list[Candidate]:
    """A tier's best so far: by what training gave them, and before any training by the loss of the masked prompt."""

    def merit(candidate: Candidate) -> tuple[float, ...]:
        if candidate.rung == 0:
            return (-(candidate.rank_loss if candidate.rank_loss is not None else math.inf), -candidate.parameters)
        return _quality(candidate)

    return sorted(level, key=merit, reverse=True)[:count]


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
