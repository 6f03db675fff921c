"""A study's tables as Markdown, CSV and for the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box

from softprune import terminal
from softprune.config import Published, Study
from softprune.printable import markdown_text, printable
from softprune.studies.findings import Cell, Table, shown, starred

PUBLISHED = "published: "
"""Before the titles of the source's tables."""
STAR = "* the unpruned prompt is not shown to be above the constant answer there: not interpretable"


def published_tables(published: Sequence[Published]) -> list[Table]:
    """The source's tables as ours are."""
    return [
        Table(f"published-{number}", f"{PUBLISHED}{table.title}", table.columns, table.rows, table.note, published=True)
        for number, table in enumerate(published, start=1)
    ]


def markdown(table: Table) -> str:
    """A table with its title and note."""
    lines = [[markdown_text(head) for head in table.columns], ["---", *("---:" for _ in table.columns[1:])]]
    lines += [[markdown_text(shown(entry)) for entry in row] for row in table.rows]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"**{markdown_text(table.title)}**\n\n{body}\n" + (f"\n{markdown_text(table.note)}\n" if table.note else "")


def document(study: Study, info: Mapping[str, Any], tables: Sequence[Table], sentences: Sequence[str]) -> str:
    """A study's whole result: what was asked, on what, what was found, the tables."""
    size = study.size
    seeds = f"{size.seeds} {'seed' if size.seeds == 1 else 'seeds'}"
    asked = [markdown_text(study.question), f"From: {markdown_text(study.source)}." if study.source else ""]
    head = [f"# {markdown_text(study.title)}", *filter(None, [" ".join(filter(None, asked))])]
    tasks = markdown_text(", ".join(size.tasks))
    head.append(f"Scale {study.scale}: {markdown_text(size.backbone)} on {tasks}, {seeds}.")
    found = "\n".join(f"- {markdown_text(sentence)}" for sentence in sentences)
    star = [f"{STAR}."] if starred(tables) else []
    made = f"    {' '.join(printable(info.get('command', '')).split())}"
    return (
        "\n\n".join([*head, *([found] if found else []), *(markdown(table).rstrip() for table in tables), *star, made])
        + "\n"
    )


def csv_text(table: Table) -> str:
    """The table with value, low and high of each cell in columns of their own; numbers unrounded."""
    made = io.StringIO()
    writer = csv.writer(made, lineterminator="\n")
    heads = [table.columns[0], *(f"{head}{part}" for head in table.columns[1:] for part in ("", " low", " high"))]
    writer.writerow(heads)
    for row in table.rows:
        line: list[object] = [shown(row[0])]
        for entry in row[1:]:
            line += [entry.value, entry.low, entry.high] if isinstance(entry, Cell) else [entry, "", ""]
        writer.writerow(line)
    return made.getvalue()


def rich_table(table: Table) -> terminal.Table:
    """The table for a terminal."""
    made = terminal.Table(
        title=table.title,
        caption=table.note or None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        caption_style="dim",
    )
    for number, head in enumerate(table.columns):
        made.add_column(head, justify="right" if number else "left")
    for row in table.rows:
        made.add_row(*map(shown, row))
    return made
