"""All printing of the command line: user data never reaches the terminal as markup or control characters."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from softprune.printable import one_line, printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PIPE_WIDTH = 160  # columns where the output is no terminal: a pipe or a file has no width of its own
WIDE = 200  # the same for the tables of token pruning, which have more columns
ROWS_PER_WRITE = 512  # of the two `predict` commands: answers that are written at a time


def say(text: object = "", *, err: bool = False) -> None:
    """Print lines of text."""
    typer.echo(printable(text), err=err)


def print_rich(*renderables: RenderableType, width: int = PIPE_WIDTH) -> None:
    """Print Rich tables and texts, one below the other, without trailing blanks; `width` is that of a pipe."""
    console = _console(None if sys.stdout.isatty() else width)
    with console.capture() as captured:  # Rich fills lines with blanks, which diffs and editors mark
        for each in renderables:
            console.print(each)
    typer.echo("\n".join(line.rstrip() for line in captured.get().removesuffix("\n").split("\n")))


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned text, a line each."""
    shown = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in shown)
    return "\n".join(line.rstrip() for line in lines)


def duration(seconds: float) -> str:
    """A time in words: 12s, 3m 05s, 2h 10m."""
    minutes, whole_seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02}m"
    return f"{minutes}m {whole_seconds:02}s" if minutes else f"{whole_seconds}s"


def progress_console() -> Console:
    """The console for progress, on stderr: progress isn't a result."""
    return _console(None, err=True)


def _console(width: int | None, *, err: bool = False) -> Console:
    from rich.console import Console

    return Console(width=width, stderr=err, markup=False, highlight=False, emoji=False)
