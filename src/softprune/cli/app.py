"""All commands under one Typer app."""

from __future__ import annotations

from typing import Annotated

import typer

from softprune import __version__
from softprune.cli import compare, exchange, inspect, neighbours, plan, predict, study, tasks, tokens, train
from softprune.cli.output import say

# Plain help and plain tracebacks: Rich would be imported for `--help` alone.
app = typer.Typer(
    help="Train, prune and understand what a frozen language model reads.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
task_commands = typer.Typer(help="Tasks: those that ship, and your own.", no_args_is_help=True, rich_markup_mode=None)
study_commands = typer.Typer(help=study.HELP, no_args_is_help=True, rich_markup_mode=None)
token_commands = typer.Typer(
    help="Learned token pruning: encoders that read only what matters.", no_args_is_help=True, rich_markup_mode=None
)


def _version(asked: bool) -> None:
    if asked:
        say(f"softprune {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Options that stand before a command."""


app.command("run")(train.run)
app.command("xprompt", help=train.XPROMPT_HELP, short_help="Tune a prompt, prune it, and compare the two.")(
    train.from_flags("xprompt")
)
app.command("tune", help=train.TUNE_HELP)(train.from_flags("tune"))
app.command("adapt", help=train.ADAPT_HELP, short_help="Adapt a model another way than by a prompt.")(
    train.from_flags("adapt")
)
app.command("plan", help=plan.HELP, short_help="Say what a run would take, before it starts.")(plan.command())
app.command("compare", help=compare.HELP, short_help="Compare ways to adapt a model: what each gives and costs.")(
    train.from_flags("compare")
)
app.command("methods", short_help="List the methods: what each trains, and where it is defined.")(compare.methods)
app.command("predict", short_help="Answer the rows of a file with one or several tickets.")(predict.predict)
app.command("export", short_help="Write a ticket for other programs.")(exchange.export)
app.command("import", short_help="Bring in a prompt that was trained elsewhere.")(exchange.import_)
app.command("runs", short_help="List the runs under a folder.")(inspect.runs)
app.command("report", short_help="Write a run's report again, and show its table.")(inspect.report)
app.command("neighbours", short_help="Show what each token of a run's prompt is near to.")(neighbours.neighbours)
task_commands.command("list")(tasks.list_tasks)
task_commands.command("show")(tasks.show)
task_commands.command("stats")(tasks.stats)
task_commands.command("new")(tasks.new)
app.add_typer(task_commands, name="tasks")
study_commands.command("list")(study.list_studies)
study_commands.command("show")(study.show)
study_commands.command("run")(study.run)
app.add_typer(study_commands, name="study", short_help="The experiments of the sources, one command each.")
token_commands.command("train", help=train.TOKENS_HELP, short_help="Learn which input tokens an encoder can drop.")(
    train.from_flags("tokens")
)
token_commands.command("bench", short_help="Measure a run's models: accuracy, operations, speed.")(tokens.bench)
token_commands.command("analyse", short_help="Analyse what a pruned model keeps.")(tokens.analyse)
token_commands.command("explain", short_help="Show where each word of a text left.")(tokens.explain)
token_commands.command("predict", short_help="Classify the rows of a file with a pruned model.")(tokens.predict)
app.add_typer(token_commands, name="tokens")
