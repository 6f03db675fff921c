"""Bars, histograms, the compression plot and training curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from softprune.report.heatmaps import is_signed, relative
from softprune.report.mpl_style import SMALL, Theme, dress, legend_below, new_figure, sparse
from softprune.report.run_reader import Bools, Floats, Point, Run
from softprune.types import Candidate


@dataclass(frozen=True, slots=True)
class Frontier:
    """What the compression plot shows; candidates without a select score aren't in it.

    Attributes:
        pruned, select: per candidate, the share of parameters pruned and what it was chosen by on `select`; percent,
            but for minus a loss.
        front: places of the Pareto front, from the least pruned.
        winner: its place, if it is known.
        levels: name and select value of the unpruned prompts.
        metric, unit: what choices went by, and how it is written.
    """

    pruned: tuple[float, ...]
    select: tuple[float, ...]
    front: tuple[int, ...]
    winner: int | None
    levels: tuple[tuple[str, float], ...]
    metric: str
    unit: str = " (%)"


@dataclass(frozen=True, slots=True)
class Series:
    """One training curve; `role` is tuned, control, winner or candidate."""

    role: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Curves:
    """What the training figure shows."""

    series: tuple[Series, ...]
    metric: str
    unit: str = " (%)"
    scale: float = 100.0


def frontier_of(run: Run) -> Frontier | None:
    """The compression plot's numbers; None without a prompt's size or candidates."""
    prompt = run.record.prompt
    if prompt is None:
        return None
    whole = prompt.P * prompt.H
    trained = [c for c in run.candidates if c.select is not None]
    pruned = tuple(100 * (1 - c.parameters / whole) for c in trained)
    front = sorted((i for i, c in enumerate(trained) if c.pareto), key=lambda i: pruned[i])
    winner = next((i for i, c in enumerate(trained) if c.status == "winner"), None)
    return Frontier(
        pruned=pruned,
        select=tuple(_scale(run) * (c.select or 0.0) for c in trained),
        front=tuple(front),
        winner=winner,
        levels=_levels(run),
        metric=_metric(run),
        unit=_unit(run),
    )


def curves_of(run: Run) -> Curves:
    """The training curves: tuning, control, winner and the other candidates; fresh seeds stay out."""
    winner = next((c.id for c in run.candidates if c.status == "winner"), None)
    swept = next((f"rate-x{name}" for name, row in run.record.sweep.items() if row.chosen), None)
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in run.points:
        groups.setdefault((point.phase, point.candidate), []).append(point)
    series = []
    for (phase, candidate), points in groups.items():
        role = _role(phase, candidate, winner, run.candidates, swept)
        if role is not None:
            series.append(Series(role, tuple(sorted(points, key=lambda p: p.step))))
    order = ("candidate", "tuned", "control", "winner")
    return Curves(tuple(sorted(series, key=lambda s: order.index(s.role))), _metric(run), _unit(run), _scale(run))


def token_bars(token_P: Floats, kept_P: Bools | None, theme: Theme) -> Figure:
    """Importance of each token, kept and pruned apart."""
    figure = new_figure(theme, height=2.9)
    axes = figure.subplots()
    places = np.arange(len(token_P))
    kept = np.ones(len(token_P), dtype=bool) if kept_P is None else kept_P
    _token_axis(axes, len(token_P), theme, "importance")
    if (~kept).any():
        # A band behind the bar: a pruned token's own bar is often too low to see.
        for place in places[~kept]:
            axes.axvspan(place - 0.5, place + 0.5, color=theme.faint, linewidth=0, zorder=0.5)
        _hatched(axes, places[~kept], token_P[~kept], theme)
    axes.bar(places[kept], token_P[kept], color=theme.kept, width=0.8, label="kept")
    if kept_P is not None:
        legend_below(figure, axes, theme)
    return figure


def retention_bars(piece_PS: Bools, theme: Theme) -> Figure:
    """Surviving pieces of each token."""
    count, pieces = piece_PS.shape
    left_P = piece_PS.sum(axis=1)
    figure = new_figure(theme, height=2.9)
    axes = figure.subplots()
    places = np.arange(count)
    edge = 0.8 if count <= 40 else 0.3
    axes.bar(places, pieces, width=0.8, color="none", edgecolor=theme.pruned, linewidth=edge, label="all pieces")
    axes.bar(places, left_P, width=0.8, color=theme.kept, label="kept pieces")
    gone = places[left_P == 0]
    size = 30 if count <= 40 else 9
    axes.scatter(gone, np.full(len(gone), pieces * 0.06), marker="x", s=size, color=theme.control, label="pruned token")
    _token_axis(axes, count, theme, "pieces")
    axes.set_ylim(0, pieces * 1.04)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    legend_below(figure, axes, theme)
    return figure


def histogram(values: Floats, bins: int, things: str, colour: str, theme: Theme) -> Figure:
    """How many shares of the largest lie in each part of 0 to 1, or of -1 to 1 where some are negative."""
    signed = is_signed(values)
    parts, low = (10, -1.0) if signed else (bins, 0.0)
    counts, _ = np.histogram(relative(values), bins=parts, range=(low, 1.0))
    figure = new_figure(theme, height=2.9)
    axes = figure.subplots()
    bars = axes.bar(range(parts), counts, width=0.86, color=getattr(theme, colour))
    axes.bar_label(bars, labels=[str(count) for count in counts], color=theme.ink, padding=2)
    axes.set_ylim(0, max(int(counts.max()), 1) * 1.14)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    edges = [round(low + i * (1.0 - low) / parts, 1) + 0.0 for i in range(parts + 1)]
    names = [f"{a:.1f}\nto {b:.1f}" if signed else f"{a:.1f}–{b:.1f}" for a, b in pairwise(edges)]
    axes.set_xticks(range(parts), names, fontsize=SMALL)
    dress(axes, theme, "importance (1 = largest)", f"number of {things}")
    return figure


def compression(frontier: Frontier, theme: Theme) -> Figure:
    """`select` score against the share of the prompt that is pruned."""
    figure = new_figure(theme, height=4.2)
    axes = figure.subplots()
    x, y = np.asarray(frontier.pruned), np.asarray(frontier.select)
    axes.scatter(x, y, s=22, color=theme.other, alpha=0.75, linewidths=0, label="candidate")
    front = list(frontier.front)
    if front:
        # A step, not a slope: between two candidates there is only the more pruned one to use.
        axes.step(x[front], y[front], where="pre", color=theme.front, linewidth=1.3)
        axes.plot(x[front], y[front], "o", ms=6, color=theme.front, label="Pareto front")
    # Each line's dashes fall into the other's gaps: both show where they coincide.
    styles = {"tuned prompt": (theme.tuned, (0, (5, 5))), "control": (theme.control, (5, (5, 5)))}
    for name, level in frontier.levels:
        colour, dashes = styles[name]
        axes.axhline(level, color=colour, linestyle=dashes, linewidth=1.6, label=f"{name} ({level:.1f})")
    if frontier.winner is not None:
        at = frontier.winner
        axes.plot(
            x[at], y[at], "*", ms=17, color=theme.kept, mec=theme.paper, mew=1, label=f"winner ({y[at]:.1f})", zorder=5
        )
    low, high = min(x.min(), 100.0), max(x.max(), 0.0)
    room = max(0.06 * (high - low), 3.0)
    axes.set_xlim(max(low - room, -2.0), min(high + room, 102.0))
    axes.margins(y=0.1)
    dress(axes, theme, "parameters pruned (%)", f"{frontier.metric} on select{frontier.unit}", grid="both")
    legend_below(figure, axes, theme)
    return figure


def training(curves: Curves, theme: Theme) -> Figure:
    """Loss on the left, `select` score on the right."""
    figure = new_figure(theme, height=3.7)
    left, right = figure.subplots(1, 2)
    seen: set[str] = set()
    for series in curves.series:
        _draw_series(left, right, series, theme, series.role not in seen, curves.scale)
        seen.add(series.role)
    dress(left, theme, "optimiser step", "loss (train —, select - -)", "Loss", grid="both")
    dress(right, theme, "optimiser step", f"{curves.metric} on select{curves.unit}", "Select score", grid="both")
    for axes in (left, right):
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    legend_below(figure, right, theme, columns=4)
    return figure


def _draw_series(left: Axes, right: Axes, series: Series, theme: Theme, first: bool, scale: float) -> None:
    names = {"tuned": "tuning", "control": "control", "winner": "winner", "candidate": "other candidates"}
    colours = {"tuned": theme.tuned, "control": theme.control, "winner": theme.kept, "candidate": theme.other}
    quiet = series.role == "candidate"
    points = series.points
    look = {
        "color": colours[series.role],
        "linewidth": 0.7 if quiet else 1.7,
        "alpha": 0.45 if quiet else 1.0,
        "marker": "o" if len(points) == 1 else {"tuned": "", "control": "s", "winner": "o"}.get(series.role, ""),
        "markersize": 2.5 if quiet else 3.5,
        "markevery": max(len(points) // 8, 1),
    }
    steps = [p.step for p in points]
    if not quiet:
        left.plot(steps, _values([p.train_loss for p in points]), **look)  # type: ignore[arg-type]
        left.plot(steps, _values([p.select_loss for p in points]), linestyle="--", **look)  # type: ignore[arg-type]
    label = names[series.role] if first else None
    right.plot(steps, scale * _values([p.select for p in points]), label=label, **look)  # type: ignore[arg-type]


def _values(values: Sequence[float | None]) -> Floats:
    """A gap where a value isn't known."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _role(
    phase: str, candidate: str, winner: str | None, candidates: Sequence[Candidate], swept: str | None
) -> str | None:
    if phase in ("tune", "adapt") or (phase == "sweep" and candidate == swept):
        return "tuned"
    if phase == "control":
        return "control" if str(candidate).startswith("control") else None
    if candidate == winner:
        return "winner"
    return "candidate" if candidate in {c.id for c in candidates} else None


