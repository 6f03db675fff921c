"""Intervals and paired tests, for every metric that is a function of summed counts.

A metric turns each example into a row of counts (accuracy: `[correct, 1]`; binary F1: `[tp, fp, fn]`) and a
score is a function of the rows' sum. Resampling n examples with replacement is then one multinomial draw over
the *distinct* rows, each as likely as it is frequent, so 10,000 resamples of a large set cost milliseconds.

Axes here: N examples, C counts, U distinct rows, R resamples.

Sources: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 13 and 15; McNemar,
Psychometrika 12 (1947); Dror et al., The Hitchhiker's Guide to Testing Statistical Significance in NLP
(ACL 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from softprune.errors import SoftpruneError

Floats = npt.NDArray[np.float64]
Score = Callable[[Floats], Floats]
Groups = Sequence[Hashable | None] | None
Counts = npt.ArrayLike | Sequence[npt.ArrayLike]

RESAMPLES = 10_000
LEVEL = 0.95
CHUNK_CELLS = 4_000_000  # R x U cells drawn at a time: 32 MB


class Interval(NamedTuple):
    """A range that holds the true value with the asked confidence."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Score of a minus score of b, each the mean over its training seeds."""

    value: float  # on the examples themselves
    low: float  # ends of its interval
    high: float
    p: float  # two-sided, of "no difference"
    # Whether interval and p cover the sampling of training seeds (`seeds.compare_rows`), or that of examples alone:
    # then they hold for these very prompts.
    covers_seeds: bool = False
    seeds: int = 1  # of the side that has fewer of them
    units: int = 0  # examples, or groups of them, that were sampled
    se_seeds: float | None = None  # standard error from the sampling of seeds; None where that isn't covered
    se_examples: float = 0.0  # the same from the sampling of examples
    seeds_df: float | None = None  # degrees of freedom of `se_seeds`


