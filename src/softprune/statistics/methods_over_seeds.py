"""A method over seeds: mean, spread, interval, and the difference to another, paired by example and by seed.

Each seed of a study is a whole run, with its own training examples, start and search. So from 3 seeds on an interval
covers both other runs and other examples (`softprune.statistics.seeds`), and holds for the method on this task. With
fewer it covers other examples alone, and holds for these very trained prompts; nothing is concluded from it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean, stdev

import numpy as np

from softprune.statistics.bootstrap import Difference, Floats, Interval, Score
from softprune.statistics.seeds import compare_rows, uncertainty_of


@dataclass(frozen=True, slots=True)
class Scored:
    """A run's answers to `report`, as counts of each example; `groups` are resampled together."""

    counts_NC: Floats
    ids: tuple[str, ...]
    groups: tuple[Hashable | None, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a method reached on one task."""

    values: tuple[float, ...]  # the metric on `report` of each seed
    scored: tuple[Scored | None, ...]  # the counts of every example, of each seed; None where they weren't stored
    draws: int = 1  # how many of them in turn belong to one seed, such as several random masks of one prompt
    trained: bool = True  # False for the model without a prompt, which has no seeds

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return fmean(self.values)


@dataclass(frozen=True, slots=True)
class Spread:
    """A method's values over seeds."""

    mean: float
    sd: float | None  # of the sample; None of a single value
    interval: Interval | None  # of the mean; None where it can't be resampled by example
    covers_seeds: bool = False  # whether the interval covers the sampling of seeds, or that of examples alone


def spread(outcome: Outcome, score: Score, *, seed: int, resamples: int) -> Spread:
    """Mean, spread and interval of a method; `score`, `seed` and `resamples` as in `bootstrap_interval`."""
    draws = outcome.draws
    values = [fmean(outcome.values[at : at + draws]) for at in range(0, len(outcome.values), draws)]
    mean, sd = fmean(values), stdev(values) if len(values) > 1 else None
    score, (scored,) = join_draws(score, outcome)
    runs = same_examples(scored)
    if runs is None:
        return Spread(mean, sd, None)
    counts, groups = [run.counts_NC for run in runs], runs[0].groups
    found = compare_rows(counts, None, score, groups, seed=seed, resamples=resamples)
    if not found.covers_seeds:
        return Spread(mean, sd, Interval(found.low, found.high))
    reach = uncertainty_of(found).margin()
    return Spread(mean, sd, Interval(mean - reach, mean + reach), covers_seeds=True)


def difference(ours: Outcome, theirs: Outcome, score: Score, *, seed: int, resamples: int) -> Difference | None:
    """One method's mean over seeds minus another's; None where they answered different examples.

    Seeds are in the same order on both sides; at most one of them is untrained.
    """
    if theirs.trained and not ours.trained:  # compare_rows takes the untrained side second
        turned = difference(theirs, ours, score, seed=seed, resamples=resamples)
        return None if turned is None else replace(turned, value=-turned.value, low=-turned.high, high=-turned.low)
    score, (a, b) = join_draws(score, ours, theirs)
    runs = same_examples([*a, *b])
    if runs is None:
        return None
    counts_a, counts_b = [run.counts_NC for run in runs[: len(a)]], [run.counts_NC for run in runs[len(a) :]]
    untrained = not theirs.trained
    return compare_rows(counts_a, counts_b, score, runs[0].groups, seed=seed, untrained=untrained, resamples=resamples)


def join_draws(score: Score, *outcomes: Outcome) -> tuple[Score, list[list[Scored | None]]]:
    """Outcomes with one array of counts for each seed, and the score that takes such arrays.

    Draws of one seed are no seeds: their counts are side by side, `[N, draws * C]`, and the score is their mean. A
    side with fewer draws is repeated, so that one score serves all.
    """
    most = max(outcome.draws for outcome in outcomes)
    width = next((each.counts_NC.shape[1] for o in outcomes for each in o.scored if each is not None), 1)

    def joined(outcome: Outcome, at: int) -> Scored | None:
        runs = same_examples(outcome.scored[at : at + outcome.draws])
        if runs is None or most % outcome.draws:
            return None
        counts = np.concatenate([run.counts_NC for run in runs] * (most // outcome.draws), axis=1)
        return replace(runs[0], counts_NC=counts)

    by_seed = []
    for outcome in outcomes:
        by_seed.append([joined(outcome, at) for at in range(0, len(outcome.scored), outcome.draws)])
    return partial(mean_score, width=width, score=score), by_seed


def mean_score(totals: Floats, width: int, score: Score) -> Floats:
    """The mean of the scores whose sums of counts are side by side in the last axis, `width` to each."""
    by_seed = totals.reshape(*totals.shape[:-1], -1, width)
    return np.asarray(np.mean(score(by_seed), axis=-1), np.float64)


def same_examples(scored: Sequence[Scored | None]) -> list[Scored] | None:
    """The runs, if all of them answered the same examples in the same order."""
    runs = [run for run in scored if run is not None]
    return runs if runs and len(runs) == len(scored) and len({run.ids for run in runs}) == 1 else None
