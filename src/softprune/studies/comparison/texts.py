"""A comparison for a terminal, as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from softprune.printable import markdown_text
from softprune.runs.comparison_record import ComparisonRecord
from softprune.studies.comparison.columns import build_sections, interval_covers, measured_columns
from softprune.studies.tables import latex, latex_text, markdown_grid, rich_table
from softprune.terminal import literal


def rich_text(record: ComparisonRecord) -> Group:
    """All tables with the notes under them."""
    parts: list[RenderableType] = [literal(title(record), "bold")]
    for section in build_sections(record, narrow=True):
        heads = ["method", *(column.short or column.heading for column in section.columns)]
        dim = [number for number, row in enumerate(section.rows) if row.kind != "method"]
        parts += [Text(), rich_table(section.table, heads, dim)]
    return Group(*parts, *map(literal, _notes(record)))


def title(record: ComparisonRecord) -> str:
    """Task and model of a comparison."""
    seeds = len(record.seeds)
    return f"{record.task} · {record.backbone} · {seeds} seed{'s' * (seeds != 1)} · n = {record.n}"


def _notes(record: ComparisonRecord) -> list[str]:
    """The lines under the tables: what intervals cover, then the methods without a row, with the reason."""
    missing = [f"{method}: not defined: {reason}" for method, reason in record.not_defined.items()]
    return [f"95% intervals: {interval_covers(record)}", *missing]


def csv_text(record: ComparisonRecord) -> str:
    """All numbers, unrounded, a line for each row; what wasn't measured is empty."""
    lines: list[dict[str, Any]] = []
    for row in record.rows:
        low, high = row.interval or (None, None)
        line = {"name": row.name, "kind": row.kind, "mean": row.mean, "sd": row.sd, "low": low, "high": high}
        for column, _ in measured_columns():
            number = row.measured(column.key)
            if number is not None and float(number).is_integer():
                number = int(number)  # a count; the mean of counts that differ between seeds stays a fraction
            line["_".join(filter(None, (column.key, column.unit)))] = number
        if row.difference is not None:
            less = {"against": row.difference.against} | row.difference.document()
            line |= {f"difference_{name}": value for name, value in less.items()}
        line |= {name: value for name, value in row.others.items() if value is not None}
        line |= {"lr": _join(row.lr), "swept": _join(row.multiples), "values": _join(row.values), "reason": None}
        for size, seconds in (row.latency or {}).items():
            line |= {f"latency_{size}_{name}": value for name, value in seconds.items()}
        lines.append(line)
    lines += [{"name": method, "kind": "not defined", "reason": why} for method, why in record.not_defined.items()]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, dict.fromkeys(name for line in lines for name in line), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


def _join(values: Sequence[Any] | None) -> str | None:
    return None if values is None else " ".join("" if value is None else str(value) for value in values)


def markdown(record: ComparisonRecord) -> str:
    """The tables, what their columns mean, and what isn't defined."""
    parts = [f"## {markdown_text(title(record))}", *(f"- {markdown_text(line)}" for line in _notes(record)[1:])]
    for section in build_sections(record):
        meanings = [f"- {markdown_text(column.heading)}: {markdown_text(column.meaning)}" for column in section.columns]
        parts += [f"### {section.heading}", markdown_grid(section.table), "\n".join(meanings)]
    return "\n\n".join(parts) + "\n"


def latex_tables(record: ComparisonRecord) -> str:
    """The tables for booktabs."""
    comments = [f"% {latex_text(line)}" for line in (title(record), *_notes(record))]
    head = "\n".join(["% needs \\usepackage{booktabs}", *comments])
    return "\n\n".join([head, *(latex(section.table) for section in build_sections(record))]) + "\n"
