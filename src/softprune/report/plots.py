"""A run's figures as plotly draws them; each has the name, and so the place, of the picture that shows the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from markupsafe import Markup

from softprune.report import formatting
from softprune.report.curves import Curves, Series, curves_of, frontier_of
from softprune.report.figures import Plan
from softprune.report.interactive import Numbers, Plot
from softprune.report.run_reader import Point, Run

_HOVER = Markup("%{text}<extra></extra>")
_LINE = Markup("<br>")
_ROLES = {"tuned": "tuning", "control": "control", "winner": "winner", "candidate": "other candidates"}
_COLOURS = {"tuned": "theme:tuned", "control": "theme:control", "winner": "theme:kept", "candidate": "theme:other"}
_SYMBOLS = {"tuned": "circle", "control": "square", "winner": "diamond", "candidate": "circle"}


def plots_of(run: Run, plans: list[Plan]) -> dict[str, Plot]:
    """Plots by name, of those planned figures that have numbers."""
    return {plan.name: _PLOTS[plan.name](run, plan) for plan in plans if plan.draw is not None and plan.name in _PLOTS}


def _compression(run: Run, plan: Plan) -> Plot:
    frontier = frontier_of(run)
    assert frontier is not None
    trained = [c for c in run.candidates if c.select is not None]
    shown = [formatting.number(c.select_loss) if run.is_generation else formatting.percent(c.select) for c in trained]
    texts = [
        _LINE.join(
            [
                formatting.printable(c.id) + (" (winner)" if c.status == "winner" else ""),
                f"select {score}, report {formatting.percent(c.report)}",
                f"{formatting.number(c.tokens_kept)} tokens, {formatting.number(c.pieces_kept)} pieces",
                f"{formatting.number(c.parameters)} parameters, {pruned:.1f}% pruned",
            ]
        )
        for c, score, pruned in zip(trained, shown, frontier.pruned, strict=True)
    ]

    def part(places: list[int], name: str, **more: object) -> dict[str, Any]:
        return {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": [frontier.pruned[i] for i in places],
            "y": [frontier.select[i] for i in places],
            "text": [texts[i] for i in places],
            "hovertemplate": _HOVER,
            **more,
        }

    front = list(frontier.front)
    rest = [i for i in range(len(trained)) if i not in front and i != frontier.winner]
    traces = [part(rest, "candidate", marker={"color": "theme:other", "size": 8})]
    if front:
        line = {"shape": "vh", "color": "theme:front", "width": 1.5}
        traces.append(
            part(front, "Pareto front", mode="lines+markers", line=line, marker={"color": "theme:front", "size": 9})
        )
    colours = {"tuned prompt": ("theme:tuned", "dash"), "control": ("theme:control", "dot")}
    ends = [min(frontier.pruned), max(frontier.pruned)]
    for name, level in frontier.levels:
        colour, dash = colours[name]
        label = f"{name} ({level:.1f})"
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": label,
                "x": ends,
                "y": [level, level],
                "text": [label, label],
                "hovertemplate": _HOVER,
                "line": {"color": colour, "dash": dash, "width": 2},
            }
        )
    if frontier.winner is not None:
        star = {"color": "theme:kept", "size": 17, "symbol": "star", "line": {"color": "theme:paper", "width": 1}}
        traces.append(part([frontier.winner], "winner", marker=star))
    rows = tuple(
        (formatting.printable(c.id), f"{pruned:.1f}", float(c.parameters), score, "yes" if c.pareto else "no")
        for c, pruned, score in zip(trained, frontier.pruned, shown, strict=True)
    )
    layout = {
        "height": 440,
        "xaxis": {"title": {"text": "parameters pruned (%)"}},
        "yaxis": {"title": {"text": f"{frontier.metric} on select{frontier.unit}"}},
    }
    heading = "loss on select" if run.is_generation else f"select{frontier.unit}"
    headings = ("candidate", "parameters pruned (%)", "parameters", heading, "Pareto front")
    return Plot(plan.name, plan.title, plan.caption, traces, layout, Numbers(headings, rows))


def _training(run: Run, plan: Plan) -> Plot:
    curves = curves_of(run)
    traces: list[Mapping[str, Any]] = []
    seen: set[str] = set()
    for series in curves.series:
        traces += _of_series(series, curves, series.role not in seen)
        seen.add(series.role)
    layout = {
        "height": 620,
        "legend": {"y": -0.14},
        "xaxis": {"anchor": "y", "rangemode": "tozero"},
        "yaxis": {"domain": [0.55, 1], "title": {"text": "loss"}},
        "xaxis2": {"anchor": "y2", "rangemode": "tozero", "title": {"text": "optimiser step"}},
        "yaxis2": {"domain": [0, 0.45], "title": {"text": f"{curves.metric} on select{curves.unit}"}},
    }
    caption = plan.caption + " Above, the loss: solid lines on train, dashed ones on select; below, the score."
    return Plot(plan.name, plan.title, caption, traces, layout, _steps(run, curves))


def _of_series(series: Series, curves: Curves, first: bool) -> list[dict[str, Any]]:
    """The traces of one training: losses above but for one candidate among many, the score below."""
    quiet = series.role == "candidate"

    def trace(row: str, name: str, of: Callable[[Point], float | None], dash: str = "solid") -> dict[str, Any]:
        values = [of(point) for point in series.points]
        return {
            "type": "scatter",
            "mode": "lines+markers",
            "name": _ROLES[series.role],
            "legendgroup": series.role,
            "showlegend": first and row == "2",
            "xaxis": f"x{row}",
            "yaxis": f"y{row}",
            "x": [point.step for point in series.points],
            "y": values,
            "text": [
                _LINE.join(
                    [formatting.printable(point.candidate), f"step {point.step}", f"{name} {formatting.number(value)}"]
                )
                for point, value in zip(series.points, values, strict=True)
            ],
            "hovertemplate": _HOVER,
            "line": {"color": _COLOURS[series.role], "dash": dash, "width": 1 if quiet else 2},
            "marker": {"color": _COLOURS[series.role], "symbol": _SYMBOLS[series.role], "size": 3 if quiet else 6},
            "opacity": 0.5 if quiet else 1,
        }

    scored = trace("2", curves.metric, lambda p: None if p.select is None else curves.scale * p.select)
    if quiet:
        return [scored]
    return [
        trace("", "loss on train", lambda p: p.train_loss),
        trace("", "loss on select", lambda p: p.select_loss, "dash"),
        scored,
    ]


def _steps(run: Run, curves: Curves) -> Numbers:
    """Every evaluation of the trainings that have a name of their own; the others are in metrics.jsonl."""
    rows = tuple(
        (
            _ROLES[series.role],
            float(point.step),
            point.train_loss,
            point.select_loss,
            point.select if run.is_generation else formatting.percent(point.select),
        )
        for series in curves.series
        if series.role != "candidate"
        for point in series.points
    )
    return Numbers(("training", "step", "loss on train", "loss on select", f"{curves.metric}{curves.unit}"), rows)


_PLOTS: dict[str, Callable[[Run, Plan], Plot]] = {"compression": _compression, "training": _training}
