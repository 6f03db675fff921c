"""Ratios as they were meant: counts computed from them must not depend on the last bit of a float."""

from __future__ import annotations

from fractions import Fraction


def exact(ratio: float) -> Fraction:
    """The fraction nearest to a finite ratio with a denominator up to a million: 0.9 is 9/10, `0.1 * 3` is 3/10."""
    return Fraction(str(float(ratio))).limit_denominator(10**6)
