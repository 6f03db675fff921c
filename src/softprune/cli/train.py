"""Commands that run a recipe: `run`, `xprompt`, `tune`, `adapt`, `tokens train`, `compare`."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from softprune.cli.flags import overrides_of, with_flags
from softprune.cli.inspect import show_comparison
from softprune.cli.launcher import start_others
from softprune.cli.output import progress_console, say
from softprune.config import (
    CompareRecipe,
    Recipe,
    TokensRecipe,
    kind_of,
    load_recipe,
    load_tokens_recipe,
    recipe_text,
    resolve,
    resolve_tokens,
)
from softprune.errors import SoftpruneError
from softprune.runs.processes import rank

XPROMPT_HELP = "Tune a prompt, prune its tokens and pieces, and compare what is left with what it came from."
TUNE_HELP = "Tune a prompt; prune nothing."
ADAPT_HELP = "Adapt a model another way than by a prompt: full, last-layer, lora, prefix, p-tuning, p-tuning-v2, ia3."
TOKENS_HELP = "Fine-tune an encoder, learn which input tokens it can drop, and compare what it then reads and costs."

AnyRecipe = TypeVar("AnyRecipe", Recipe, TokensRecipe, CompareRecipe)

_Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Any recipe key, such as tuning.accumulate=2.", show_default=False),
]
_Out = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="FOLDER", help="The run folder. [default: runs/TASK-BACKBONE-KIND]", show_default=False
    ),
]
_RecipeFlag = Annotated[
    str | None,
    typer.Option("--recipe", metavar="RECIPE", help="A recipe's name or file to begin with. [default: all defaults]"),
]


def run(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe's name, or a YAML file.")],
    overrides: _Overrides = None,
    out: _Out = None,
) -> None:
    """Run a recipe; the same command again continues it."""
    _launcher(kind_of(recipe))(recipe, overrides or [], out)


def from_flags(kind: str) -> Callable[..., None]:
    """The command of a kind of run, with its flags."""

    def command(**given: Any) -> None:
        _launcher(kind)(given["recipe"], [f"kind={kind}", *overrides_of(given, kind)], given["out"])

    return with_flags(command, kind, {"recipe": _RecipeFlag, "out": _Out, "overrides": _Overrides})


def _launcher(kind: str) -> Callable[[str | None, Sequence[str], Path | None], None]:
    from softprune.cli.compare import launch_compare

    return {"tokens": launch_tokens, "compare": launch_compare}.get(kind, launch)


def launch(recipe_name: str | None, overrides: Sequence[str], out: Path | None) -> None:
    """Read the recipe of a prompt or an adapter, run it, and show what came of it."""
    recipe, text = read_recipe(recipe_name, overrides, load_recipe, resolve)
    start_others()
    if recipe.kind == "adapt":
        from softprune.pipelines.adapt import execute
    else:
        from softprune.pipelines.xprompt import execute

    run_job(execute, recipe, out, text, overrides, finish=_write_report, show=show_comparison)


def launch_tokens(recipe_name: str | None, overrides: Sequence[str], out: Path | None) -> None:
    """The same for learned token pruning."""
    from softprune.cli.tokens import show_results
    from softprune.pipelines.token_pruning import execute

    recipe, text = read_recipe(recipe_name, overrides, load_tokens_recipe, resolve_tokens)
    run_job(execute, recipe, out, text, overrides, finish=None, show=show_results)


def read_recipe(
    name: str | None,
    overrides: Sequence[str],
    load: Callable[..., AnyRecipe],
    resolve_overrides: Callable[..., AnyRecipe],
) -> tuple[AnyRecipe, str]:
    """The recipe, and its text as it was given; without a name, all defaults."""
    names = names_of_recipes()
    if name is None:
        return resolve_overrides(overrides, where="the flags", names=names), "# no recipe file: flags alone\n"
    return load(name, overrides, names=names), recipe_text(name)


def run_job(
    execute: Callable[..., bool],
    recipe: Recipe | TokensRecipe | CompareRecipe,
    out: Path | None,
    text: str,
    overrides: Sequence[str],
    *,
    finish: Callable[[Path], None] | None,
    show: Callable[[Path], None],
) -> None:
    """Run what was read from a command line, and show what came of it.

    Args:
        execute: of the recipe's pipeline.
        recipe: the settings.
        out: the folder, where one was named.
        text: the recipe as it was given.
        overrides: given beside it, for the record.
        finish: what is written last, such as the report.
        show: prints the results of a folder.
    """
    folder = out or default_out(recipe)
    command = shlex.join(["softprune", *sys.argv[1:]])
    comments = "".join(f"# given on the command line: {override}\n" for override in overrides)
    try:
        has_run = execute(recipe, folder, command, comments + text, finish=finish, console=progress_console())
    except KeyboardInterrupt:
        if rank() == 0:
            say(f"stopped; {folder} keeps what is done: run the same command to continue", err=True)
        raise typer.Exit(130) from None
    if rank():  # of several processes, the first one shows what came of it
        return
    if not has_run:
        say(f"{folder} is complete: nothing was run; another --out begins a new run", err=True)
    show(folder)


def names_of_recipes() -> dict[str, Callable[[str], object]]:
    """What looks up the names in a recipe; whatever needs no network is reported with the recipe's other mistakes."""
    from softprune.data import load_task
    from softprune.models.description import find_source

    return {"backbone.name": find_source, "task.id": load_task}


def default_out(recipe: Recipe | TokensRecipe | CompareRecipe) -> Path:
    """`runs/TASK-BACKBONE-KIND`, an adapter's method for its kind, with the last part of a path or hub name."""
    how = recipe.adapter.method if isinstance(recipe, Recipe) and recipe.kind == "adapt" else recipe.kind
    names = (Path(recipe.task.id).stem, Path(recipe.backbone.name).name, how)
    return Path("runs") / "-".join(re.sub(r"[^\w.+]+", "-", name).strip("-.") for name in names)


def _write_report(out: Path) -> None:
    """Writes the report; a run isn't lost because its page can't be drawn."""
    from softprune.report import write_report

    try:
        write_report(out)
    except SoftpruneError as error:
        say(f"the run finished, but its report could not be written\n{error}\nthen: softprune report {out}", err=True)
