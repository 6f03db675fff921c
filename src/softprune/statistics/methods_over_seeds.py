"""A method over seeds: mean, spread, interval, and the paired difference to another.

The score of a method is the mean over seeds of the metric on `report`. Each seed of a comparison is a whole run, with
its own training examples, start and search, so from 3 seeds on an interval covers both other runs and other examples
(`softprune.statistics.seeds`), and holds for the method on this task. With fewer it covers other examples alone, and
holds for these very trained prompts; nothing is concluded from it. Differences are paired, by example and by seed.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

import numpy as np
import numpy.typing as npt

from softprune.statistics.bootstrap import Difference, Interval, Score, bootstrap_interval
from softprune.statistics.seeds import MIN_SEEDS, compare_rows, mean_uncertainty

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scored:
    """A run's answers to `report`, as counts.

    Attributes:
        counts_NC: of each example.
        ids: of the examples.
        groups: what is resampled together; None for an example on its own.
    """

    counts_NC: Floats
    ids: tuple[str, ...]
    groups: tuple[Hashable | None, ...]


@dataclass(frozen=True, slots=True)
class Spread:
    """A method's values over seeds.

    Attributes:
        mean: of them.
        sd: their sample standard deviation; None of a single one.
        interval: of the mean; None where examples can't be told apart.
        covers_seeds: whether the interval covers the sampling of seeds, or that of examples alone.
    """

    mean: float
    sd: float | None
    interval: Interval | None
    covers_seeds: bool = False


def spread(
    values: Sequence[float], scored: Sequence[Scored | None], score: Score, *, seed: int, resamples: int
) -> Spread:
    """Mean, spread and interval of a method.

    Args:
        values: the metric of each seed.
        scored: the counts of each seed.
        score: sums of counts `[..., C]` to scores `[...]`.
        seed: of the resampling.
        resamples: how many.
    """
    runs, mean, sd = same_examples(scored), fmean(values), stdev(values) if len(values) > 1 else None
    if runs is None:
        return Spread(mean, sd, None)
    counts, groups = [run.counts_NC for run in runs], runs[0].groups
    if len(runs) < MIN_SEEDS:
        interval = bootstrap_interval(
            np.concatenate(counts, axis=1),
            lambda totals: mean_score(totals, counts[0].shape[1], score),
            groups,
            seed=seed,
            resamples=resamples,
        )
        return Spread(mean, sd, interval)
    reach = mean_uncertainty(counts, score, groups, seed=seed, resamples=resamples).margin()
    return Spread(mean, sd, Interval(mean - reach, mean + reach), covers_seeds=True)


def mean_score(totals: Floats, width: int, score: Score) -> Floats:
    """The mean of the scores whose sums of counts stand side by side in the last axis, `width` to each."""
    by_seed = totals.reshape(*totals.shape[:-1], -1, width)
    return np.asarray(np.mean(score(by_seed), axis=-1), np.float64)


def difference(
    ours: Sequence[Scored | None],
    theirs: Sequence[Scored | None],
    score: Score,
    *,
    seed: int,
    resamples: int,
    untrained: bool = False,
) -> Difference | None:
    """One method's mean over seeds minus another's; None where they saw different examples.

    Args:
        ours, theirs: of each seed, in the same order.
        score: sums of counts `[..., C]` to scores `[...]`.
        seed: of the resampling.
        resamples: how many.
        untrained: whether `theirs` has no seeds, such as the model without a prompt.
    """
    runs = same_examples([*ours, *theirs])
    if runs is None:
        return None
    a, b = ([run.counts_NC for run in part] for part in (runs[: len(ours)], runs[len(ours) :]))
    return compare_rows(a, b, score, runs[0].groups, seed=seed, untrained=untrained, resamples=resamples)


def negated(found: Difference) -> Difference:
    """The same difference with its sides exchanged."""
    return replace(found, value=-found.value, low=-found.high, high=-found.low)


def same_examples(scored: Sequence[Scored | None]) -> list[Scored] | None:
    """The runs, if all of them answered the same examples in the same order."""
    runs = [run for run in scored if run is not None]
    return runs if runs and len(runs) == len(scored) and len({run.ids for run in runs}) == 1 else None
