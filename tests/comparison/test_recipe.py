"""Recipes of comparisons, and the recipe of each of their runs."""

from __future__ import annotations

import pytest
import yaml

from softprune.adapters.registry import METHODS as TABLE
from softprune.config import METHODS, CompareRecipe, kind_of, list_shipped, load_config, resolve
from softprune.errors import SoftpruneError


def message(*overrides: str) -> str:
    with pytest.raises(SoftpruneError) as caught:
        load_config(CompareRecipe, None, overrides)
    return str(caught.value)


def test_the_methods_are_those_of_the_table() -> None:
    assert set(METHODS) == set(TABLE)
    for name, method in TABLE.items():
        assert load_config(CompareRecipe).cell(name, 0)["kind"] == method.kind


def test_a_recipe_comes_back_from_its_text() -> None:
    recipe = load_config(CompareRecipe, None, ["methods=prompt,lora", "settings.lora.tuning.epochs=10", "seed=3"])
    back = load_config(CompareRecipe, yaml.safe_load(recipe.dump()))
    assert back.resolved() == recipe.resolved()
    for method in ("lora", "xprompt"):
        ours, theirs = (resolve(base=each.cell(method, 3)) for each in (recipe, back))
        assert ours == theirs
        assert "lr" not in theirs.tuning.model_fields_set  # so that the method's own counts
        assert theirs.strategy() == ours.strategy() == "learned"
    named = load_config(CompareRecipe, None, ["tuning.lr=0.1", "search.token_ratios=0.5"])
    assert load_config(CompareRecipe, yaml.safe_load(named.dump())).cell("prompt", 0)["tuning"]["lr"] == 0.1
    assert "lr" not in recipe.resolved()["tuning"]


@pytest.mark.parametrize("name", [name for name in list_shipped("recipe") if kind_of(name) == "compare"])
def test_shipped_comparisons_dump_to_what_has_the_same_runs(name: str) -> None:
    recipe = load_config(CompareRecipe, name)
    back = load_config(CompareRecipe, yaml.safe_load(recipe.dump()))
    assert back.resolved() == recipe.resolved()
    for method in recipe.methods:
        ours, theirs = (resolve(base=each.cell(method, 0)) for each in (recipe, back))
        assert ours == theirs
        assert ("lr" in ours.tuning.model_fields_set) == ("lr" in theirs.tuning.model_fields_set)


def test_settings_are_a_methods_own() -> None:
    base = {"settings": {"lora": {"tuning.epochs": 10, "adapter": {"rank": 4}}}}
    recipe = load_config(CompareRecipe, base, ["tuning.batch_size=4", "settings.lora.adapter.rank=64"])
    lora, prompt = resolve(base=recipe.cell("lora", 1)), resolve(base=recipe.cell("prompt", 1))
    assert (lora.tuning.epochs, lora.tuning.batch_size, lora.adapter.rank) == (10, 4, 64)
    assert (lora.kind, lora.adapter.method, lora.seed) == ("adapt", "lora", 1)
    assert (prompt.tuning.epochs, prompt.tuning.batch_size, prompt.kind) == (None, 4, "tune")


def test_a_form_is_the_methods() -> None:
    cell = resolve(base=load_config(CompareRecipe, None, ["prompt.init=text", "prompt.text=a"]).cell("ulpt", 0))
    assert (cell.kind, cell.prompt.form, cell.prompt.init, cell.prompt.text) == ("tune", "ulpt", "vocabulary", None)
    assert resolve(base=load_config(CompareRecipe).cell("prompt", 0)).prompt.form == "plain"
    pruned = load_config(CompareRecipe, None, ["settings.xprompt.prompt.form=ulpt"])
    assert resolve(base=pruned.cell("xprompt", 0)).prompt.form == "ulpt"
    assert "methods alone to say what is compared" in message("prompt.form=ulpt")
    assert "keys that may differ between methods" in message("settings.residual.prompt.form=ulpt")
    assert "no value where form is low-rank" in message("settings.low-rank.prompt.words=9")


def test_what_nobody_named_is_left_to_the_method() -> None:
    assert "lr" not in resolve(base=load_config(CompareRecipe).cell("lora", 0)).tuning.model_fields_set
    named = resolve(base=load_config(CompareRecipe, None, ["tuning.lr=0.1"]).cell("lora", 0))
    assert named.tuning.lr == 0.1
    assert "lr" in named.tuning.model_fields_set


