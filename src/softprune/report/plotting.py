"""Charts of points and lines, described once and drawn twice: by matplotlib for files, by plotly for pages."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import log10
from typing import Any, Final

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

from softprune.report import formatting
from softprune.report.interactive import Numbers, Plot
from softprune.report.mpl_style import SMALL, Plan, Theme, dress, legend_below, new_figure

_LINES: Final[dict[str, tuple[Any, str]]] = {
    "solid": ("-", "solid"),
    "step": ("-", "solid"),
    "dashed": ("--", "dash"),
    "dotted": (":", "dot"),
}
"""matplotlib's and plotly's dashes by the line's name."""
_MARKERS: Final = {
    "circle": "o",
    "square": "s",
    "triangle-up": "^",
    "diamond": "D",
    "triangle-down": "v",
    "cross": "P",
    "x": "X",
    "triangle-left": "<",
    "triangle-right": ">",
    "star": "*",
    "hexagon": "h",
    "pentagon": "p",
}
"""matplotlib's markers by plotly's names, which have `-open` behind them where a marker is only an outline."""
MARKERS: Final = tuple(_MARKERS)


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one colour."""

    name: str  # in the legend, where all series of one name have one entry
    x: tuple[float, ...]
    y: tuple[float | None, ...]  # None leaves a gap
    colour: str  # a field of `Theme`
    hover: tuple[str, ...]  # what a page says of each point, in lines
    line: str = ""  # solid, dashed, dotted or step (flat from each point on); empty for points alone
    marker: str = ""  # one of `MARKERS`, perhaps with `-open` behind it; empty for a line alone
    width: float = 1.7  # of the line, in points
    size: float = 3.5  # of the marker, in points
    opacity: float = 1.0
    intervals: tuple[tuple[float, float] | None, ...] = ()  # of each point, drawn as a whisker; empty for none
    # Beside each point a text and where it stands, such as `middle right`; no place, no text. Empty for none.
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Facet:
    """One pair of axes."""

    title: str
    x_label: str
    y_label: str
    x_range: tuple[float, float]
    series: tuple[Series, ...]
    y_range: tuple[float, float] | None = None  # None: what the points need
    logarithmic: bool = False  # the axis of x
    ticks: tuple[float, ...] = ()  # of x; empty: what is usual


@dataclass(frozen=True, slots=True)
class Chart:
    """Panels with the same legend."""

    panels: tuple[Facet, ...]
    height: float  # of matplotlib's figure, in inches
    table: Numbers  # what a page shows below
    stacked: bool = False  # in matplotlib's figure, one below the other; on a page they always are


def draw_chart(chart: Chart, theme: Theme) -> Figure:
    """The panels for files, with one legend below them."""
    figure = new_figure(theme, chart.height)
    shape = (len(chart.panels), 1) if chart.stacked else (1, len(chart.panels))
    named: set[str] = set()
    for axes, panel in zip(figure.subplots(*shape, squeeze=False).ravel(), chart.panels, strict=True):
        for series in panel.series:
            _draw_series(axes, series, theme, label="_" if series.name in named else series.name)  # "_": no entry
            named.add(series.name)
        dress(axes, theme, panel.x_label, panel.y_label, panel.title, grid="both")
        if panel.logarithmic:
            axes.set_xscale("log")
        axes.set_xlim(*panel.x_range)
        axes.margins(y=0.1)
        if panel.y_range is not None:
            axes.set_ylim(*panel.y_range)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        if panel.ticks:
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xticks(panel.ticks, [formatting.short(tick) for tick in panel.ticks], fontsize=SMALL)
    if chart.stacked:
        legend_below(figure, figure.axes, theme, columns=2, size=8.5)
    else:
        legend_below(figure, figure.axes, theme, columns=4 if len(named) == 4 else 3)
    return figure


def _draw_series(axes: Axes, series: Series, theme: Theme, label: str) -> None:
    colour, marker = getattr(theme, series.colour), series.marker.removesuffix("-open")
    dashes, _ = _LINES.get(series.line, ("", ""))
    edge: dict[str, Any] = {"markeredgewidth": 0.0}
    if marker != series.marker:
        edge = {"markerfacecolor": "none", "markeredgecolor": colour, "markeredgewidth": 1.3}
    for x, ends in zip(series.x, series.intervals, strict=False):
        if ends is not None:
            axes.vlines(x, *ends, color=colour, linewidth=1.1, alpha=series.opacity)
    axes.plot(
        series.x,
        [np.nan if y is None else y for y in series.y],
        color=colour,
        linestyle=dashes,
        drawstyle="steps-post" if series.line == "step" else "default",
        linewidth=series.width,
        alpha=series.opacity,
        marker=_MARKERS.get(marker, ""),
        markersize=series.size,
        # A curve's markers only distinguish it from others; of points alone or on a step, each one counts.
        markevery=1 if series.line in ("", "step") else max(len(series.x) // 8, 1),
        label=label,
        **edge,
    )
    for x, y, (text, place) in zip(series.x, series.y, series.labels, strict=False):
        if place and y is not None:
            _write_beside(axes, (x, y), text, place, theme)


def _write_beside(axes: Axes, point: tuple[float, float], text: str, place: str, theme: Theme) -> None:
    upright, side = place.split()
    right, up = {"left": -1, "right": 1}[side], {"bottom": -1, "middle": 0, "top": 1}[upright]
    axes.annotate(
        text,
        point,
        xytext=((10 if up == 0 else 6) * right, 6 * up),  # points
        textcoords="offset points",
        ha="left" if right > 0 else "right",
        va={-1: "top", 0: "center", 1: "bottom"}[up],
        color=theme.ink,
        fontsize=SMALL,
    )


def plot_chart(plan: Plan, chart: Chart) -> Plot:
    """The panels one below the other, for a page."""
    panels = chart.panels
    count, names = len(panels), {series.name for panel in panels for series in panel.series}
    # An axis goes without a title where the next one is the same; a gap holds the title where there is one.
    titled = [(a.x_label, a.x_range) != (b.x_label, b.x_range) for a, b in pairwise(panels)] + [True]
    # Pixels: panels and the gaps between them, then the last axis and the legend, which leaves the axis its title.
    gap = 66 if any(titled[:-1]) else 44
    tall, below = 224 * count + gap * (count - 1), 90 + 22 * ((len(names) + 1) // 2)
    layout: dict[str, Any] = {"height": tall + below, "legend": {"y": -60 / tall, "yanchor": "top"}}
    layout["margin"] = {"b": below}
    traces: list[dict[str, Any]] = []
    named: set[str] = set()
    for at, panel in enumerate(panels):
        number = str(at + 1) if at else ""  # plotly's first axes have none
        top = 1 - at * (224 + gap) / tall
        x_title = {"text": panel.x_label if titled[at] else ""}
        layout[f"xaxis{number}"] = {"anchor": f"y{number}", "title": x_title, **_x_axis(panel)}
        layout[f"yaxis{number}"] = {"domain": [max(top - 224 / tall, 0.0), top], "title": {"text": panel.y_label}}
        if panel.y_range is not None:
            layout[f"yaxis{number}"]["range"] = list(panel.y_range)
        for series in panel.series:
            axes = {"xaxis": f"x{number}", "yaxis": f"y{number}"}
            traces.append(_trace(series) | axes | {"showlegend": series.name not in named})
            named.add(series.name)
    return Plot(plan.name, plan.title, plan.caption, traces, layout, chart.table)


def _x_axis(panel: Facet) -> dict[str, Any]:
    axis: dict[str, Any] = {"range": list(panel.x_range)}
    if panel.logarithmic:
        axis = {"type": "log", "range": [log10(end) for end in panel.x_range]}
    if panel.ticks:
        axis |= {"tickvals": list(panel.ticks), "ticktext": [formatting.short(tick) for tick in panel.ticks]}
    return axis


def _trace(series: Series) -> dict[str, Any]:
    _, dash = _LINES.get(series.line, ("", "solid"))
    shown = {"lines": series.line, "markers": series.marker, "text": series.labels}
    line = {"color": f"theme:{series.colour}", "dash": dash, "width": series.width + 0.3}
    # Larger than on paper: one has to hit them.
    marker: dict[str, Any] = {"color": f"theme:{series.colour}", "size": series.size + 2}
    if series.marker:
        marker["symbol"] = series.marker
    if series.marker.endswith("-open"):
        marker["line"] = {"width": 1.6}
    lines = [Markup("<br>").join(text.split("\n")) for text in series.hover]
    trace = {
        "type": "scatter",
        "mode": "+".join(mode for mode, drawn in shown.items() if drawn),
        "name": series.name,
        "legendgroup": series.name,
        "x": series.x,
        "y": series.y,
        "hovertext": lines,
        "hovertemplate": Markup("%{hovertext}<extra></extra>"),
        "line": line | ({"shape": "hv"} if series.line == "step" else {}),
        "marker": marker,
        "opacity": series.opacity,
    }
    if series.labels:
        trace["text"] = [text if place else "" for text, place in series.labels]
        trace["textposition"] = [place or "middle right" for _, place in series.labels]
        trace["textfont"] = {"color": "theme:ink", "size": 11}
    if series.intervals:
        trace["error_y"] = _whiskers(series)
    return trace


def _whiskers(series: Series) -> dict[str, Any]:
    up, down = [], []
    for y, ends in zip(series.y, series.intervals, strict=True):
        low, high = (0.0, 0.0) if y is None or ends is None else (y - ends[0], ends[1] - y)
        # Of a few seeds, the interval may leave out their own mean.
        down.append(max(low, 0.0))
        up.append(max(high, 0.0))
    look = {"color": f"theme:{series.colour}", "thickness": 1.5, "width": 0}
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, **look}
