"""Charts of points and lines, described once and drawn twice: by matplotlib for files, by plotly for pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from softprune.report.interactive import Numbers, Plot
from softprune.report.mpl_style import Theme, dress, legend_below, new_figure
from softprune.report.pictures import Plan

_LINES: Final[dict[str, tuple[Any, str]]] = {
    "solid": ("-", "solid"),
    "step": ("-", "solid"),
    "dashed": ("--", "dash"),
    # The dashes of either line fall into the other's gaps: both show where they coincide.
    "even": ((0, (5, 5)), "dash"),
    "odd": ((5, (5, 5)), "dot"),
}
"""matplotlib's and plotly's dashes by the line's name."""
_MARKERS: Final = {"circle": "o", "square": "s", "diamond": "D", "star": "*"}
"""matplotlib's markers by plotly's names."""


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one colour."""

    name: str  # in the legend, where all series of one name have one entry
    x: tuple[float, ...]
    y: tuple[float | None, ...]  # None leaves a gap
    colour: str  # a field of `Theme`
    hover: tuple[str, ...]  # what a page says of each point, in lines
    line: str = ""  # solid, dashed, even, odd or step (flat up to each point); empty for points alone
    marker: str = ""  # circle, square, diamond or star; empty for a line alone
    width: float = 1.7  # of the line, in points
    size: float = 3.5  # of the marker, in points
    opacity: float = 1.0


@dataclass(frozen=True, slots=True)
class Facet:
    """One pair of axes."""

    title: str
    x_label: str
    y_label: str
    x_range: tuple[float, float]
    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """Panels with the same legend."""

    panels: tuple[Facet, ...]
    height: float  # of matplotlib's figure, in inches
    table: Numbers  # what a page shows below


def draw_chart(chart: Chart, theme: Theme) -> Figure:
    """The panels side by side, for files."""
    figure = new_figure(theme, chart.height)
    for axes, panel in zip(figure.subplots(1, len(chart.panels), squeeze=False)[0], chart.panels, strict=True):
        named: set[str] = set()
        for series in panel.series:
            dashes, _ = _LINES.get(series.line, ("", ""))
            is_star = series.marker == "star"
            axes.plot(
                series.x,
                [np.nan if y is None else y for y in series.y],
                color=getattr(theme, series.colour),
                linestyle=dashes,
                drawstyle="steps-pre" if series.line == "step" else "default",
                linewidth=series.width,
                alpha=series.opacity,
                marker=_MARKERS.get(series.marker, ""),
                markersize=series.size,
                markeredgecolor=theme.paper if is_star else None,
                markeredgewidth=1 if is_star else 0,
                # A curve's markers only distinguish it from others; of points alone or on a step, each one counts.
                markevery=1 if series.line in ("", "step") else max(len(series.x) // 8, 1),
                label="_" if series.name in named else series.name,  # "_" has no legend entry
            )
            named.add(series.name)
        dress(axes, theme, panel.x_label, panel.y_label, panel.title, grid="both")
        axes.set_xlim(*panel.x_range)
        axes.margins(y=0.1)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    legend_below(figure, axes, theme, columns=4 if len(named) == 4 else 3)
    return figure


def plot_chart(plan: Plan, chart: Chart) -> Plot:
    """The panels one below the other, for a page."""
    count, gap = len(chart.panels), 0.1
    # Pixels: each panel, and what is around them all. The legend is 90 below the last axis, which leaves its title.
    share, height = (1 - gap * (count - 1)) / count, 260 + 180 * count
    layout: dict[str, Any] = {"height": height, "legend": {"y": -90 / height}}
    traces: list[dict[str, Any]] = []
    for at, panel in enumerate(chart.panels):
        number = str(at + 1) if at else ""  # plotly's first axes have none
        is_last = at == count - 1
        top = 1 - at * (share + gap)
        x_title = {"text": panel.x_label if is_last else ""}
        layout[f"xaxis{number}"] = {"anchor": f"y{number}", "range": list(panel.x_range), "title": x_title}
        layout[f"yaxis{number}"] = {"domain": [max(top - share, 0.0), top], "title": {"text": panel.y_label}}
        named: set[str] = set()
        for series in panel.series:
            axes = {"xaxis": f"x{number}", "yaxis": f"y{number}"}
            traces.append(_trace(series) | axes | {"showlegend": is_last and series.name not in named})
            named.add(series.name)
    return Plot(plan.name, plan.title, plan.caption, traces, layout, chart.table)


def _trace(series: Series) -> dict[str, Any]:
    _, dash = _LINES.get(series.line, ("", "solid"))
    modes = [mode for mode, drawn in (("lines", series.line), ("markers", series.marker)) if drawn]
    line = {"color": f"theme:{series.colour}", "dash": dash, "width": series.width + 0.3}
    # Larger than on paper: one has to hit them.
    marker: dict[str, Any] = {"color": f"theme:{series.colour}", "size": series.size + 2}
    if series.marker:
        marker["symbol"] = series.marker
    if series.marker == "star":
        marker["line"] = {"color": "theme:paper", "width": 1}
    return {
        "type": "scatter",
        "mode": "+".join(modes),
        "name": series.name,
        "legendgroup": series.name,
        "x": series.x,
        "y": series.y,
        "text": [Markup("<br>").join(text.split("\n")) for text in series.hover],
        "hovertemplate": Markup("%{text}<extra></extra>"),
        "line": line | ({"shape": "vh"} if series.line == "step" else {}),
        "marker": marker,
        "opacity": series.opacity,
    }
