"""How numbers are written: percent in tables, points for differences, and what isn't known in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean, stdev

from softprune.data.metrics import metric_label
from softprune.printable import printable as printable

NOT_MEASURED = "not measured"
NOT_APPLICABLE = "–"


def percent(value: float | None) -> str:
    """0.875 as `87.5`."""
    return NOT_MEASURED if value is None or not math.isfinite(value) else f"{100 * value:.1f}"


def interval(values: tuple[float, float] | None) -> str:
    """(0.8, 0.9) as `80.0 to 90.0`."""
    return NOT_MEASURED if values is None else f"{percent(values[0])} to {percent(values[1])}"


def points(value: float | None) -> str:
    """A difference of fractions in signed percentage points; zero has no sign."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    rounded = round(100 * value, 1)
    return f"{rounded:+.1f}" if rounded else "0.0"


def spread(values: Sequence[float] | None) -> str:
    """Fresh seeds: mean ± sample standard deviation, and how many there are."""
    if not values:
        return NOT_MEASURED
    if len(values) == 1:
        return f"{percent(values[0])} (1)"
    return f"{percent(mean(values))} ± {percent(stdev(values))} ({len(values)})"


def number(value: float | None) -> str:
    """Thousands apart; decimals only where there are any."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


def seconds(value: float | None) -> str:
    """Seconds with as many digits as matter."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def p_value(value: float | None) -> str:
    """Three digits, never a bare zero."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def metric(name: str) -> str:
    """A metric's name as people write it."""
    return printable(metric_label(name))


def storage(value: float | None) -> str:
    """Bytes in the largest unit that leaves at least one before the point."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def counts(predicted: Mapping[str, int] | None) -> str:
    """How often each answer was given."""
    if not predicted:
        return NOT_MEASURED
    return ", ".join(f"{printable(answer)} {count:,}" for answer, count in predicted.items())
