"""A value with its interval, from scores of resamples in which it may be undefined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from softprune.significance import LEVEL, Floats


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


def p_value(drawn_R: Floats) -> float:
    """Two-sided bootstrap p-value of "nought", as in `significance.paired_bootstrap`."""
    known_R = drawn_R[np.isfinite(drawn_R)]
    tails = ((known_R <= 0).sum() + 1, (known_R >= 0).sum() + 1)
    return min(1.0, 2.0 * float(min(tails)) / (len(known_R) + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: what is below 0.05 is below it for all rows of a table together.

    Source: Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statistics 6 (1979).
    """
    order = np.argsort(p_values, kind="stable")
    steps = [(len(p_values) - rank) * p_values[place] for rank, place in enumerate(order)]
    raised: Floats = np.minimum(np.maximum.accumulate(np.array(steps, np.float64)), 1.0)
    answer = [0.0] * len(p_values)
    for place, value in zip(order, raised, strict=True):
        answer[place] = float(value)
    return answer
