"""Charts of points and lines, described once and drawn twice: by matplotlib for files, by plotly for pages.

A run has two: scores against compression, and the curves of its trainings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from softprune.data.metrics import metric_label
from softprune.report import formatting
from softprune.report.interactive import Cell, Numbers, Plot
from softprune.report.mpl_style import Plan, Theme, dress, legend_below, new_figure
from softprune.report.run_reader import Point, Run
from softprune.report.table import candidate_cells
from softprune.types import Candidate

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
# In the order in which they are drawn: what matters most lies on top.
ROLES: Final = {
    "candidate": ("other candidates", "other", "circle"),
    "tuned": ("tuning", "tuned", "circle"),
    "control": ("control", "control", "square"),
    "winner": ("winner", "kept", "diamond"),
}
"""Name, colour and marker of a training by its role."""


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


# --- the charts of a run ---


def group_trainings(run: Run) -> list[tuple[str, list[Point]]]:
    """The trainings that have a role, with their evaluations in order of steps.

    Fresh seeds, the random mask, gates and learning rates that lost a sweep have none.
    """
    roles = {c.id: "winner" if c.status == "winner" else "candidate" for c in run.candidates}
    chosen_rate = next((f"rate-x{name}" for name, row in run.record.sweep.items() if row.chosen), None)
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in run.points:
        groups.setdefault((point.phase, point.candidate), []).append(point)
    trainings = []
    for (phase, candidate), points in groups.items():
        role = roles.get(candidate)
        if phase in ("tune", "adapt") or (phase == "sweep" and candidate == chosen_rate):
            role = "tuned"
        elif phase == "control":  # the random mask is in it, too
            role = "control" if str(candidate).startswith("control") else None
        if role is not None:
            trainings.append((role, sorted(points, key=lambda point: point.step)))
    order = list(ROLES)
    return sorted(trainings, key=lambda training: order.index(training[0]))


def compression_chart(run: Run) -> Chart | None:
    """Every trained candidate's `select` score against what it prunes; None without candidates or a prompt's size."""
    trained, prompt = [c for c in run.candidates if c.select is not None], run.record.prompt
    if prompt is None or not trained:
        return None
    metric, unit, scale = _score_axis(run)
    pruned = [100 * (1 - c.parameters / (prompt.P * prompt.H)) for c in trained]
    scores = [scale * (c.select or 0.0) for c in trained]
    hover, rows = _describe_candidates(run, trained, pruned)
    winner = next((i for i, c in enumerate(trained) if c.status == "winner"), None)
    front = sorted((i for i, c in enumerate(trained) if c.pareto), key=lambda i: pruned[i])
    others = [i for i in range(len(trained)) if i not in front and i != winner]
    # Beside the outermost points, so that none lies on an axis; candidates of one size have some as well.
    room = max(0.06 * (max(pruned) - min(pruned)), 3.0)
    ends = (max(min(pruned) - room, -2.0), min(max(pruned) + room, 102.0))

    def points(name: str, colour: str, places: list[int], **look: Any) -> Series:
        x, y = tuple(pruned[i] for i in places), tuple(scores[i] for i in places)
        return Series(name, x, y, colour, tuple(hover[i] for i in places), **look)

    series = [points("candidate", "other", others, marker="circle", size=4.7, opacity=0.75)]
    if front:
        # A step, not a slope: between two candidates there is only the more pruned one to use.
        series.append(points("Pareto front", "front", front, line="step", width=1.3, marker="circle", size=7.0))
    for role, name, line in (("tuned", "tuned prompt", "even"), ("control", "control", "odd")):
        level = _kept_score(run, role)
        if level is not None:
            label = f"{name} ({scale * level:.1f})"
            series.append(Series(label, ends, (scale * level,) * 2, role, (label,) * 2, line=line, width=1.6))
    if winner is not None:
        series.append(points(f"winner ({scores[winner]:.1f})", "kept", [winner], marker="star", size=17.0))
    headings = ("candidate", "parameters pruned (%)", "parameters", run.select_name, "Pareto front")
    panel = Facet("", "parameters pruned (%)", f"{metric} on select{unit}", ends, tuple(series))
    return Chart((panel,), 4.2, Numbers(headings, rows))


def _describe_candidates(
    run: Run, trained: list[Candidate], pruned: list[float]
) -> tuple[list[str], tuple[tuple[Cell, ...], ...]]:
    """What is said of each candidate where it is pointed at, and its row in the chart's table."""
    hover, rows = [], []
    for candidate, share in zip(trained, pruned, strict=True):
        cells = candidate_cells(run, candidate)
        lines = [
            "{id} (winner)" if candidate.status == "winner" else "{id}",
            "select {select}, report {report}",
            "{tokens} tokens, {pieces} pieces",
            "{parameters} parameters, {share:.1f}% pruned",
        ]
        hover.append("\n".join(lines).format(**cells, share=share))
        on_front = "yes" if candidate.pareto else "no"
        rows.append((cells["id"], f"{share:.1f}", float(candidate.parameters), cells["select"], on_front))
    return hover, tuple(rows)


