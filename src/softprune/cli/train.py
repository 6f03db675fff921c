"""Commands that run a recipe: `run`, `xprompt`, `tune`. Every flag is a recipe key under a shorter name."""

from __future__ import annotations

import inspect
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from pydantic import BaseModel

from softprune.cli.inspect import show_comparison
from softprune.cli.launcher import start_others
from softprune.cli.output import progress_console, say
from softprune.config import (
    CompareRecipe,
    Recipe,
    RecipeField,
    TokensRecipe,
    flat_fields,
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

_FLAGS = {
    "--backbone": "backbone.name",
    "--family": "backbone.family",
    "--dtype": "backbone.dtype",
    "--device": "backbone.device",
    "--threads": "backbone.threads",
    "--task": "task.id",
    "--data": "task.data",
    "--shots": "task.shots",
    "--limit-report": "task.limit_report",
    "--tokens": "prompt.tokens",
    "--pieces": "prompt.pieces",
    "--init": "prompt.init",
    "--init-text": "prompt.text",
    "--prompt-file": "prompt.file",
    "--epochs": "tuning.epochs",
    "--batch-size": "tuning.batch_size",
    "--optimiser": "tuning.optimiser",
    "--lr": "tuning.lr",
    "--loss": "tuning.loss",
    "--patience": "tuning.patience",
    "--removal": "pruning.removal",
    "--levels": "pruning.levels",
    "--scope": "pruning.scope",
    "--importance": "pruning.importance",
    "--strategy": "search.strategy",
    "--token-ratios": "search.token_ratios",
    "--piece-ratios": "search.piece_ratios",
    "--group": "search.group",
    "--protocol": "selection.protocol",
    "--objective": "selection.objective",
    "--seeds": "selection.seeds",
    "--seed": "seed",
    "--executor": "executor",
}

_ADAPT_FLAGS = {
    "--method": "adapter.method",
    "--rank": "adapter.rank",
    "--alpha": "adapter.alpha",
    "--dropout": "adapter.dropout",
}

_TOKEN_FLAGS = {
    "--model": "backbone.name",
    "--dtype": "backbone.dtype",
    "--device": "backbone.device",
    "--threads": "backbone.threads",
    "--task": "task.id",
    "--data": "task.data",
    "--shots": "task.shots",
    "--limit-report": "task.limit_report",
    "--max-length": "task.max_length",
    "--epochs": "tuning.epochs",
    "--batch-size": "tuning.batch_size",
    "--lr": "tuning.lr",
    "--lambdas": "pruning.lambdas",
    "--soft-epochs": "pruning.soft_epochs",
    "--hard-epochs": "pruning.hard_epochs",
    "--baselines": "pruning.baselines",
    "--seed": "seed",
}

_NOT_OF_ADAPTERS = ("prompt.init", "prompt.text", "prompt.file", "tuning.optimiser")

_COMPARE_FLAGS = {
    "--methods": "methods",
    "--seeds": "seeds",
    "--backbone": "backbone.name",
    "--family": "backbone.family",
    "--dtype": "backbone.dtype",
    "--device": "backbone.device",
    "--threads": "backbone.threads",
    "--task": "task.id",
    "--data": "task.data",
    "--shots": "task.shots",
    "--limit-report": "task.limit_report",
    "--tokens": "prompt.tokens",
    "--epochs": "tuning.epochs",
    "--batch-size": "tuning.batch_size",
    "--sweep": "tuning.sweep",
    "--patience": "tuning.patience",
    "--protocol": "selection.protocol",
    "--seed": "seed",
}

_OF_PRUNING = ("prompt.pieces", "pruning.", "search.", "selection.objective", "selection.seeds", "executor")

_OWN_FLAGS = {"tokens": _TOKEN_FLAGS, "compare": _COMPARE_FLAGS}
_RECIPES: dict[str, type[BaseModel]] = {"tokens": TokensRecipe, "compare": CompareRecipe}

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


def flags_of(kind: str) -> dict[str, str]:
    """The flags of a kind of run, with their recipe keys; what only pruning asks for is no flag of `tune`."""
    if kind in _OWN_FLAGS:
        return dict(_OWN_FLAGS[kind])
    if kind == "adapt":
        left_out = (*_OF_PRUNING, *_NOT_OF_ADAPTERS)
        return _ADAPT_FLAGS | {flag: key for flag, key in _FLAGS.items() if not key.startswith(left_out)}
    return {flag: key for flag, key in _FLAGS.items() if kind != "tune" or not key.startswith(_OF_PRUNING)}


def from_flags(kind: str) -> Callable[..., None]:
    """The command of a kind of run, with its flags."""

    def command(**given: Any) -> None:
        _launcher(kind)(given["recipe"], [f"kind={kind}", *overrides_of(given, kind)], given["out"])

    return with_flags(command, kind, {"recipe": _RecipeFlag, "out": _Out, "overrides": _Overrides})


def with_flags(command: Callable[..., None], kind: str, others: dict[str, Any]) -> Callable[..., None]:
    """A command that takes the flags of a kind of run, and others by name and annotation."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    fields = {field.key: field for field in flat_fields(_RECIPES.get(kind, Recipe))}
    kinds = {_parameter_name(flag): _option(flag, fields[key]) for flag, key in flags_of(kind).items()}
    parameters = [
        inspect.Parameter(name, keyword, default=None, annotation=of) for name, of in (kinds | others).items()
    ]
    cast(Any, command).__signature__ = inspect.Signature(parameters)
    return command


def overrides_of(given: dict[str, Any], kind: str) -> list[str]:
    """What was given to a command with flags, as recipe keys: the flags, then what stands behind them."""
    flags = {key: given.get(_parameter_name(flag)) for flag, key in flags_of(kind).items()}
    return [*(f"{key}={value}" for key, value in flags.items() if value is not None), *(given["overrides"] or [])]


def read_recipe(name: str | None, overrides: Sequence[str]) -> tuple[Recipe, str]:
    """The recipe, and its text as it was given; without a name, all defaults."""
    names = names_of_recipes()
    if name is None:
        return resolve(overrides, where="the flags", names=names), "# no recipe file: flags alone\n"
    return load_recipe(name, overrides, names=names), recipe_text(name)


def launch(recipe_name: str | None, overrides: Sequence[str], out: Path | None) -> None:
    """Resolves the recipe, runs it, and shows what came of it."""
    recipe, text = read_recipe(recipe_name, overrides)
    comments = "".join(f"# given on the command line: {override}\n" for override in overrides)
    folder = out or default_out(recipe)
    start_others()
    try:
        _execute(recipe, folder, comments + text)
    except KeyboardInterrupt:
        if rank() == 0:
            say(f"stopped; {folder} keeps what is done: run the same command to continue", err=True)
        raise typer.Exit(130) from None


def launch_tokens(recipe_name: str | None, overrides: Sequence[str], out: Path | None) -> None:
    """The same for learned token pruning."""
    names = names_of_recipes()
    if recipe_name is None:
        recipe, text = resolve_tokens(overrides, where="the flags", names=names), "# no recipe file: flags alone\n"
    else:
        recipe, text = load_tokens_recipe(recipe_name, overrides, names=names), recipe_text(recipe_name)
    comments = "".join(f"# given on the command line: {override}\n" for override in overrides)
    folder = out or default_out(recipe)
    try:
        _execute_tokens(recipe, folder, comments + text)
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


def names_of_recipes() -> dict[str, Callable[[str], object]]:
    """What looks up the names in a recipe; whatever needs no network is told with the recipe's other mistakes."""
    from softprune.data import load_task
    from softprune.models.description import find_source

    return {"backbone.name": find_source, "task.id": load_task}


def default_out(recipe: Recipe | TokensRecipe | CompareRecipe) -> Path:
    """`runs/TASK-BACKBONE-KIND`, an adapter's method for its kind, with the last part of a path or hub name."""
    how = recipe.adapter.method if isinstance(recipe, Recipe) and recipe.kind == "adapt" else recipe.kind
    names = (Path(recipe.task.id).stem, Path(recipe.backbone.name).name, how)
    return Path("runs") / "-".join(re.sub(r"[^\w.+]+", "-", name).strip("-.") for name in names)


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


def _option(flag: str, field: RecipeField) -> Any:
    """A flag that takes text: the recipe checks all values together and tells all mistakes at once."""
    metavar = field.type.removesuffix(" or none")
    metavar = f"[{metavar.replace(' ', '')}]" if "|" in metavar else metavar.upper()
    help_text = f"{field.description} ({field.key})"
    return Annotated[str | None, typer.Option(flag, metavar=metavar, help=help_text, show_default=False)]
