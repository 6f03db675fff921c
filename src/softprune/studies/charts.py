"""Figures of tables: bars with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
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
    places = [table.columns.index(column) for column in columns]
    traces: list[dict[str, Any]] = []
    left_out: list[str] = []
    for row in (row for row in table.rows if not rows or row[0] in rows):
        cells = {table.columns[place]: cell for place in places if isinstance(cell := row[place], Cell)}
        drawn = {column: cell for column, cell in cells.items() if cell.value is not None}
        if drawn:
            traces.append(_bar(str(row[0]), drawn))
        if len(drawn) < len(places):
            left_out.append(str(row[0]))
    gaps = f" Without a bar where the table has no number: {', '.join(left_out)}." if left_out else ""
    caption = (
        f"Bars: {what} of {', '.join(str(trace['name']) for trace in traces)}, side by side for "
        f"{', '.join(columns)}; lines are the 95% intervals of the table, which has the same numbers.{gaps}"
    )
    layout = {"barmode": "group", "yaxis": {"title": {"text": what}}}
    return Figure(name, title, caption, tuple(traces), layout)


def _bar(label: str, cells: dict[str, Cell]) -> dict[str, Any]:
    """One row's bars; a star marks what isn't interpretable, and a bar without an interval has no line."""
    values = [100 * (cell.value or 0.0) for cell in cells.values()]
    above = [_reach(cell.high, cell.value) for cell in cells.values()]
    below = [_reach(cell.value, cell.low) for cell in cells.values()]
    return {
        "type": "bar",
        "name": label,
        "x": list(cells),
        "y": values,
        "text": ["*" if cell.chance else "" for cell in cells.values()],
        "textposition": "outside",
        "error_y": {"type": "data", "symmetric": False, "array": above, "arrayminus": below},
    }


def _reach(high: float | None, low: float | None) -> float | None:
    return None if high is None or low is None else 100 * (high - low)
