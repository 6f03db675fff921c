"""Quality against what it costs: a point for each method, from measured numbers only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator
from matplotlib.transforms import ScaledTranslation

from softprune.config import ADAPTERS, METHODS
from softprune.report.formatting import metric
from softprune.report.mpl_style import SMALL, Draw, Theme, dress, legend_below, new_figure
from softprune.report.pictures import Plan
from softprune.studies.comparison.columns import CONTROL, RANDOM, Row, interval_covers, label

LOOKS: Final = (*METHODS, CONTROL, RANDOM)
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h")
_ASIDE: Final = 8
_FLOORS: Final = {"zero_shot": (0, (1, 2)), "constant": (0, (5, 4))}


@dataclass(frozen=True, slots=True)
class Place:
    """A method in a figure.

    Attributes:
        name: in the legend.
        look: which marker and colour; a method has the same ones in every comparison.
        x: what it costs.
        y, low, high: its mean and interval; the ends are the mean where there is none.
    """

    name: str
    look: int
    x: float
    y: float
    low: float
    high: float


def plans(found: Mapping[str, Any]) -> list[Plan]:
    """The two figures; the reason where there is nothing to draw."""
    points = "of 1 seed" if len(found["seeds"]) == 1 else "means over seeds"
    caption = f"Points are {points}, whiskers 95% intervals {interval_covers(found)}. "
    caption += "Methods of one cost stand side by side. "
    lines = [label(row) for row in found["rows"] if row["kind"] == "floor"]
    floors = f"Horizontal lines: {'; '.join(lines)}." if lines else ""
    return [
        Plan(
            "quality_parameters",
            "Quality against trainable parameters",
            f"{caption}Further left trains fewer numbers (logarithmic). {floors}".strip(),
            _draw(found, "trainable", "trainable parameters"),
            "trainable parameters",
        ),
        Plan(
            "quality_time",
            "Quality against training time",
            f"{caption}Seconds of all that makes what is used, learning rates tried and searches too. {floors}".strip(),
            _draw(found, "seconds", "training (seconds)"),
            "training times",
        ),
    ]


def places(found: Mapping[str, Any], cost: str) -> list[Place]:
    """Every row that has this cost, in the tables' order."""
    scale = _scale(found)
    return [
        Place(
            label(row),
            LOOKS.index(row["name"]),
            float(row[cost]),
            scale * row["mean"],
            *(scale * end for end in _ends(row)),
        )
        for row in found["rows"]
        if row["kind"] != "floor" and row[cost]
    ]


def scatter(shown: Sequence[Place], floors: Mapping[str, tuple[str, float]], x: str, y: str, theme: Theme) -> Figure:
    """The points over a logarithmic axis, and the floors as lines."""
    figure = new_figure(theme, height=4.4)
    axes = figure.subplots()
    axes.set_xscale("log")
    _ticks(axes, [place.x for place in shown])
    for place, aside in zip(shown, _asides(shown), strict=True):
        colour, filled = looks(theme)[place.look]
        axes.errorbar(
            place.x,
            place.y,
            yerr=[[max(0.0, place.y - place.low)], [max(0.0, place.high - place.y)]],
            fmt=MARKERS[place.look],
            color=colour,
            markerfacecolor=colour if filled else theme.paper,
            transform=axes.transData + ScaledTranslation(aside / 72, 0, figure.dpi_scale_trans),
            markersize=7,
            elinewidth=1.0,
            capsize=2.5,
            label=place.name,
        )
    for name, (legend, value) in floors.items():
        axes.axhline(value, color=theme.other, linewidth=1.2, linestyle=_FLOORS[name], label=legend, zorder=1)
    dress(axes, theme, x, y, grid="both")
    ends = [end for place in shown for end in (place.low, place.high)] + [value for _, value in floors.values()]
    room = 0.12 * (max(ends) - min(ends)) or 0.5
    axes.set_ylim(min(ends) - room, max(ends) + room)
    legend_below(figure, axes, theme, columns=3)
    return figure


def _draw(found: Mapping[str, Any], cost: str, x: str) -> Draw | None:
    shown = places(found, cost)
    if not shown:
        return None
    scale = _scale(found)
    floors = {row["name"]: (label(row), scale * row["mean"]) for row in found["rows"] if row["kind"] == "floor"}
    unit = " (%)" if scale != 1 else ""
    return partial(scatter, shown, floors, x, f"{metric(found['metric'])}{unit}")


def _scale(found: Mapping[str, Any]) -> float:
    """Fractions are shown as percent; a loss is none."""
    return 1.0 if found["metric"] == "loss" else 100.0


def _ends(row: Row) -> tuple[float, float]:
    low, high = row["interval"] or (row["mean"], row["mean"])
    return low, high


def _ticks(axes: Axes, values: Sequence[float]) -> None:
    """Plain numbers on a logarithmic axis; where the values lie close, there is room around them, and more of them."""
    low, high = min(values), max(values)
    # Points stand beside their cost, so that no axis finds its ends from them.
    room = 3.5 if high < 10 * low else (high / low) ** 0.12
    axes.set_xlim(low / room, high * room)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    axes.tick_params(axis="x", labelsize=SMALL, labelfontfamily="DejaVu Sans")


def short(value: float) -> str:
    """A number as a tick has room for it: 20, 5,000, 100k, 10M."""
    for size, sign in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if sign == 'k' else size):g}{sign}"
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def _asides(shown: Sequence[Place]) -> list[float]:
    """How far each point is drawn from its cost, in points of 1/72 inch, so that those of one cost don't overlap."""
    found = []
    for at, place in enumerate(shown):
        before = sum(other.x == place.x for other in shown[:at])
        count = sum(other.x == place.x for other in shown)
        found.append(_ASIDE * (before - (count - 1) / 2))
    return found


def looks(theme: Theme) -> list[tuple[str, bool]]:
    """Each look's colour, and whether its marker is filled; grey is left to the floors.

    Prompts have the colours of a run's own page. Others are Okabe and Ito's and some more, in a lightness that
    both papers carry. The control and the random mask are XPrompt's prompts, so they have colours of prompts.
    """
    others = (theme.front, theme.control, "#cc79a7", "#b8860b", "#8f6fd6", "#a65e3a", "#12a5b5")
    colours = dict(zip(ADAPTERS, others, strict=True)) | {"prompt": theme.tuned, "xprompt": theme.kept}
    colours |= {CONTROL: theme.kept, RANDOM: theme.tuned}
    return [(colours[name], name not in (CONTROL, RANDOM)) for name in LOOKS]
