"""Learned token pruning: `tokens train`, and what the models that it leaves are asked."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

_PIPE_WIDTH = 200


def show_results(run: Path) -> None:
    """Prints the table of a run."""
    from rich.console import Console

    from softprune.tokens.table import notes, read_results, results_table

    info = read_results(run)
    # A pipe or a file has no width of its own; nothing is to be cut off there.
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    if not any(info["results"].values()):
        typer.echo(f"{run} has no results yet: it is {info['status']}; continue it: {info['command']}")
        return
    console.print(results_table(info))
    for note in notes(info):
        typer.echo(note)
    if info.get("model"):
        typer.echo(f"the chosen model: {run / info['model']}")
