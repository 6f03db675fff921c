"""How numbers are written: percent in tables, points for differences, and what isn't known in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from statistics import mean, stdev

from softprune.data.metrics import metric_label
from softprune.printable import printable as printable

NOT_MEASURED = "not measured"
NOT_APPLICABLE = "–"


def _measured(write: Callable[[float], str]) -> Callable[[float | None], str]:
    """How numbers are written, and that None, NaN and infinity were not measured."""

    @wraps(write)
    def written(value: float | None) -> str:
        return NOT_MEASURED if value is None or not math.isfinite(value) else write(value)

    return written


@_measured
def percent(value: float) -> str:
    """0.875 as `87.5`."""
    return f"{100 * value:.1f}"


def interval(values: tuple[float, float] | None) -> str:
    """(0.8, 0.9) as `80.0 to 90.0`."""
    return NOT_MEASURED if values is None else f"{percent(values[0])} to {percent(values[1])}"


@_measured
def points(value: float) -> str:
    """A difference of fractions in signed percentage points; zero has no sign."""
    rounded = round(100 * value, 1)
    return f"{rounded:+.1f}" if rounded else "0.0"


def spread(values: Sequence[float]) -> str:
    """Fresh seeds: mean ± sample standard deviation, and how many there are."""
    if not values:
        return NOT_MEASURED
    if len(values) == 1:
        return f"{percent(values[0])} (1)"
    return f"{percent(mean(values))} ± {percent(stdev(values))} ({len(values)})"


@_measured
def number(value: float) -> str:
    """Thousands apart; decimals only where there are any."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


def short(value: float) -> str:
    """A number as a tick has room for it: 20, 5,000, 20k, 10M."""
    for size, unit, sign in ((1e9, 1e9, "B"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if value >= size:
            return f"{value / unit:g}{sign}"
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


@_measured
def seconds(value: float) -> str:
    """Seconds with as many digits as matter."""
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


@_measured
def p_value(value: float) -> str:
    """Three digits, never a bare zero."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


@_measured
def storage(value: float) -> str:
    """Bytes in the largest unit that leaves at least one before the point."""
    if abs(value) < 1024:
        return f"{value:.0f} bytes"
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if abs(value) < 1024:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} TiB"


def metric(name: str) -> str:
    """A metric's name as people write it."""
    return printable(metric_label(name))


def counts(predicted: Mapping[str, int] | None) -> str:
    """How often each answer was given."""
    if not predicted:
        return NOT_MEASURED
    return ", ".join(f"{printable(answer)} {count:,}" for answer, count in predicted.items())
