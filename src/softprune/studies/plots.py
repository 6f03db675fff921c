"""A study's figures as the page draws them: with its colours, and with their numbers in a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from softprune.report.interactive import SERIES, Cell, Numbers, Plot
from softprune.studies.findings import Figure

_MOST_ROWS: Final = 400
"""A longer table helps nobody; the numbers are in study.json."""
_COLOURWAY: Final = [f"theme:c{at}" for at in range(len(SERIES["light"]))]


def make_plot(figure: Figure) -> Plot:
    """The figure with what the experiment left to the page."""
    traces = [_coloured(trace) for trace in figure.traces]
    layout = {"height": 420, "colorway": _COLOURWAY, **figure.layout}
    return Plot(figure.name, figure.title, figure.caption, traces, layout, _numbers(figure))


def _coloured(trace: Mapping[str, Any]) -> dict[str, Any]:
    """Heat maps around a middle have two colours, others one that gets stronger."""
    if trace.get("type") != "heatmap":
        return dict(trace)
    return {"colorscale": "theme:signed_scale" if "zmid" in trace else "theme:scale", **trace}


def _numbers(figure: Figure) -> Numbers:
    maps = [trace for trace in figure.traces if "z" in trace]
    if len(maps) == len(figure.traces) == 1:
        return _map(maps[0])
    lines = [trace for trace in figure.traces if "x" in trace and "y" in trace]
    rows = tuple(row for trace in lines for row in _rows(trace))
    if not rows or len(rows) > _MOST_ROWS:
        return Numbers((), ())
    headings = ["", *(_title(figure.layout, axis) or axis[0] for axis in ("xaxis", "yaxis")), "low", "high"]
    kept = [at for at in range(len(headings)) if at == 1 or any(row[at] not in (None, "") for row in rows)]
    return Numbers(tuple(headings[at] for at in kept), tuple(tuple(row[at] for at in kept) for row in rows))


def _rows(trace: Mapping[str, Any]) -> Iterator[tuple[Cell, ...]]:
    """Name, x, y and the ends of the error bar of each point; a bar that lies has its numbers along x."""
    over = "x" if trace.get("orientation") == "h" else "y"
    bars = trace.get(f"error_{over}") or {}
    up = bars.get("array") or [None] * len(trace["x"])
    down = bars.get("arrayminus") or up
    for x, y, more, less in zip(trace["x"], trace["y"], up, down, strict=True):
        value = x if over == "x" else y
        ends = (None, None) if None in (value, more, less) else (value - less, value + more)
        yield (str(trace.get("name", "")), x, y, *ends)


def _map(trace: Mapping[str, Any]) -> Numbers:
    values = trace["z"]
    across = trace.get("x") or range(len(values[0]) if values else 0)
    down = trace.get("y") or range(len(values))
    rows = tuple((str(name), *row) for name, row in zip(down, values, strict=True))
    return Numbers(("", *map(str, across)), rows) if len(rows) <= _MOST_ROWS else Numbers((), ())


def _title(layout: Mapping[str, Any], axis: str) -> str:
    title = (layout.get(axis) or {}).get("title") or ""
    return str(title.get("text", "") if isinstance(title, Mapping) else title)
