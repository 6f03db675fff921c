"""From a command line to a run: the recipe that its files and flags say, the folder, and the end."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import typer

from softprune.cli.output import progress_console, say
from softprune.config import CompareRecipe, Recipe, TokensRecipe, load_config, recipe_text
from softprune.errors import SoftpruneError
from softprune.runs.processes import rank

R = TypeVar("R", Recipe, TokensRecipe, CompareRecipe)


def read_recipe(kind: type[R], name: str | None, overrides: Sequence[str]) -> tuple[R, str]:
    """A recipe (None: all defaults) with overrides, and its text for the run folder, which begins with these."""
    recipe = load_config(kind, name, overrides, where="the flags" if name is None else "", names=name_lookups())
    comments = "".join(f"# given on the command line: {override}\n" for override in overrides)
    return recipe, comments + ("# no recipe file: flags alone\n" if name is None else recipe_text(name))


def name_lookups() -> dict[str, Callable[[str], object]]:
    """By recipe key, what checks the name that it holds without asking the network, for `load_config`."""
    from softprune.data import load_task
    from softprune.models.description import find_source

    return {"backbone.name": find_source, "task.id": load_task}


def default_out(recipe: Recipe | TokensRecipe | CompareRecipe) -> Path:
    """`runs/TASK-BACKBONE-KIND`, with the last part of a path or hub name, and an adapter's method for its kind."""
    kind = recipe.adapter.method if isinstance(recipe, Recipe) and recipe.kind == "adapt" else recipe.kind
    names = (Path(recipe.task.id).stem, Path(recipe.backbone.name).name, kind)
    return Path("runs") / "-".join(re.sub(r"[^\w.+]+", "-", name).strip("-.") for name in names)


def stop(place: Path) -> typer.Exit:
    """The end of a command that Ctrl-C stopped."""
    if rank() == 0:
        say(f"stopped; {place} keeps what is done: run the same command to continue", err=True)
    return typer.Exit(130)


def run_job(
    execute: Callable[..., bool],
    recipe: Recipe | TokensRecipe | CompareRecipe,
    out: Path | None,
    text: str,
    *,
    report: Callable[[Path], object] | None,
    show: Callable[[Path], None],
) -> None:
    """Run a recipe, and show its results.

    Args:
        execute: of the recipe's pipeline; whether anything was left to run.
        recipe, text: the settings, and the recipe as it was given.
        out: the folder, where one was named.
        report: writes the page of a folder.
        show: prints the results of a folder.
    """
    folder = out or default_out(recipe)
    command = shlex.join(["softprune", *sys.argv[1:]])
    finish = None if report is None else partial(_try_report, report)
    try:
        has_run = execute(recipe, folder, command, text, finish=finish, console=progress_console())
    except KeyboardInterrupt:
        raise stop(folder) from None
    if rank():  # of several processes, the first one shows the results
        return
    if not has_run:
        say(f"{folder} is complete: nothing was run; another --out begins a new run", err=True)
    show(folder)


def _try_report(report: Callable[[Path], object], folder: Path) -> None:
    try:
        report(folder)
    except SoftpruneError as error:  # the run isn't lost because of its page
        done = "the run finished, but its report could not be written"
        say(f"{done}\n{error}\nthen: softprune report {folder}", err=True)
