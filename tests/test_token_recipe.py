"""Recipes of kind tokens."""

from __future__ import annotations

import re

import pytest
import yaml

from softprune.config import Recipe, TokensRecipe, flat_fields, list_shipped, load_config
from softprune.config.comparison_schema import keys_of
from softprune.errors import ManyErrors, SoftpruneError


def message(*overrides: str) -> str:
    with pytest.raises(SoftpruneError) as caught:
        load_config(TokensRecipe, None, overrides)
    return str(caught.value)


def test_three_recipes_ship() -> None:
    assert {"ltp", "ltp-full", "ltp-official"} <= set(list_shipped("recipe"))
    small = load_config(TokensRecipe, "ltp")
    assert (small.backbone.name, small.task.id) == ("sentence-transformers/all-MiniLM-L6-v2", "imdb")
    assert (small.task.shots, small.task.max_length) == (5000, 512)
    assert (small.tuning.epochs, small.pruning.soft_epochs, small.pruning.hard_epochs) == (2, 1, 1)


def test_the_full_recipe_has_the_papers_values() -> None:
    recipe = load_config(TokensRecipe, "ltp-full")
    pruning = recipe.pruning
    assert recipe.backbone.name == "roberta-base"
    assert (recipe.tuning.lr, recipe.tuning.batch_size) == (2e-5, 64)
    assert (pruning.soft_epochs, pruning.hard_epochs) == (10, 5)
    assert pruning.theta_final == pytest.approx(0.01 * 128)
    assert pruning.temperature == pytest.approx(5e-4 * 128)
    assert (min(pruning.lambdas), max(pruning.lambdas)) == (0.01, 0.2)
    official = load_config(TokensRecipe, "ltp-official")
    assert (official.pruning.divisor, official.pruning.protect) == ("128", False)
    assert official.pruning.theta_final == pruning.theta_final


def test_defaults_are_the_flat_fields() -> None:
    resolved = load_config(TokensRecipe).resolved()
    assert keys_of(resolved) == [field.key for field in flat_fields(TokensRecipe)]
    for field in flat_fields(TokensRecipe):
        assert re.search(r"\S.* \[default: [^\]]+\]$", field.description), field.key
    assert yaml.safe_load(load_config(TokensRecipe).dump()) == resolved


@pytest.mark.parametrize("none", ["none", "null", "", "[]", "~"])
def test_no_baselines(none: str) -> None:
    assert load_config(TokensRecipe, None, [f"pruning.baselines={none}"]).pruning.baselines == ()


def test_a_baseline_misspelt_is_told_with_the_nearest() -> None:
    assert message("pruning.baselines=top-k,randm").splitlines() == [
        "expected: a known value of pruning.baselines",
        'found:    "randm"',
        'do:       did you mean "random"? available: first, manual, random, top-k',
    ]
    assert "a valid string" in message("pruning.baselines=[1]")


@pytest.mark.parametrize("text", ["0", "-0.1", "[]", "0.1,0.1", "a", "[.inf]", "null", "true", ".nan"])
def test_lambdas_are_above_nought(text: str) -> None:
    assert "pruning.lambdas: different numbers above 0" in message(f"pruning.lambdas={text}")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("pruning.temperature=0", "pruning.temperature: greater than 0"),
        ("pruning.theta_final=-1", "pruning.theta_final: greater than or equal to 0"),
        ("pruning.soft_epochs=0", "pruning.soft_epochs: greater than or equal to 1"),
        ("pruning.hard_lr=0", "pruning.hard_lr: greater than 0"),
        ("pruning.divisor=64", "pruning.divisor"),
        ("task.max_length=2", "task.max_length: greater than or equal to 3"),
        ("tuning.dropout=1", "tuning.dropout: less than 1"),
        ("tuning.warmup=1", "tuning.warmup: less than 1"),
        ("backbone.dtype=float16", 'a known value of backbone.dtype\nfound:    "float16"'),
        ("prompt.tokens=3", 'a known key of a recipe\nfound:    "prompt"'),
        ("pruning.lambda=0.1", 'did you mean "lambdas"?'),
        ("lambdas=0.1", 'did you mean "pruning.lambdas"?'),
        ("kind=tune", 'a known value of kind\nfound:    "tune"'),
    ],
)
def test_what_is_wrong_is_told(override: str, told: str) -> None:
    assert told in message(override)


def test_the_official_divisor_is_taken_as_a_number_too() -> None:
    assert load_config(TokensRecipe, None, ["pruning.divisor='128'"]).pruning.divisor == "128"
    assert load_config(TokensRecipe, None, ["pruning.divisor=128"]).pruning.divisor == "128"


def test_all_mistakes_come_in_one_message() -> None:
    with pytest.raises(ManyErrors) as caught:
        load_config(TokensRecipe, None, ["oops", "pruning.lambdas=0", "pruning.baselines=tp-k", "tuning.epochz=1"])
    assert len(caught.value.errors) == 4


def test_recipes_of_the_other_kinds_are_named() -> None:
    with pytest.raises(
        SoftpruneError, match="a recipe of kind xprompt or tune or adapt\nfound:    kind: tokens in ltp\n"
    ):
        load_config(Recipe, "ltp")
    with pytest.raises(SoftpruneError, match="a recipe of kind tokens\nfound:    kind: xprompt in demo\n"):
        load_config(TokensRecipe, "demo")
