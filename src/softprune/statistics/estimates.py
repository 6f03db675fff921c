"""A value with its interval, from scores of resamples in which it may be undefined."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from softprune.statistics.bootstrap import LEVEL, Difference, Floats, two_sided_p

CLEAR = 0.05
"""An adjusted p-value below it is called clear."""
NORMAL_FROM = 25.0
"""Variance of a count from which its distribution is taken as normal."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95% interval; None where there is too little to say."""

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
    answer: Floats = np.full(np.broadcast_shapes(np.shape(upper), np.shape(lower)), np.nan)
    np.divide(upper, lower, out=answer, where=np.asarray(lower) != 0)
    return answer


def estimate(value: float, drawn_R: Floats, texts: int) -> Estimate:
    """The percentile interval of a value; resamples in which it is undefined don't count.

    Args:
        value: on the texts themselves.
        drawn_R: on resamples of them.
        texts: that say anything about it; an interval needs two.
    """
    known_R = drawn_R[np.isfinite(drawn_R)]
    if not np.isfinite(value):
        return Estimate(None)
    if texts < 2 or not len(known_R):
        return Estimate(float(value))
    low, high = np.quantile(known_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(value), float(low), float(high))


def share_estimate(share: float, drawn_R: Floats, texts: int) -> Estimate:
    """The interval of a share. One of 0 or 1 never varies in resamples; it gets the exact interval of
    Clopper and Pearson (Biometrika 26, 1934), with texts as trials."""
    found = estimate(share, drawn_R, texts)
    if found.interval is None or 0 < share < 1:
        return found
    reach = 1 - ((1 - LEVEL) / 2) ** (1 / texts)
    return Estimate(share, 0.0, reach) if share == 0 else Estimate(share, 1 - reach, 1.0)


def chance_p(kept: int, chance_N: Floats) -> float:
    """Two-sided p-value of "N words are kept each with its own chance".

    The count is then Poisson-binomial, exactly so where few are kept or few dropped, else nearly normal. Words of one
    text aren't independent: as many as are kept can't be others. That only makes the count vary less (negatively
    associated; Shao, J. Theor. Probab. 13, 2000), so p errs upwards.
    """
    variance = float((chance_N * (1 - chance_N)).sum())
    if variance == 0:
        return 1.0
    if variance >= NORMAL_FROM:
        z = max(0.0, abs(kept - float(chance_N.sum())) - 0.5) / variance**0.5
        return float(2 * NormalDist().cdf(-z))
    if 2 * chance_N.sum() > len(chance_N):  # count the dropped ones: they are fewer
        kept, chance_N = len(chance_N) - kept, 1 - chance_N
    at_most = _at_most(kept, chance_N)
    below = float(at_most[-2]) if kept else 0.0
    return min(1.0, 2 * max(0.0, min(float(at_most[-1]), 1 - below)))


def _at_most(most: int, chance_N: Floats) -> Floats:
    """P(count <= k) for k from 0 to `most`, by adding word after word."""
    exactly: Floats = np.zeros(most + 1)
    exactly[0] = 1.0
    for chance in chance_N:
        exactly[1:] = exactly[1:] * (1 - chance) + exactly[:-1] * chance
        exactly[0] *= 1 - chance
    return np.asarray(exactly.cumsum(), np.float64)


def p_value(drawn_R: Floats) -> float:
    """Two-sided bootstrap p-value of "zero", as in `statistics.bootstrap.paired_bootstrap`."""
    return two_sided_p(drawn_R[np.isfinite(drawn_R)])


def by_example(difference: Difference) -> dict[str, Any]:
    """A difference of two trained models as files hold it; its interval covers other texts, not other seeds."""
    fields = ("value", "low", "high", "p")
    return {name: getattr(difference, name) for name in fields} | {"covers_seeds": False}
