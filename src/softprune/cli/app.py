"""All commands under one Typer app."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from softprune import __version__
from softprune.cli import compare, exchange, inspect, neighbours, plan, predict, study, tasks, tokens, train
from softprune.cli.options import Command
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
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options before the command's name."""


def _add(group: typer.Typer, name: str, command: Callable[..., None], summary: str, text: str | None = None) -> None:
    """Add a command; `text` is its help where its docstring isn't."""
    group.command(name, cls=Command, help=text, short_help=summary)(command)


_add(app, "run", train.run, "Run a recipe; the same command again continues it.")
_add(app, "xprompt", train.from_flags("xprompt"), "Tune a prompt, prune it, and compare the two.", train.XPROMPT_HELP)
_add(app, "tune", train.from_flags("tune"), "Tune a prompt; prune nothing.", train.TUNE_HELP)
_add(app, "adapt", train.from_flags("adapt"), "Adapt a model another way than by a prompt.", train.ADAPT_HELP)
_add(app, "plan", plan.command(), "Say what a run would take, before it starts.", plan.HELP)
_add(app, "compare", train.from_flags("compare"), "Compare ways to adapt a model: scores and costs.", compare.HELP)
_add(app, "methods", compare.methods, "List the methods: what each trains, and where it is defined.")
_add(app, "predict", predict.predict, "Answer the rows of a file with one or several tickets.")
_add(app, "export", exchange.export, "Write a ticket for other programs.")
_add(app, "import", exchange.import_, "Bring in a prompt that was trained elsewhere.")
_add(app, "runs", inspect.runs, "List the runs under a folder.")
_add(app, "report", inspect.report, "Write a run's report again, and show its table.")
_add(app, "neighbours", neighbours.neighbours, "Show the words nearest to each token of a run's prompt.")

_add(task_commands, "list", tasks.list_tasks, "List the tasks that ship.")
_add(task_commands, "show", tasks.show, "Show a task, and examples as a model reads them.")
_add(task_commands, "stats", tasks.stats, "Show sizes, answers and metric of tasks, from their data.")
_add(task_commands, "new", tasks.new, "Write a task YAML for a file of your own.")
app.add_typer(task_commands, name="tasks")

_add(study_commands, "list", study.list_studies, "List the studies: what each asks, and how long it takes.")
_add(study_commands, "show", study.show, "Show a study: its question, scales, published tables.")
_add(study_commands, "run", study.run, "Run a study, and show its tables beside the published ones.")
app.add_typer(study_commands, name="study", short_help="The experiments of the papers, one command each.")

_add(token_commands, "train", train.from_flags("tokens"), "Learn which input tokens to drop.", train.TOKENS_HELP)
_add(token_commands, "bench", tokens.bench, "Measure a run's models: accuracy, operations, speed.")
_add(token_commands, "analyse", tokens.analyse, "Analyse which input tokens a pruned model keeps.")
_add(token_commands, "explain", tokens.explain, "Show at which layer each word of a text was dropped.")
_add(token_commands, "predict", tokens.predict, "Classify the rows of a file with a pruned model.")
app.add_typer(token_commands, name="tokens")
