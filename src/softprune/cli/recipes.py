"""From a command line to a recipe: which file or flags it comes from, and where its run goes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from softprune.config import CompareRecipe, Recipe, TokensRecipe, load_config, recipe_text

R = TypeVar("R", Recipe, TokensRecipe, CompareRecipe)


def read_recipe(kind: type[R], name: str | None, overrides: Sequence[str]) -> tuple[R, str]:
    """A recipe, and its text for the run folder, which opens with what the command line changed.

    Args:
        kind: of recipe.
        name: of a shipped recipe, or a file's path; None for the defaults.
        overrides: `key=value`, from flags and behind them.
    """
    recipe = load_config(kind, name, overrides, where="the flags" if name is None else "", names=name_lookups())
    comments = "".join(f"# given on the command line: {override}\n" for override in overrides)
    return recipe, comments + ("# no recipe file: flags alone\n" if name is None else recipe_text(name))


def name_lookups() -> dict[str, Callable[[str], object]]:
    """By recipe key, what checks the name that it holds without asking the network."""
    from softprune.data import load_task
    from softprune.models.loading import find_source

    return {"backbone.name": find_source, "task.id": load_task}


def default_out(recipe: Recipe | TokensRecipe | CompareRecipe) -> Path:
    """`runs/TASK-BACKBONE-KIND`, with the last part of a path or hub name, and an adapter's method for its kind."""
    kind = recipe.adapter.method if isinstance(recipe, Recipe) and recipe.kind == "adapt" else recipe.kind
    names = (Path(recipe.task.id).stem, Path(recipe.backbone.name).name, kind)
    return Path("runs") / "-".join(re.sub(r"[^\w.+]+", "-", name).strip("-.") for name in names)
