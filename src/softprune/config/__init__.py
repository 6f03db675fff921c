"""Recipes: a YAML file and key=value overrides become frozen, validated models.

Every mistake is reported in one message, but for what only a task's data or a model's config shows: that comes later.
"""

from softprune.config.comparison_schema import ADAPTERS, FORM_METHODS, METHODS, CompareRecipe
from softprune.config.field_types import DEFAULT_RELATIVE_LR, LearningRate
from softprune.config.loading import kind_of, list_shipped, load_config, recipe_text, resolve
from softprune.config.recipe_fields import RecipeField, flat_fields
from softprune.config.schema import BackboneConfig, Recipe
from softprune.config.study import Published, Study, Variant, load_study
from softprune.config.token_pruning_schema import TokensRecipe

__all__ = [
    "ADAPTERS",
    "DEFAULT_RELATIVE_LR",
    "FORM_METHODS",
    "METHODS",
    "BackboneConfig",
    "CompareRecipe",
    "LearningRate",
    "Published",
    "Recipe",
    "RecipeField",
    "Study",
    "TokensRecipe",
    "Variant",
    "flat_fields",
    "kind_of",
    "list_shipped",
    "load_config",
    "load_study",
    "recipe_text",
    "resolve",
]
