"""A value with its interval, from scores of resamples in which it may be undefined."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from softprune.statistics.bootstrap import LEVEL, Difference, Floats, percentiles, two_sided_p

CLEAR = 0.05  # an adjusted p-value below this is called clear
NORMAL_FROM = 25.0  # variance of a count from which on its distribution is taken as normal


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95% interval; None where there is too little data."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, if they are known."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def excludes_zero(self) -> bool:
        """Whether there is an interval, and zero isn't in it."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def quotient(upper: Floats, lower: Floats) -> Floats:
    """Upper over lower; undefined (NaN) where lower is 0."""
    ratio: Floats = np.full(np.broadcast_shapes(np.shape(upper), np.shape(lower)), np.nan)
    np.divide(upper, lower, out=ratio, where=np.asarray(lower) != 0)
    return ratio


def estimate(value: float, drawn_R: Floats, texts: int) -> Estimate:
    """The percentile interval of a value from its resamples `[R]`; those in which it is undefined don't count.

    `texts` is how many the value is of; an interval needs two.
    """
    known_R = drawn_R[np.isfinite(drawn_R)]
    if not np.isfinite(value):
        return Estimate(None)
    if texts < 2 or not len(known_R):
        return Estimate(float(value))
    return Estimate(float(value), *percentiles(known_R))


def compare_shares(
    share: float, baseline: float, share_R: Floats, baseline_R: Floats, texts: int
) -> tuple[Estimate, Estimate]:
    """A share, and its difference to a baseline; `share_R`, `baseline_R` and `texts` as of `estimate`.

    A share of 0 or 1 never varies in resamples. It gets the exact interval of Clopper and Pearson (Biometrika 26,
    1934), with texts as trials; at these two ends it has a closed form. Its difference takes that one over.
    """
    kept, difference = estimate(share, share_R, texts), estimate(share - baseline, share_R - baseline_R, texts)
    if kept.interval is None or 0 < share < 1:
        return kept, difference
    width = 1 - ((1 - LEVEL) / 2) ** (1 / texts)
    low, high = (0.0, width) if share == 0 else (1 - width, 1.0)
    return Estimate(share, low, high), Estimate(difference.value, low - baseline, high - baseline)


def chance_p(kept: int, chance_N: Floats) -> float:
    """Two-sided p-value of "each of N words is kept with its own chance".

    The count of kept words is then Poisson-binomial; it is computed exactly where its variance is small, and taken as
    normal elsewhere. Words of one text aren't independent, since a fixed number of them is kept. That only makes the
    count vary less (negative association; Shao, J. Theor. Probab. 13, 2000), so p errs upwards.
    """
    variance = float((chance_N * (1 - chance_N)).sum())
    if variance == 0:
        return 1.0
    if variance >= NORMAL_FROM:
        z = max(0.0, abs(kept - float(chance_N.sum())) - 0.5) / variance**0.5
        return float(2 * NormalDist().cdf(-z))
    if 2 * chance_N.sum() > len(chance_N):  # count the dropped words: there are fewer
        kept, chance_N = len(chance_N) - kept, 1 - chance_N
    exactly: Floats = np.zeros(kept + 1)  # P(count = k) for k from 0 to `kept`, adding one word at a time
    exactly[0] = 1.0
    for chance in chance_N:
        exactly[1:] = exactly[1:] * (1 - chance) + exactly[:-1] * chance
        exactly[0] *= 1 - chance
    at_most: Floats = exactly.cumsum()
    below = float(at_most[-2]) if kept else 0.0
    return min(1.0, 2 * max(0.0, min(float(at_most[-1]), 1 - below)))


def p_value(drawn_R: Floats) -> float:
    """Two-sided bootstrap p-value of "zero", as in `statistics.bootstrap.paired_bootstrap`."""
    return two_sided_p(drawn_R[np.isfinite(drawn_R)])


def difference_row(difference: Difference) -> dict[str, Any]:
    """A difference of two trained models as files hold it; its interval covers the sampling of texts, not of seeds."""
    fields = ("value", "low", "high", "p")
    return {name: getattr(difference, name) for name in fields} | {"covers_seeds": False}