def test_runs_measure_latency_report_on_the_same_and_leave_seeds_to_the_comparison() -> None:
    recipe = load_config(CompareRecipe, None, ["seed=5"])
    cells = [resolve(base=recipe.cell("xprompt", seed)) for seed in (5, 6)]
    assert [cell.task.report_seed for cell in cells] == [5, 5]
    assert [cell.seed for cell in cells] == [5, 6]
    assert all(cell.tuning.latency and cell.selection.seeds == 0 for cell in cells)
    asked = resolve(
        base=load_config(CompareRecipe, None, ["tuning.latency=false", "selection.seeds=2"]).cell("xprompt", 0)
    )
    assert (asked.tuning.latency, asked.selection.seeds) == (False, 2)


def test_all_mistakes_of_all_runs_are_told_at_once() -> None:
    told = message(
        "methods=prompt,lorra",
        "seeds=0",
        "tuning.batch_size=0",
        "settings.lora.tuning.epochs=0",
        "settings.ia3.tuning.epoch=3",
        "settings.prefix.task.shots=3",
        "settings.xprompt.seed=1",
        "adapter.method=lora",
    )
    assert told.startswith("8 mistakes in recipe")
    for part in (
        'found:    "lorra"\ndo:       did you mean "lora"?',
        "seeds: greater than or equal to 1",
        "expected: tuning.batch_size: greater than or equal to 1",
        "settings.lora: tuning.epochs: greater than or equal to 1",
        'settings.ia3: a known key of tuning\nfound:    "epoch"\ndo:       did you mean "epochs"?',
        "settings.prefix: keys that may differ between methods\nfound:    task.shots",
        "settings.xprompt: keys that may differ between methods\nfound:    seed",
        "methods alone to say what is compared\nfound:    adapter.method",
    ):
        assert part in told
    assert told.count("batch_size: greater") == 1  # not again for every method


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("methods=lora,lora", "different methods, at least one"),
        ("methods=[]", "different methods, at least one"),
        ("settings.lorra.tuning.epochs=1", 'did you mean "lora"?'),
        ("settings.lora=3", "settings.lora"),
        ("setings.lora.tuning.epochs=1", 'did you mean "settings"?'),
    ],
)
def test_one_mistake(override: str, part: str) -> None:
    assert part in message(override)


def test_settings_of_a_method_that_is_not_compared_are_a_mistake() -> None:
    told = message("methods=prompt,lora", "settings.ia3.tuning.epochs=3", "seeds=0")
    assert told.startswith("2 mistakes in recipe")
    assert "expected: settings for methods that are compared\nfound:    settings.ia3; methods are prompt, lora" in told
    assert "do:       name ia3 in methods, or leave settings.ia3 out" in told
    base = {"methods": ["prompt"], "settings": {"ia3": {"tuning.epochs": 3}}}
    with pytest.raises(SoftpruneError, match="settings for methods that are compared"):
        load_config(CompareRecipe, base)
    assert load_config(CompareRecipe, base, ["methods=ia3,prompt"]).settings == base["settings"]


def test_methods_that_flags_leave_out_of_a_recipe_take_their_settings_along() -> None:
    base = {"methods": "prompt,lora", "settings": {"prompt": {"tuning.epochs": 3}, "lora": {"adapter.rank": 4}}}
    recipe = load_config(CompareRecipe, base, ["methods=lora"])
    assert recipe.settings == {"lora": {"adapter.rank": 4}}
    assert load_config(CompareRecipe, yaml.safe_load(recipe.dump())).resolved() == recipe.resolved()
    with pytest.raises(SoftpruneError, match=r"settings\.prompt; methods are lora"):
        load_config(CompareRecipe, base, ["methods=lora", "settings.prompt.tuning.epochs=4"])
    assert load_config(CompareRecipe, "paper-table1", ["methods=full"]).settings == {}


def test_a_recipe_of_another_kind_says_how_to_run_it() -> None:
    with pytest.raises(SoftpruneError, match=r"a recipe of kind compare[\s\S]*softprune run demo"):
        load_config(CompareRecipe, "demo")
