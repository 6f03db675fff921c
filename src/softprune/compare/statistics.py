"""A method over seeds: mean, spread, interval, and the paired difference to another.

The score of a method is the mean over seeds of the metric on `report`. Its interval is a bootstrap by example: every
resample of the examples scores all seeds, and their mean is the resample's score. So it tells how sure the mean is on
other examples of the task; how much a seed matters is told by the spread. Differences are paired: both methods are
scored on the same resamples.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
import numpy.typing as npt

from softprune.statistics.bootstrap import Difference, Interval, Score, bootstrap_interval, paired_bootstrap

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
    """

    mean: float
    sd: float | None
    interval: Interval | None


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
    runs = same_examples(scored)
    interval = None
    if runs is not None:
        width = runs[0].counts_NC.shape[1]

        def mean_score(totals: Floats) -> Floats:
            by_seed = totals.reshape(*totals.shape[:-1], -1, width)
            return np.asarray(np.mean(score(by_seed), axis=-1), np.float64)

        counts = np.concatenate([run.counts_NC for run in runs], axis=1)
        interval = bootstrap_interval(counts, mean_score, runs[0].groups, seed=seed, resamples=resamples)
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None, interval)


def difference(
    ours: Sequence[Scored | None], theirs: Sequence[Scored | None], score: Score, *, seed: int, resamples: int
) -> Difference | None:
    """One method's mean over seeds minus another's, paired by example; None where they saw different examples."""
    runs = same_examples([*ours, *theirs])
    if runs is None:
        return None
    a, b = ([run.counts_NC for run in part] for part in (runs[: len(ours)], runs[len(ours) :]))
    return paired_bootstrap(a, b, score, runs[0].groups, seed=seed, resamples=resamples)


def same_examples(scored: Sequence[Scored | None]) -> list[Scored] | None:
    """The runs, if all of them answered the same examples in the same order."""
    runs = [run for run in scored if run is not None]
    return runs if runs and len(runs) == len(scored) and len({run.ids for run in runs}) == 1 else None
