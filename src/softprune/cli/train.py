"""Commands that run a recipe: `run`, `xprompt`, `tune`, `adapt`, `tokens train`, `compare`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from softprune.cli.inspect import show_comparison
from softprune.cli.launcher import start_others
from softprune.cli.options import OverridesArgument, RecipeOption, RunOutOption, read_overrides, with_flags
from softprune.cli.output import say
from softprune.cli.recipes import read_recipe, run_job
from softprune.config import Recipe, TokensRecipe, kind_of
from softprune.errors import SoftpruneError

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
        _launcher(kind)(given["recipe"], [f"kind={kind}", *read_overrides(given, kind)], given["out"])

    return with_flags(command, kind, {"recipe": RecipeOption, "out": RunOutOption, "overrides": OverridesArgument})


def _launcher(kind: str) -> Callable[[str | None, Sequence[str], Path | None], None]:
    from softprune.cli.compare import launch_compare

    return {"tokens": launch_tokens, "compare": launch_compare}.get(kind, launch)


def launch(recipe_name: str | None, overrides: Sequence[str], out: Path | None) -> None:
    """Read the recipe of a prompt or an adapter, run it, and show what came of it."""
    recipe, text = read_recipe(Recipe, recipe_name, overrides)
    start_others()
    if recipe.kind == "adapt":
        from softprune.pipelines.adapt import execute
    else:
        from softprune.pipelines.xprompt import execute

    run_job(execute, recipe, out, text, finish=_write_report, show=show_comparison)


def launch_tokens(recipe_name: str | None, overrides: Sequence[str], out: Path | None) -> None:
    """The same for learned token pruning."""
    from softprune.cli.tokens import show_results
    from softprune.pipelines.token_pruning import execute

    recipe, text = read_recipe(TokensRecipe, recipe_name, overrides)
    run_job(execute, recipe, out, text, finish=None, show=show_results)


def _write_report(out: Path) -> None:
    """Writes the report; a run isn't lost because its page can't be drawn."""
    from softprune.report import write_report

    try:
        write_report(out)
    except SoftpruneError as error:
        say(f"the run finished, but its report could not be written\n{error}\nthen: softprune report {out}", err=True)