def _levels(run: Run) -> tuple[tuple[str, float], ...]:
    """`select` at the checkpoint that was kept, for the two unpruned prompts."""
    found = []
    for role, name in (("tuned", "tuned prompt"), ("control", "control")):
        points = [p for s in curves_of(run).series if s.role == role for p in s.points if p.select is not None]
        if not points:
            continue
        if run.best_by == "loss":
            best = min(points, key=lambda p: float("inf") if p.select_loss is None else p.select_loss)
        else:
            best = max(points, key=lambda p: p.select or 0.0)
        found.append((name, _scale(run) * (best.select or 0.0)))
    return tuple(found)


def _metric(run: Run) -> str:
    """What choices went by; only what the figures' font can write."""
    if run.is_generation:
        return "minus loss"
    name = run.metric
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in name)


def _unit(run: Run) -> str:
    return "" if run.is_generation else " (%)"


def _scale(run: Run) -> float:
    return 1.0 if run.is_generation else 100.0


def _hatched(axes: Axes, places: npt.NDArray[np.int_], heights: Floats, theme: Theme) -> None:
    axes.bar(
        places,
        heights,
        width=0.8,
        color=theme.pruned,
        edgecolor=theme.paper,
        linewidth=0,
        hatch="////",
        label="pruned",
    )


def _token_axis(axes: Axes, count: int, theme: Theme, y: str) -> None:
    ticks = sparse(count)
    axes.set_xticks(ticks, [f"T{place}" for place in ticks], fontsize=SMALL)
    axes.set_xlim(-0.7, count - 0.3)
    dress(axes, theme, "prompt token", y)
