"""Accuracy against operations and against speed, from what `softprune.token_pruning.bench` measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from softprune.report.mpl_style import SMALL, Draw, Theme, dress, legend_below, new_figure
from softprune.statistics.frontier import non_dominated


@dataclass(frozen=True, slots=True)
class Place:
    """A contestant in the figure."""

    label: str  # beside it; empty for none
    role: str  # pruned, head only, packed or padded
    accuracy: float  # percent, and so the ends of its interval, which is that of the difference to the unpruned model
    low: float
    high: float
    macs: float | None  # executed operations over the unpruned model's, percent; None where padding is computed on
    speed: float  # texts a second


# Marker and name in the legend by role, drawn in this order; colours are those of `Theme`.
_LOOKS = {
    "padded": ("other", "s", "padded, transformers' own"),
    "packed": ("control", "D", "packed, unpruned"),
    "pruned": ("kept", "o", "pruned"),
    "head only": ("tuned", "^", "last layer for the head alone"),
}


def places(found: Mapping[str, Any]) -> list[Place]:
    """Everyone in the dtype that was asked for; of the packed, unpruned model its faster attention."""
    kept = []
    whole = 100 * found["models"]["unpruned"]["accuracy"]
    for row in found["rows"]:
        slower = row["kind"] == "packed" and not row["head_only"] and row["name"] != found["baseline"]
        if row["dtype"] != found["dtype"] or slower:
            continue
        model, is_pruned = found["models"][row["model"]], row["kind"] == "pruned"
        difference = model["difference"] if is_pruned else {"low": 0.0, "high": 0.0}
        kept.append(
            Place(
                label=row["model"] if is_pruned and not row["head_only"] else "",
                role="head only" if row["head_only"] else row["kind"],
                accuracy=100 * model["accuracy"],
                low=whole + 100 * difference["low"],
                high=whole + 100 * difference["high"],
                macs=None if row["executed_macs"] is None else 100 * row["executed_macs"],
                speed=row["examples_per_second"],
            )
        )
    return kept


def draw_speed(found: Mapping[str, Any]) -> Draw:
    """Accuracy against the share of operations on the left, against texts a second on the right; in either theme."""
    return partial(_draw, places(found))


def _draw(shown: Sequence[Place], theme: Theme) -> Figure:
    figure = new_figure(theme, height=3.9, width=9.0)
    left, right = figure.subplots(1, 2, sharey=True)
    _draw_panel(left, [(place.macs, place) for place in shown if place.macs is not None], theme, "post")
    _draw_panel(right, [(place.speed, place) for place in shown], theme, "pre")
    dress(left, theme, "executed MACs (% of unpruned)", "accuracy (%)", "Operations", grid="both")
    dress(right, theme, "texts a second", "", "Speed", grid="both")
    left.set_xlim(left=0)
    right.set_xlim(left=0)
    legend_below(figure, right, theme, columns=5)
    return figure


def _draw_panel(axes: Axes, shown: Sequence[tuple[float, Place]], theme: Theme, step: Literal["pre", "post"]) -> None:
    """Places at their x, and the best of them as a step: after each place where less is better, else before it."""
    for role, (colour, marker, name) in _LOOKS.items():
        mine = [(x, place.accuracy, place) for x, place in shown if place.role == role]
        if mine:
            places_x, accuracy, those = zip(*mine, strict=True)
            reach = [[max(0.0, p.accuracy - p.low) for p in those], [max(0.0, p.high - p.accuracy) for p in those]]
            look: dict[str, Any] = {"fmt": marker, "markersize": 6, "elinewidth": 0.9, "capsize": 2}
            axes.errorbar(places_x, accuracy, yerr=reach, label=name, color=getattr(theme, colour), **look)
    sign = 1 if step == "post" else -1
    points = [(x, place.accuracy) for x, place in shown]
    line = sorted(compress(points, non_dominated([(sign * x, accuracy) for x, accuracy in points])))
    if len(line) > 1:
        # A step, not a slope: between two models there is none to use.
        axes.step(*zip(*line, strict=True), where=step, color=theme.front, linewidth=1.1)
    below: dict[str, Any] = {"xytext": (5, -11), "textcoords": "offset points", "fontsize": SMALL, "color": theme.ink}
    for x, place in shown:
        axes.annotate(place.label, (x, place.accuracy), **below)
    axes.margins(x=0.12, y=0.16)
