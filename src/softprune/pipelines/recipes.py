"""Recipes as Python gives them: validated, by name or file, or as plain keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from softprune.config import Recipe, load_config

AnyRecipe: TypeAlias = Recipe | Mapping[str, Any] | str | Path


def read_recipe(recipe: AnyRecipe, kind: Literal["tune", "xprompt", "adapt"]) -> Recipe:
    """The recipe with this kind, whatever kind it names itself.

    Args:
        recipe: a `Recipe`, the name or file of one, or its keys as a nested mapping.
        kind: of the run.

    Raises:
        ManyErrors: with everything that is wrong with it.
    """
    if isinstance(recipe, Recipe):
        return recipe.model_copy(update={"kind": kind})
    return load_config(Recipe, recipe, [f"kind={kind}"])
