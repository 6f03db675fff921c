"""All commands under one Typer app."""

from __future__ import annotations

from typing import Annotated

import typer

from softprune import __version__
from softprune.cli import inspect, predict, train

# Plain help and plain tracebacks: Rich would be imported for `--help` alone.
app = typer.Typer(
    help="Train, prune and understand what a frozen language model reads.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
tasks = typer.Typer(help="The tasks that ship.", no_args_is_help=True, rich_markup_mode=None)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"softprune {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Options that stand before a command."""


app.command("run")(train.run)
app.command("xprompt", help=train.XPROMPT_HELP)(train.from_flags("xprompt"))
app.command("tune", help=train.TUNE_HELP)(train.from_flags("tune"))
app.command("predict")(predict.predict)
app.command("runs")(inspect.runs)
app.command("report")(inspect.report)
tasks.command("list")(inspect.list_tasks)
app.add_typer(tasks, name="tasks")