def bootstrap_interval(
    counts_NC: npt.ArrayLike,
    score: Score,
    groups: Groups = None,
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> Interval:
    """The percentile bootstrap interval of a score, at 95%.

    `counts_NC` has a row of counts per example, and `score` takes sums `[..., C]` to scores `[...]`. Where there are
    `groups`, one id per example, whole groups are resampled (MultiRC's passages).

    Raises:
        SoftpruneError: without examples, or with another number of group ids than examples.
    """
    return Interval(*percentiles(_resample(_sum_groups(counts_NC, groups), score, seed, resamples)))


def resampled_sums(counts_NC: npt.ArrayLike, groups: Groups = None, *, seed: int, resamples: int = RESAMPLES) -> Floats:
    """Sums of counts over resamples, `[R, C]`, for many scores of the same resamples; see `bootstrap_interval`."""
    return _resample(_sum_groups(counts_NC, groups), lambda totals: totals, seed, resamples)


def paired_bootstrap(
    counts_a: Counts,
    counts_b: Counts,
    score: Score,
    groups: Groups = None,
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> Difference:
    """Compare two models on the same examples, a minus b: both are scored on the same resamples.

    Counts are `[N, C]`, or a list of such arrays, one per training seed, of which either side may have its own number;
    a side's score is then their mean. The other arguments are as in `bootstrap_interval`; p as in `two_sided_p`.

    Raises:
        SoftpruneError: when the arrays don't describe the same number of examples, or there are none.
    """
    a, b = as_seeds(counts_a), as_seeds(counts_b)
    return bootstrap_difference(a, b, score, groups, seed=seed, resamples=resamples)[0]


def bootstrap_difference(
    a: Sequence[Floats],
    b: Sequence[Floats],
    score: Score,
    groups: Groups = None,
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> tuple[Difference, Floats]:
    """As `paired_bootstrap`, with the difference of every resample, `[R]`. Without b it is the mean of a itself."""
    if len({len(array) for array in [*a, *b]}) > 1:
        found = f"arrays of {', '.join(str(len(array)) for array in [*a, *b])} examples"
        raise SoftpruneError("the same examples for both models", found, "score both models on the same set")
    seeds, width = len(a), a[0].shape[1]

    def difference(totals: Floats) -> Floats:
        by_seed = totals.reshape(*totals.shape[:-1], -1, width)
        scores: Floats = np.asarray(score(by_seed), np.float64)
        mean = scores[..., :seeds].mean(axis=-1)
        return np.asarray(mean - scores[..., seeds:].mean(axis=-1) if b else mean)

    # All seeds of both sides side by side: one draw of examples then serves them all, which is what pairs them.
    rows = _sum_groups(np.concatenate([*a, *b], axis=1), groups)
    drawn_R = _resample(rows, difference, seed, resamples)
    result = Difference(
        float(difference(rows.sum(axis=0))),
        *percentiles(drawn_R),
        p=two_sided_p(drawn_R),
        seeds=min(len(a), len(b) or len(a)),
        units=len(rows),
        se_examples=float(drawn_R.std(ddof=1)) if resamples > 1 else 0.0,
    )
    return result, drawn_R


def two_sided_p(drawn_R: Floats) -> float:
    """`2 min(P(d <= 0), P(d >= 0))` over resampled differences `[R]`, each count with 1 added, at most 1."""
    tails = ((drawn_R <= 0).sum() + 1, (drawn_R >= 0).sum() + 1)
    return min(1.0, 2.0 * float(min(tails)) / (len(drawn_R) + 1))


def mcnemar(correct_a: npt.ArrayLike, correct_b: npt.ArrayLike) -> tuple[int, int, float]:
    """The exact McNemar test on two models' right and wrong answers to the same N examples.

    How many only a has right, how many only b, and p: two-sided binomial, of "each is as likely as the other".

    Raises:
        SoftpruneError: when the two aren't equally long.
    """
    from scipy.special import bdtr  # scipy.stats has the test by name, and takes seconds to import

    a, b = np.asarray(correct_a, bool), np.asarray(correct_b, bool)
    if a.shape != b.shape:
        found = f"{len(a)} and {len(b)}"
        raise SoftpruneError("the same examples for both models", found, "score both models on the same set")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    discordant = only_a + only_b
    # At one half the binomial is symmetric: both tails are twice the smaller one.
    p = min(1.0, 2.0 * float(bdtr(min(only_a, only_b), discordant, 0.5))) if discordant else 1.0
    return only_a, only_b, p


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, adjusted so that the chance of any false finding among them stays below the level.

    Holm, Scandinavian Journal of Statistics 6 (1979): the smallest times their number m, the next times m - 1, and so
    on; none below the one before it, none above 1. In the order of `p_values`.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = least
    return adjusted


def as_seeds(counts: Counts) -> list[Floats]:
    """A `[N, C]` array or several of them, as a list of float arrays."""
    arrays = [np.asarray(counts, np.float64)] if np.ndim(counts[0]) == 1 else list(counts)  # type: ignore[index,arg-type]
    return [np.asarray(array, np.float64) for array in arrays]


def sampled_units(groups: Sequence[Hashable | None]) -> list[Hashable]:
    """What each example is resampled as: its group, or itself where it has none.

    Where tasks are joined, only some examples share text; each of the others is one unit.
    """
    return [("alone", at) if group is None else ("group", group) for at, group in enumerate(groups)]


def _sum_groups(counts_NC: npt.ArrayLike, groups: Groups) -> Floats:
    """The rows that are resampled: the examples' counts, or their sums by group."""
    counts = np.asarray(counts_NC, np.float64)
    if counts.ndim != 2 or not len(counts):
        found = f"an array of shape {counts.shape}"
        raise SoftpruneError("counts of at least one example", found, "score a non-empty set")
    if groups is None or all(group is None for group in groups):
        return counts
    if len(groups) != len(counts):
        found = f"{len(groups)} ids for {len(counts)} examples"
        raise SoftpruneError("one group id per example", found, "pass the groups of the same set")
    units = sampled_units(groups)
    place = {unit: i for i, unit in enumerate(dict.fromkeys(units))}
    sums = np.zeros((len(place), counts.shape[1]))
    np.add.at(sums, [place[unit] for unit in units], counts)
    return sums


def _resample(rows: Floats, score: Score, seed: int, resamples: int) -> Floats:
    """Scores `[R]` of resamples of the rows."""
    distinct_UC, frequency_U = np.unique(rows, axis=0, return_counts=True)
    generator = np.random.default_rng(seed)
    chunk = max(1, CHUNK_CELLS // len(distinct_UC))
    parts = []
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        weights_RU = generator.multinomial(len(rows), frequency_U / len(rows), size=size)
        parts.append(np.asarray(score(weights_RU @ distinct_UC), np.float64))
    return np.concatenate(parts)


def percentiles(scores_R: npt.ArrayLike) -> tuple[float, float]:
    """The two ends of the central 95%."""
    low, high = np.quantile(np.asarray(scores_R), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def wilson_interval(right: int, examples: int) -> tuple[float, float]:
    """The 95% interval of a proportion, of `right` among `examples`, by Wilson's score (1927)."""
    from scipy.stats import binomtest  # takes seconds to import

    interval = binomtest(right, examples).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)