def _kept_score(run: Run, role: str) -> float | None:
    """`select` at the checkpoint that was kept of a training; None where it wasn't measured."""
    points = [p for name, points in group_trainings(run) if name == role for p in points if p.select is not None]
    if not points:
        return None
    if run.best_by == "loss":
        return min(points, key=lambda p: float("inf") if p.select_loss is None else p.select_loss).select
    return max(points, key=lambda p: p.select or 0.0).select


def training_chart(run: Run) -> Chart | None:
    """Losses, and scores on `select`, by step; None without a training."""
    trainings = group_trainings(run)
    if not trainings:
        return None
    metric, unit, scale = _score_axis(run)
    losses: list[Series] = []
    scores: list[Series] = []
    rows = []
    for role, points in trainings:
        select = [None if p.select is None else scale * p.select for p in points]
        scores.append(_curve(role, points, metric, select))
        if role == "candidate":
            continue  # many: they would hide the others' losses, and make a table that nobody reads
        train_loss, select_loss = [p.train_loss for p in points], [p.select_loss for p in points]
        losses.append(_curve(role, points, "loss on train", train_loss))
        losses.append(_curve(role, points, "loss on select", select_loss, "dashed"))
        for p in points:
            score = p.select if run.is_generation else formatting.percent(p.select)
            rows.append((ROLES[role][0], float(p.step), p.train_loss, p.select_loss, score))
    headings = ("training", "step", "loss on train", "loss on select", f"{metric}{unit}")
    steps = (0.0, 1.05 * max(point.step for _, points in trainings for point in points))
    panels = (
        Facet("Loss", "optimiser step", "loss (train —, select - -)", steps, tuple(losses)),
        Facet("Select score", "optimiser step", f"{metric} on select{unit}", steps, tuple(scores)),
    )
    return Chart(panels, 3.7, Numbers(headings, tuple(rows)))


def _curve(role: str, points: list[Point], measure: str, values: list[float | None], line: str = "solid") -> Series:
    name, colour, marker = ROLES[role]
    hover = []
    for point, value in zip(points, values, strict=True):
        lines = [formatting.printable(point.candidate), f"step {point.step}", f"{measure} {formatting.number(value)}"]
        hover.append("\n".join(lines))
    steps = tuple(float(point.step) for point in points)
    series = Series(name, steps, tuple(values), colour, tuple(hover), line, marker)
    if role == "candidate":
        # One of many: pale, and without markers unless a single point would be invisible.
        return replace(series, marker=marker if len(points) == 1 else "", width=0.7, size=2.5, opacity=0.45)
    return series


def _score_axis(run: Run) -> tuple[str, str, float]:
    """What choices on `select` went by, its unit, and what a stored value is multiplied by."""
    if run.is_generation:
        return "minus loss", "", 1.0
    # Only what the figures' font can write.
    label = metric_label(run.metric)
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in label), " (%)", 100.0
