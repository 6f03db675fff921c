"""Everything that the command line prints goes through here, so the user's data is never read as markup or commands."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from softprune.printable import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PIPE_WIDTH = 160
"""Columns where the output is no terminal: a pipe or a file has no width of its own."""


def say(text: object = "", *, err: bool = False) -> None:
    """Print lines of text."""
    typer.echo(printable(text), err=err)


def print_rich(*renderables: RenderableType, width: int = PIPE_WIDTH) -> None:
    """Print Rich's tables and texts, without blanks at the ends of lines.

    Args:
        renderables: one below the other.
        width: columns where the output is no terminal.
    """
    console = _console(None if sys.stdout.isatty() else width)
    with console.capture() as captured:
        for each in renderables:
            console.print(each)
    typer.echo("\n".join(line.rstrip() for line in captured.get().removesuffix("\n").split("\n")))


def progress_console() -> Console:
    """The console for progress: the standard error stream, since progress isn't a result."""
    return _console(None, err=True)


def _console(width: int | None, *, err: bool = False) -> Console:
    from rich.console import Console

    return Console(width=width, stderr=err, markup=False, highlight=False, emoji=False)
