"""The tables of a comparison: for a terminal, as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from softprune.printable import markdown_text, printable
from softprune.studies.comparison.table_columns import Column, Row, build_narrow_tables, build_tables, cells, sampled
from softprune.terminal import Table, literal

_TEX: Final = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "×": r"$\times$",
    "–": "--",
}
_MINUS: Final = re.compile(r"(?<!\w)-(?=\d)")
_AGAINST: Final = ("against", "value", "low", "high", "p", "p_holm", "covers_seeds", "se_seeds", "se_examples")
_NUMBERS: Final = ("mean", "sd", "trainable", "stored", "seconds", "seconds_per_epoch", "examples_per_second")


def rich_tables(found: Mapping[str, Any]) -> Group:
    """All tables; under them, what intervals cover and what isn't defined."""
    parts: list[RenderableType] = [literal(title(found), "bold")]
    for heading, columns, rows in build_narrow_tables(found):
        parts += [Text(), literal(heading, "table.title"), _rich(columns, rows)]
    return Group(*parts, *map(literal, notes(found)))


def title(found: Mapping[str, Any]) -> str:
    """Task and model of a comparison."""
    seeds = len(found["seeds"])
    return f"{found['task']} · {found['backbone']} · {seeds} seed{'s' * (seeds != 1)} · n = {found['n']}"


def notes(found: Mapping[str, Any]) -> list[str]:
    """The lines under the tables."""
    return [f"95% intervals: {sampled(found)}", *missing(found)]


def missing(found: Mapping[str, Any]) -> list[str]:
    """The methods without a row, with the reason."""
    return [f"{method}: not defined: {reason}" for method, reason in found["not_defined"].items()]


def csv_text(found: Mapping[str, Any]) -> str:
    """All numbers, unrounded, a line for each row; what wasn't measured is empty."""
    made = io.StringIO()
    lines = [_flat(row) for row in found["rows"]]
    lines += [{"name": method, "kind": "not defined", "reason": why} for method, why in found["not_defined"].items()]
    names = list(dict.fromkeys(name for line in lines for name in line))
    writer = csv.DictWriter(made, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return made.getvalue()


def markdown(found: Mapping[str, Any]) -> str:
    """The tables, what their columns mean, and what isn't defined."""
    parts = [f"## {markdown_text(title(found))}", *(f"- {markdown_text(line)}" for line in missing(found))]
    for heading, columns, rows in build_tables(found):
        parts += [f"### {heading}", _markdown(columns, rows)]
        meanings = [f"- {markdown_text(column.heading)}: {markdown_text(column.meaning)}" for column in columns]
        parts.append("\n".join(meanings))
    return "\n\n".join(parts) + "\n"


def latex(found: Mapping[str, Any]) -> str:
    """The tables for booktabs."""
    comments = [f"% {_tex(line)}" for line in (title(found), *notes(found))]
    head = "\n".join(["% needs \\usepackage{booktabs}", *comments])
    return "\n\n".join([head, *(_latex(*table) for table in build_tables(found))]) + "\n"


def _rich(columns: Sequence[Column], rows: Sequence[Row]) -> Table:
    table = Table(
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        header_style="bold underline",
    )
    table.add_column("method", min_width=12, overflow="fold")
    for column in columns:
        table.add_column(column.short, justify="right", overflow="fold")
    for row in rows:
        table.add_row(*cells(columns, row), style=None if row["kind"] == "method" else "dim")
    return table


def _flat(row: Row) -> dict[str, Any]:
    low, high = row["interval"] or (None, None)
    against = row["difference"] or {}
    line = {
        "name": row["name"],
        "kind": row["kind"],
        **{name: row[name] for name in _NUMBERS},
        **{name: _whole(row[name]) for name in ("trainable", "stored")},
        "peak_memory_bytes": _whole(row["peak_memory"]),
        "low": low,
        "high": high,
        **{f"difference_{name}": against.get(name) for name in _AGAINST},
        **{name: value for name, value in row["others"].items() if value is not None},
        "lr": _several(row["lr"]),
        "swept": _several(row["multiples"]),
        "values": _several(row["values"]),
        "reason": None,
    }
    for size, seconds in (row["latency"] or {}).items():
        line |= {f"latency_{size}_{name}": value for name, value in seconds.items()}
    return line


def _whole(value: float | None) -> float | None:
    """A count as an integer; the mean of counts that differ between seeds stays a fraction."""
    return int(value) if value is not None and float(value).is_integer() else value


def _several(values: Sequence[Any] | None) -> str | None:
    return None if values is None else " ".join("" if value is None else str(value) for value in values)


def _markdown(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    lines = [["method", *(column.heading for column in columns)], ["---", *("---:" for _ in columns)]]
    lines += [cells(columns, row) for row in rows]
    return "\n".join(f"| {' | '.join(map(markdown_text, line))} |" for line in lines)


def _latex(heading: str, columns: Sequence[Column], rows: Sequence[Row]) -> str:
    head = " & ".join(["method", *(_tex(column.heading) for column in columns)])
    body = []
    for row in rows:
        name, *numbers = map(_tex, cells(columns, row))
        body.append(" & ".join([name, *(_MINUS.sub("$-$", number) for number in numbers)]) + r" \\")
    return "\n".join(
        [
            rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
            rf"% {_tex(heading)}",
            r"\toprule",
            head + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def _tex(text: str) -> str:
    """A text as LaTeX shows it; other than ASCII it keeps, which today's engines read as UTF-8."""
    return "".join(_TEX.get(sign, sign) for sign in " ".join(printable(text).split()))
