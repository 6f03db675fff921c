"""Figures as plotly has them: bars of a table with their intervals, points, titles of axes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from softprune.studies.findings import Cell, Figure, Table


def bars(
    table: Table,
    name: str,
    title: str,
    columns: Sequence[str],
    *,
    what: str = "score on report (%)",
    rows: Sequence[str] = (),
) -> Figure:
    """A group of bars for each of some columns, a bar for each row that has a number there.

    Args:
        table: its first column names the rows; cells are fractions, and are drawn as percent or points.
        name, title: the figure's.
        columns: heads of those that are drawn.
        what: the bars are, with their unit.
        rows: names of those that are drawn; empty for all.
    """
    traces: list[dict[str, Any]] = []
    incomplete: list[str] = []
    at = {column: table.columns.index(column) for column in columns}
    for row in table.rows:
        label = str(row[0])
        if rows and label not in rows:
            continue
        measured: dict[str, Cell] = {}
        for column, place in at.items():
            cell = row[place]
            if isinstance(cell, Cell) and cell.value is not None:
                measured[column] = cell
        if measured:
            trace = {
                "type": "bar",
                "name": label,
                "x": list(measured),
                "y": [100 * (cell.value or 0.0) for cell in measured.values()],
                "text": ["*" if cell.chance else "" for cell in measured.values()],  # what isn't interpretable
                "textposition": "outside",
                "error_y": error_bars(measured.values()),
            }
            traces.append(trace)
        if len(measured) < len(columns):
            incomplete.append(label)
    gaps = f" Without a bar where the table has no number: {', '.join(incomplete)}." if incomplete else ""
    caption = (
        f"Bars: {what} of {', '.join(str(trace['name']) for trace in traces)}, side by side for "
        f"{', '.join(columns)}; lines are the 95% intervals of the table, which has the same numbers.{gaps}"
    )
    return Figure(name, title, caption, traces, {"barmode": "group", **axes(y=what)})


def error_bars(cells: Iterable[Cell]) -> dict[str, Any]:
    """The intervals of fractions in percent, as plotly has them; none where a cell has none."""
    above: list[float | None] = []
    below: list[float | None] = []
    for cell in cells:
        if cell.value is None or cell.low is None or cell.high is None:
            above.append(None)
            below.append(None)
        else:
            above.append(100 * (cell.high - cell.value))
            below.append(100 * (cell.value - cell.low))
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below}


def points(name: str, x: Sequence[Any], y: Sequence[Any], mode: str = "markers", **more: Any) -> dict[str, Any]:
    """A trace of points, or of lines through them."""
    return {"type": "scatter", "mode": mode, "name": name, "x": list(x), "y": list(y), **more}


def axes(x: str | None = None, y: str | None = None) -> dict[str, Any]:
    """The layout's titles of both axes."""
    titles = {"xaxis": x, "yaxis": y}
    return {axis: {"title": {"text": title}} for axis, title in titles.items() if title is not None}
