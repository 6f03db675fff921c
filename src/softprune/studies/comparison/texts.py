"""A comparison for a terminal, as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from softprune.printable import markdown_text
from softprune.studies.comparison.columns import MEASURED, Row, build_sections, interval_covers
from softprune.studies.tables import latex, latex_text, markdown_grid, rich_table
from softprune.terminal import literal


def rich_text(found: Mapping[str, Any]) -> Group:
    """All tables; under them, what intervals cover and what isn't defined."""
    parts: list[RenderableType] = [literal(title(found), "bold")]
    for section in build_sections(found, narrow=True):
        heads = ["method", *(column.short or column.heading for column in section.columns)]
        dim = [number for number, row in enumerate(section.rows) if row["kind"] != "method"]
        parts += [Text(), rich_table(section.table, heads, dim)]
    return Group(*parts, *map(literal, notes(found)))


def title(found: Mapping[str, Any]) -> str:
    """Task and model of a comparison."""
    seeds = len(found["seeds"])
    return f"{found['task']} · {found['backbone']} · {seeds} seed{'s' * (seeds != 1)} · n = {found['n']}"


def notes(found: Mapping[str, Any]) -> list[str]:
    """The lines under the tables."""
    return [f"95% intervals: {interval_covers(found)}", *missing(found)]


def missing(found: Mapping[str, Any]) -> list[str]:
    """The methods without a row, with the reason."""
    return [f"{method}: not defined: {reason}" for method, reason in found["not_defined"].items()]


def csv_text(found: Mapping[str, Any]) -> str:
    """All numbers, unrounded, a line for each row; what wasn't measured is empty."""
    lines = [_flat(row) for row in found["rows"]]
    lines += [{"name": method, "kind": "not defined", "reason": why} for method, why in found["not_defined"].items()]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, dict.fromkeys(name for line in lines for name in line), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


def markdown(found: Mapping[str, Any]) -> str:
    """The tables, what their columns mean, and what isn't defined."""
    parts = [f"## {markdown_text(title(found))}", *(f"- {markdown_text(line)}" for line in missing(found))]
    for section in build_sections(found):
        meanings = [f"- {markdown_text(column.heading)}: {markdown_text(column.meaning)}" for column in section.columns]
        parts += [f"### {section.heading}", markdown_grid(section.table), "\n".join(meanings)]
    return "\n\n".join(parts) + "\n"


def latex_tables(found: Mapping[str, Any]) -> str:
    """The tables for booktabs."""
    comments = [f"% {latex_text(line)}" for line in (title(found), *notes(found))]
    head = "\n".join(["% needs \\usepackage{booktabs}", *comments])
    return "\n\n".join([head, *(latex(section.table) for section in build_sections(found))]) + "\n"


def _flat(row: Row) -> dict[str, Any]:
    low, high = row["interval"] or (None, None)
    line = {"name": row["name"], "kind": row["kind"], "mean": row["mean"], "sd": row["sd"], "low": low, "high": high}
    for column in MEASURED:
        line["_".join(filter(None, (column.key, column.unit)))] = _whole(row.get(column.key))
    line |= {f"difference_{name}": value for name, value in (row["difference"] or {}).items()}
    line |= {name: value for name, value in row["others"].items() if value is not None}
    line |= {"lr": _join(row["lr"]), "swept": _join(row["multiples"]), "values": _join(row["values"]), "reason": None}
    for size, seconds in (row["latency"] or {}).items():
        line |= {f"latency_{size}_{name}": value for name, value in seconds.items()}
    return line


def _whole(value: float | None) -> float | None:
    """A count as an integer; the mean of counts that differ between seeds stays a fraction."""
    return int(value) if value is not None and float(value).is_integer() else value


def _join(values: Sequence[Any] | None) -> str | None:
    return None if values is None else " ".join("" if value is None else str(value) for value in values)
