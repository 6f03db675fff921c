"""Recipes: a YAML file and key=value overrides become frozen, validated models.

Every mistake in names and types is told in one message. What needs the task's data or the backbone's config
(a piece count that doesn't divide H, say) is checked later, by whoever has them.
"""

from softprune.recipe.keys import (
    DEFAULT_RELATIVE_LR,
    Backbone,
    LearningRate,
    Prompt,
    Pruning,
    Recipe,
    RecipeField,
    Search,
    Selection,
    Task,
    Tuning,
    flat_fields,
)
from softprune.recipe.reading import load_recipe, recipe_text, resolve, shipped_recipes

__all__ = [
    "DEFAULT_RELATIVE_LR",
    "Backbone",
    "LearningRate",
    "Prompt",
    "Pruning",
    "Recipe",
    "RecipeField",
    "Search",
    "Selection",
    "Task",
    "Tuning",
    "flat_fields",
    "load_recipe",
    "recipe_text",
    "resolve",
    "shipped_recipes",
]
