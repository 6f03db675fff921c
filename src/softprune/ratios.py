"""Ratios as they were meant: counts that are made of them must not depend on the last bit of a float."""

from __future__ import annotations

from fractions import Fraction


def exact(ratio: float) -> Fraction:
    """A ratio as the simple fraction nearest to it: 0.9 is 9/10, `0.1 * 3` is 3/10 and `1 / 3` is a third."""
    return Fraction(str(float(ratio))).limit_denominator(10**6)
