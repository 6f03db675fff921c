"""Commands that run a recipe: `run`, `xprompt`, `tune`, `adapt`, `compare`, `tokens train`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from softprune.cli.inspect import show_comparison, show_run, show_token_pruning
from softprune.cli.launcher import start_others
from softprune.cli.options import OverridesArgument, RecipeOption, RunOutOption, read_overrides, with_flags
from softprune.cli.recipes import read_recipe, run_job
from softprune.config import CompareRecipe, Recipe, TokensRecipe, kind_of

_HELP = {
    "xprompt": "Tune a prompt, prune its tokens and pieces, and compare what is left with what it came from.",
    "tune": "Tune a prompt; prune nothing.",
    "adapt": "Adapt a model another way than by a prompt: full, last-layer, lora, prefix, p-tuning, p-tuning-v2, ia3.",
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
        run_job(execute_comparison, comparison, out, text, report=rewrite, show=show_comparison)
        return
    if kind == "tokens":
        from softprune.pipelines.token_pruning import execute as execute_tokens

        tokens, text = read_recipe(TokensRecipe, name, overrides)
        run_job(execute_tokens, tokens, out, text, report=None, show=show_token_pruning)
        return
    recipe, text = read_recipe(Recipe, name, overrides)  # says what to do with a kind that isn't its own
    start_others()
    if recipe.kind == "adapt":
        from softprune.pipelines.adapt import execute
    else:
        from softprune.pipelines.xprompt import execute
    run_job(execute, recipe, out, text, report=_write_report, show=show_run)


def _write_report(folder: Path) -> None:
    from softprune.report import write_report  # imports the drawing libraries, which a run has no other need of

    write_report(folder)
