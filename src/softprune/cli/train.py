"""Commands that run a recipe: `run`, `xprompt`, `tune`, `adapt`, `compare`, `tokens train`."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from softprune.cli.inspect import show_comparison, show_run, show_token_pruning
from softprune.cli.launcher import start_others
from softprune.cli.options import OverridesArgument, RecipeOption, RunOutOption, read_overrides, with_flags
from softprune.cli.output import progress_console, say
from softprune.config import CompareRecipe, Recipe, TokensRecipe, kind_of, load_config, recipe_text
from softprune.errors import SoftpruneError
from softprune.runs.processes import rank

R = TypeVar("R", Recipe, TokensRecipe, CompareRecipe)

_HELP = {
    "xprompt": "Tune a prompt, prune its tokens and pieces, and compare what is left with what it came from.",
    "tune": "Tune a prompt; prune nothing.",
    "adapt": "Adapt a model in another way: full, last-layer, lora, prefix, p-tuning, p-tuning-v2, cartridge, ia3, "
    "dept, smop.",
    "compare": "Adapt a model to a task in several ways, on several seeds, and compare what each gives and costs.",
    "tokens": "Fine-tune an encoder, learn which input tokens it can drop, and compare what it then reads and costs.",
}


def run(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe's name, or a YAML file.")],
    overrides: OverridesArgument = None,
    out: RunOutOption = None,
) -> None:
    """Run a recipe; the same command again continues it."""
    _launch(kind_of(recipe), recipe, overrides or [], out)


def from_flags(kind: str) -> Callable[..., None]:
    """The command of a kind of run, with its flags."""

    @with_flags(kind, {"recipe": RecipeOption, "out": RunOutOption, "overrides": OverridesArgument})
    def command(**given: Any) -> None:
        _launch(kind, given["recipe"], [f"kind={kind}", *read_overrides(given, kind)], given["out"])

    command.__doc__ = _HELP[kind]
    return command


def _launch(kind: str, name: str | None, overrides: Sequence[str], out: Path | None) -> None:
    """Read a recipe, run it, and show what came of it."""
    if kind == "compare":
        from softprune.studies.comparison.runner import execute as execute_comparison
        from softprune.studies.comparison.runner import rewrite

        comparison, text = read_recipe(CompareRecipe, name, overrides)
        _run_job(execute_comparison, comparison, out, text, report=rewrite, show=show_comparison)
        return
    if kind == "tokens":
        from softprune.pipelines.token_pruning import execute as execute_tokens

        tokens, text = read_recipe(TokensRecipe, name, overrides)
        _run_job(execute_tokens, tokens, out, text, report=None, show=show_token_pruning)
        return
    recipe, text = read_recipe(Recipe, name, overrides)  # says what to do with a kind that isn't its own
    start_others()
    if recipe.kind == "adapt":
        from softprune.pipelines.adapt import execute
    else:
        from softprune.pipelines.xprompt import execute

    def write_report(folder: Path) -> None:
        from softprune.report import write_report  # imports the drawing libraries, which a run has no other need of

        write_report(folder)

    _run_job(execute, recipe, out, text, report=write_report, show=show_run)


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


def _run_job(
    execute: Callable[..., bool],
    recipe: Recipe | TokensRecipe | CompareRecipe,
    out: Path | None,
    text: str,
    *,
    report: Callable[[Path], object] | None,
    show: Callable[[Path], None],
) -> None:
    """Runs a recipe by its pipeline's `execute`, which writes the folder's page by `report`; shows its results."""
    folder = out or default_out(recipe)

    def finish(folder: Path) -> None:
        try:
            if report is not None:
                report(folder)
        except SoftpruneError as error:  # the run isn't lost because of its page
            done = "the run finished, but its report could not be written"
            say(f"{done}\n{error}\nthen: softprune report {folder}", err=True)

    try:
        command = shlex.join(["softprune", *sys.argv[1:]])
        has_run = execute(
            recipe, folder, command, text, finish=None if report is None else finish, console=progress_console()
        )
    except KeyboardInterrupt:
        raise stop(folder) from None
    if rank():  # of several processes, the first one shows the results
        return
    if not has_run:
        say(f"{folder} is complete: nothing was run; another --out begins a new run", err=True)
    show(folder)
