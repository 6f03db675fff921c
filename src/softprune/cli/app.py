"""All commands under one Typer app."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from softprune import __version__
from softprune.cli import exchange, inspect, plan, predict, study, tasks, tokens, train
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


def _group(name: str, summary: str, text: str) -> typer.Typer:
    group = typer.Typer(help=text, no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(group, name=name, short_help=summary)
    return group


def _add(group: typer.Typer, name: str, command: Callable[..., None], summary: str) -> None:
    group.command(name, cls=Command, short_help=summary)(command)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        say(f"softprune {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options before the command's name."""


_add(app, "run", train.run, "Run a recipe; the same command again continues it.")
_add(app, "xprompt", train.from_flags("xprompt"), "Tune a prompt, prune it, and compare the two.")
_add(app, "tune", train.from_flags("tune"), "Tune a prompt; prune nothing.")
_add(app, "adapt", train.from_flags("adapt"), "Adapt a model another way than by a prompt.")
_add(app, "plan", plan.plan, "Say what a run would take, before it starts.")
_add(app, "compare", train.from_flags("compare"), "Compare ways to adapt a model: scores and costs.")
_add(app, "methods", inspect.methods, "List the methods: what each trains, and where it is defined.")
_add(app, "predict", predict.predict, "Answer the rows of a file with one or several tickets.")
_add(app, "export", exchange.export, "Write a ticket for other programs.")
_add(app, "import", exchange.import_, "Bring in a prompt that was trained elsewhere.")
_add(app, "runs", inspect.runs, "List the runs under a folder.")
_add(app, "report", inspect.report, "Write a run's report again, and show its table.")
_add(app, "neighbours", inspect.neighbours, "Show the words nearest to each token of a run's prompt.")

_tasks = _group("tasks", "Tasks: those that ship, and your own.", "Tasks: those that ship, and your own.")
_add(_tasks, "list", tasks.list_tasks, "List the tasks that ship.")
_add(_tasks, "show", tasks.show, "Show a task, and examples as a model reads them.")
_add(_tasks, "stats", tasks.stats, "Show sizes, answers and metric of tasks, from their data.")
_add(_tasks, "new", tasks.new, "Write a task YAML for a file of your own.")

_studies = _group("study", "The experiments of the papers, one command each.", study.HELP)
_add(_studies, "list", study.list_studies, "List the studies: what each asks, and how long it takes.")
_add(_studies, "show", study.show, "Show a study: its question, scales, published tables.")
_add(_studies, "run", study.run, "Run a study, and show its tables beside the published ones.")

_TOKENS_HELP = "Learned token pruning: encoders that read only what matters."
_tokens = _group("tokens", _TOKENS_HELP, _TOKENS_HELP)
_add(_tokens, "train", train.from_flags("tokens"), "Learn which input tokens to drop.")
_add(_tokens, "bench", tokens.bench, "Measure a run's models: accuracy, operations, speed.")
_add(_tokens, "analyse", tokens.analyse, "Analyse which input tokens a pruned model keeps.")
_add(_tokens, "explain", tokens.explain, "Show at which layer each word of a text was dropped.")
_add(_tokens, "predict", tokens.predict, "Classify the rows of a file with a pruned model.")
