"""Tables as Markdown, LaTeX, CSV and for the terminal: those of studies and of comparisons."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import Final

from softprune import terminal
from softprune.config import Published, Study
from softprune.printable import markdown_text, printable
from softprune.studies.findings import Cell, Table, format_entry, has_stars

PUBLISHED: Final = "published: "  # before the titles of the source's tables
STAR: Final = "* the unpruned prompt is not shown to be above the constant answer there: not interpretable"
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


def published_tables(published: Sequence[Published]) -> list[Table]:
    """The source's tables as ours are."""
    return [
        Table(f"published-{number}", f"{PUBLISHED}{table.title}", table.columns, table.rows, table.note, published=True)
        for number, table in enumerate(published, start=1)
    ]


def markdown_grid(table: Table) -> str:
    """The table alone."""
    lines = [" | ".join(map(markdown_text, table.columns)), " | ".join(["---", *["---:"] * (len(table.columns) - 1)])]
    for row in table.rows:
        lines.append(" | ".join(markdown_text(format_entry(entry)) for entry in row))
    return "\n".join(f"| {line} |" for line in lines)


def markdown(table: Table) -> str:
    """A table with its title and note."""
    note = f"\n\n{markdown_text(table.note)}" if table.note else ""
    return f"**{markdown_text(table.title)}**\n\n{markdown_grid(table)}{note}\n"


def study_markdown(study: Study, command: str, tables: Sequence[Table], sentences: Sequence[str]) -> str:
    """A study's whole result: what was asked, on what, what was found, the tables."""
    size = study.size
    seeds = f"{size.seeds} seed{'s' * (size.seeds != 1)}"
    source = f"From: {markdown_text(study.source)}." if study.source else ""
    parts = [
        f"# {markdown_text(study.title)}",
        " ".join(filter(None, (markdown_text(study.question), source))),
        f"Scale {study.scale}: {markdown_text(size.backbone)} on {markdown_text(', '.join(size.tasks))}, {seeds}.",
        "\n".join(f"- {markdown_text(sentence)}" for sentence in sentences),
        *(markdown(table).rstrip() for table in tables),
        f"{STAR}." if has_stars(tables) else "",
        f"    {' '.join(printable(command).split())}",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def latex(table: Table) -> str:
    """The table for booktabs."""
    lines = [
        rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
        rf"% {latex_text(table.title)}",
        r"\toprule",
        " & ".join(map(latex_text, table.columns)) + r" \\",
        r"\midrule",
    ]
    for label, *entries in table.rows:
        numbers = [_MINUS.sub("$-$", latex_text(format_entry(entry))) for entry in entries]
        lines.append(" & ".join([latex_text(format_entry(label)), *numbers]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def latex_text(text: str) -> str:
    """A text as LaTeX shows it; other than ASCII it leaves alone, which today's engines read as UTF-8."""
    return "".join(_TEX.get(sign, sign) for sign in " ".join(printable(text).split()))


def csv_text(table: Table) -> str:
    """The table with value, low and high of each cell in columns of their own; numbers unrounded."""
    heads = [table.columns[0]]
    for head in table.columns[1:]:
        heads += [head, f"{head} low", f"{head} high"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(heads)
    for label, *entries in table.rows:
        line: list[object] = [format_entry(label)]
        for entry in entries:
            line += [entry.value, entry.low, entry.high] if isinstance(entry, Cell) else [entry, "", ""]
        writer.writerow(line)
    return buffer.getvalue()


def rich_table(table: Table, heads: Sequence[str] = (), dim: Sequence[int] = ()) -> terminal.Table:
    """The table for a terminal, with shorter heads where room is short; `dim` rows, by number, matter less."""
    grid = terminal.Table(
        title=table.title,
        caption=table.note or None,
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        header_style="bold underline",
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        caption_style="dim",
    )
    name, *others = heads or table.columns
    grid.add_column(name, justify="left", min_width=12, overflow="fold")
    for head in others:
        grid.add_column(head, justify="right", overflow="fold")
    for number, row in enumerate(table.rows):
        grid.add_row(*map(format_entry, row), style="dim" if number in dim else None)
    return grid
