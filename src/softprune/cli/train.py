"""Commands that run a recipe: `run`, `xprompt`, `tune`. Every flag is a recipe key under a shorter name."""

from __future__ import annotations

import inspect
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from softprune.cli.inspect import show_comparison
from softprune.cli.launcher import start_others
from softprune.cli.options import OverridesArgument, RecipeOption, RunOutOption, recipe_flags, recipe_option
from softprune.cli.output import progress_console, say
from softprune.cli.recipes import default_out, read_recipe
from softprune.config import Recipe, TokensRecipe, kind_of
from softprune.errors import SoftpruneError
from softprune.runs.processes import rank

XPROMPT_HELP = "Tune a prompt, prune its tokens and pieces, and compare what is left with what it came from."
TUNE_HELP = "Tune a prompt; prune nothing."
ADAPT_HELP = "Adapt a model another way than by a prompt: full, last-layer, lora, prefix, p-tuning, p-tuning-v2, ia3."
TOKENS_HELP = "Fine-tune an encoder, learn which input tokens it can drop, and compare what it then reads and costs."


def run(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe's name, or a YAML file.")],
    overrides: OverridesArgument = None,
    out: RunOutOption = None,
) -> None:
    """Run a recipe; the same command again continues it."""
    _launcher(kind_of(recipe))(recipe, overrides or [], out)


def from_flags(kind: str) -> Callable[..., None]:
    """The command of a kind of run, with its flags."""

    def command(**given: Any) -> None:
        _launcher(kind)(given["recipe"], [f"kind={kind}", *overrides_of(given, kind)], given["out"])

    return with_flags(command, kind, {"recipe": RecipeOption, "out": RunOutOption, "overrides": OverridesArgument})


def with_flags(command: Callable[..., None], kind: str, others: dict[str, Any]) -> Callable[..., None]:
    """A command that takes the flags of a kind of run, and others by name and annotation."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    kinds = {_parameter_name(flag): recipe_option(flag, kind) for flag in recipe_flags(kind)}
    parameters = [
        inspect.Parameter(name, keyword, default=None, annotation=of) for name, of in (kinds | others).items()
    ]
    cast(Any, command).__signature__ = inspect.Signature(parameters)
    return command


def overrides_of(given: dict[str, Any], kind: str) -> list[str]:
    """What was given to a command with flags, as recipe keys: the flags, then what stands behind them."""
    flags = {key: given.get(_parameter_name(flag)) for flag, key in recipe_flags(kind).items()}
    return [*(f"{key}={value}" for key, value in flags.items() if value is not None), *(given["overrides"] or [])]


def launch(recipe_name: str | None, overrides: Sequence[str], out: Path | None) -> None:
    """Resolves the recipe, runs it, and shows what came of it."""
    recipe, text = read_recipe(Recipe, recipe_name, overrides)
    folder = out or default_out(recipe)
    start_others()
    try:
        _execute(recipe, folder, text)
    except KeyboardInterrupt:
        if rank() == 0:
            say(f"stopped; {folder} keeps what is done: run the same command to continue", err=True)
        raise typer.Exit(130) from None


def launch_tokens(recipe_name: str | None, overrides: Sequence[str], out: Path | None) -> None:
    """The same for learned token pruning."""
    recipe, text = read_recipe(TokensRecipe, recipe_name, overrides)
    folder = out or default_out(recipe)
    try:
        _execute_tokens(recipe, folder, text)
    except KeyboardInterrupt:
        say(f"stopped; {folder} keeps what is done: run the same command to continue", err=True)
        raise typer.Exit(130) from None


def _launcher(kind: str) -> Callable[[str | None, Sequence[str], Path | None], None]:
    """What runs a recipe of a kind."""
    from softprune.cli.compare import launch_compare

    return {"tokens": launch_tokens, "compare": launch_compare}.get(kind, launch)


def _execute_tokens(recipe: TokensRecipe, out: Path, text: str) -> None:

    from softprune.cli.tokens import show_results
    from softprune.pipelines.token_pruning import execute

    command = shlex.join(["softprune", *sys.argv[1:]])
    if not execute(recipe, out, command, text, console=progress_console()):
        say(f"{out} is complete: nothing was run; another --out begins a new run", err=True)
    show_results(out)


def _execute(recipe: Recipe, out: Path, text: str) -> None:

    from softprune.pipelines.adapt import execute as adapt
    from softprune.pipelines.xprompt import execute as tune_or_prune

    command = shlex.join(["softprune", *sys.argv[1:]])
    execute = adapt if recipe.kind == "adapt" else tune_or_prune
    done = execute(recipe, out, command, text, finish=_finish, console=progress_console())
    if rank():  # the first process tells
        return
    if done is False:
        say(f"{out} is complete: nothing was run; another --out begins a new run", err=True)
    show_comparison(out)


def _finish(out: Path) -> None:
    """Writes the report; a run isn't lost because its page can't be drawn."""
    from softprune.report import write_report

    try:
        write_report(out)
    except SoftpruneError as error:
        say(f"the run finished, but its report could not be written\n{error}\nthen: softprune report {out}", err=True)


def _parameter_name(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")
