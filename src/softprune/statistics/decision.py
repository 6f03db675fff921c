"""What a run recommends, and how many seeds and examples a recommendation takes.

With a margin m (the loss of score that a user accepts for a smaller prompt) and the interval of winner minus control:

    low  > -m    ship the ticket            (and it is better where low > 0)
    high < -m    ship the whole prompt
    otherwise    undecided, with what would decide it

This is a test of non-inferiority (Wellek, Testing Statistical Hypotheses of Equivalence and Noninferiority, 2010,
chapter 2), read off a two-sided interval, so each of the two decisions is wrong in about 2.5% of runs, and in at most
about 4.5% where an undecided run looks a second time (5 fresh seeds, then 10; scripts/simulate_intervals.py). So a
second look needs no stricter interval; a third one might.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from softprune.statistics.bootstrap import LEVEL, Difference
from softprune.statistics.seeds import MIN_SEEDS, Uncertainty, uncertainty_of

Decision = Literal["ship the ticket", "ship the whole prompt", "undecided", "no verdict"]

POWER: Final = 0.80
MOST_SEEDS: Final = 200  # that a plan considers: nobody trains more
MOST_EXAMPLES: Final = 1_000.0  # that a plan considers, as a multiple of those at hand
# Assumed where nothing was measured yet: the standard deviation over seeds of a paired difference (1.9 to 3.3 points
# were measured on small models, docs/statistics.md), and the share of examples that one prompt alone answers rightly.
SEED_SD: Final = 0.03
DISCORDANCE: Final = 0.2


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which prompt to ship."""

    decision: Decision  # as in the module's docstring; `no verdict` where nothing may be concluded
    margin: float  # the loss that is accepted, a fraction of the metric's range
    better: bool = False  # whether the ticket is shown to be better than the whole prompt
    # Fresh seeds, or examples (groups) of `report`, that would decide it if everything else stays as measured; None
    # where no number would, or where it is decided.
    more_seeds: int | None = None
    more_examples: int | None = None
    reason: str | None = None  # why there is no verdict


def decide(difference: Difference, margin: float) -> Verdict:
    """The verdict that a difference of winner minus control allows, for a margin as in `Verdict`."""
    if not difference.covers_seeds:
        reason = f"a verdict needs at least {MIN_SEEDS} fresh seeds, this run has {difference.seeds}"
        return Verdict("no verdict", margin, reason=reason)
    if difference.low > -margin:
        return Verdict("ship the ticket", margin, better=difference.low > 0)
    if difference.high < -margin:
        return Verdict("ship the whole prompt", margin)
    seeds, examples = more_seeds(difference, margin), more_examples(difference, margin)
    return Verdict("undecided", margin, more_seeds=seeds, more_examples=examples)


def more_seeds(difference: Difference, margin: float) -> int | None:
    """How many more fresh seeds would decide it if the difference and its spread stay as measured; None: no number."""
    distance, seeds = abs(difference.value + margin), difference.seeds
    for count in range(seeds + 1, MOST_SEEDS + 1):
        if _scaled(difference, count / seeds, 1.0).margin() < distance:
            return count - seeds
    return None


def more_examples(difference: Difference, margin: float) -> int | None:
    """The same for examples, or for groups of them where these are sampled; None: not even `MOST_EXAMPLES`-fold.

    Few seeds and ever more examples don't make ever narrower intervals: the degrees of freedom fall to those of the
    seeds. So this looks for the first number that decides it, from below.
    """
    distance = abs(difference.value + margin)

    def decided(times: float) -> bool:
        return _scaled(difference, 1.0, times).margin() < distance

    steps = np.geomspace(1.0, MOST_EXAMPLES, 300).tolist()
    high: float | None = next((step for step in steps if decided(step)), None)
    if high is None:
        return None
    low = high / MOST_EXAMPLES ** (1 / 299)  # the step before
    while (high - low) * difference.units > 0.5:
        middle = (low + high) / 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return max(1, math.ceil((high - 1) * difference.units))


def _scaled(difference: Difference, seeds: float, examples: float) -> Uncertainty:
    """The uncertainty with seeds and examples multiplied by these factors."""
    measured = uncertainty_of(difference)
    units = round(measured.units * examples)
    seeds_df = (measured.seeds_df + 1) * seeds - 1
    return Uncertainty(measured.seeds / math.sqrt(seeds), seeds_df, measured.examples / math.sqrt(examples), units)


def detectable(seeds: int, examples: int, *, seed_sd: float = SEED_SD, discordance: float = DISCORDANCE) -> float:
    """The smallest true difference that a planned comparison would detect with 80% power.

    It has at least 3 fresh `seeds` a side and so many `examples` of `report`, or groups that share text. `seed_sd` is
    the standard deviation over seeds of the paired difference, a fraction of the metric's range; `discordance` the
    share of examples on which exactly one side is right, the root of which is an example's standard deviation.
    """
    planned = Uncertainty(seed_sd / math.sqrt(seeds), seeds - 1.0, math.sqrt(discordance / examples), examples)
    return detectable_by(planned)


def detectable_by(uncertainty: Uncertainty) -> float:
    """The same for an uncertainty that was measured or planned."""
    from scipy.special import nctdtr, stdtr, stdtrit  # scipy.stats has them by name, and takes seconds to import

    critical = float(stdtrit(uncertainty.df, 0.5 + LEVEL / 2))
    low, high = 0.0, 2 * critical + 10.0  # in standard errors
    while high - low > 1e-6:
        middle = (low + high) / 2
        # The chance that t exceeds its critical value when the truth is `middle` standard errors from zero. Beyond some
        # hundreds of degrees of freedom the noncentral t is the shifted normal, and nctdtr grows slow.
        if uncertainty.df > 1_000:
            chance = float(stdtr(1e9, middle - critical))
        else:
            chance = float(1 - np.clip(nctdtr(uncertainty.df, middle, critical), 0.0, 1.0))
        low, high = (middle, high) if chance < POWER else (low, middle)
    return high * uncertainty.error


def seeds_needed(margin: float, *, seed_sd: float, examples_error: float, units: int) -> int | None:
    """Seeds that detect a difference of `margin` with 80% power; None: no number does, since examples are too few.

    `seed_sd` is as of `detectable`, `examples_error` the standard error from the sampling of examples (0 if the report
    set is all there is), and `units` counts them or their groups.
    """
    for count in range(MIN_SEEDS, MOST_SEEDS + 1):
        planned = Uncertainty(seed_sd / math.sqrt(count), count - 1.0, examples_error, units)
        if detectable_by(planned) <= margin:
            return count
    return None
