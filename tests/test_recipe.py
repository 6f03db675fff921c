from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

import softprune.recipes
from softprune.config import (
    DEFAULT_RELATIVE_LR,
    CompareRecipe,
    LearningRate,
    Recipe,
    TokensRecipe,
    flat_fields,
    kind_of,
    list_shipped,
    load_config,
    recipe_text,
    resolve,
)
from softprune.config.comparison_schema import keys_of
from softprune.errors import ManyErrors, SoftpruneError

SHIPPED = sorted(Path(next(iter(softprune.recipes.__path__))).glob("*.yaml"))


def loader_of(recipe: Path | str) -> Callable[..., object]:
    kind = {"tokens": TokensRecipe, "compare": CompareRecipe}.get(kind_of(recipe), Recipe)
    return partial(load_config, kind)


def message(*overrides: str) -> str:
    with pytest.raises(SoftpruneError) as caught:
        resolve(overrides)
    return str(caught.value)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads_and_opens_with_what_to_expect(path: Path) -> None:
    assert path.stem in list_shipped("recipe")
    load = loader_of(path)
    assert load(path.stem) == load(path)
    comments = path.read_text().split("\nschema:")[0]
    for label in ("Command:", "Hardware:", "Minutes:", "Score:"):
        assert re.search(rf"^# {label} +\S", comments, re.MULTILINE), label
    command = re.search(r"Command: +softprune run (\S+)(.*) --out \S+", comments)
    assert command is not None
    assert command[1] == path.stem
    load(command[1], command[2].split())


def test_the_brief_recipes_ship() -> None:
    assert {"demo", "xprompt", "paper", "bart-superglue"} <= set(list_shipped("recipe"))
    assert resolve() == load_config(Recipe, "xprompt")


def test_paper_recipe_has_the_papers_values() -> None:
    recipe = load_config(Recipe, "paper")
    tuning = recipe.tuning
    assert (tuning.lr, tuning.weight_decay, tuning.batch_size, tuning.epochs) == (0.3, 1e-5, 16, 100)
    assert (recipe.prompt.tokens, recipe.prompt.pieces, recipe.prompt.init) == (20, 16, "vocabulary")
    assert (recipe.pruning.removal, tuning.clip_scope, tuning.loss) == ("zero", "all", "likelihood")
    assert (recipe.selection.protocol, recipe.selection.objective) == ("paper", "best")
    assert recipe.search.strategy == "grid"
    assert len(recipe.search.token_ratios) == len(recipe.search.piece_ratios) == 9
    assert recipe.pruning.importance == "paper"


def test_the_default_strategy() -> None:
    assert resolve().strategy() == "learned"
    assert resolve().strategy(gates_learn=False) == "sequential"
    for named in ("search.token_ratios=0.1,0.5", "search.piece_ratios=0.5", "pruning.importance=gradient"):
        assert resolve([named]).strategy() == "sequential"
    assert resolve(["search.strategy=learned", "search.token_ratios=0.5"]).strategy(False) == "learned"
    assert load_config(Recipe, "paper").strategy() == "grid"


def test_bart_recipe_has_the_studys_values() -> None:
    recipe = load_config(Recipe, "bart-superglue")
    assert recipe.search.token_ratios == recipe.search.piece_ratios == (0.1, 0.3)
    assert (recipe.tuning.epochs, recipe.search.epochs) == (90, 10)
    assert (recipe.pruning.scope, recipe.pruning.importance) == ("per_token", "gradient")


def test_defaults() -> None:
    recipe = resolve()
    assert recipe.tuning.lr == LearningRate(relative=DEFAULT_RELATIVE_LR)
    assert recipe.search.token_ratios == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    assert (recipe.kind, recipe.schema_, recipe.seed, recipe.selection.seeds) == ("xprompt", 1, 0, "auto")


@pytest.mark.parametrize("name", list_shipped("recipe"))
def test_dump_loads_to_the_same_recipe(name: str, tmp_path: Path) -> None:
    load = loader_of(name)
    recipe = load(name, ["tuning.weight_decay=3e-7"])
    (tmp_path / "r.yaml").write_text(recipe.dump())
    assert load(tmp_path / "r.yaml") == recipe
    assert yaml.safe_load(recipe.dump()) == recipe.resolved()


def test_recipes_are_frozen() -> None:
    with pytest.raises(ValidationError):
        resolve().tuning.epochs = 3


@pytest.mark.parametrize(
    ("text", "lr"),
    [
        ("0.3", 0.3),
        ("1e-3", 1e-3),
        ('"0.3"', 0.3),
        ("2", 2.0),
        ("{relative: 0.5}", LearningRate(relative=0.5)),
        ("relative: 0.5", LearningRate(relative=0.5)),
    ],
)
def test_learning_rates(text: str, lr: object) -> None:
    assert resolve([f"tuning.lr={text}"]).tuning.lr == lr


@pytest.mark.parametrize("text", ["0", "-1", ".nan", ".inf", "true", "fast", "{relative: 0}", "{relativ: 1}", ""])
def test_other_learning_rates_are_refused(text: str) -> None:
    assert "tuning.lr: a number above 0 (absolute), or {relative:" in message(f"tuning.lr={text}")


def test_learning_rate_as_a_number() -> None:
    assert resolve(["tuning.lr=0.3"]).tuning.learning_rate(0.05) == 0.3
    assert resolve(["tuning.lr.relative=2"]).tuning.learning_rate(0.05) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("text", "ratios"),
    [("0.1,0.3", (0.1, 0.3)), ("[0.5]", (0.5,)), ("0.25", (0.25,)), ("[.3, .1]", (0.3, 0.1))],
)
def test_ratios(text: str, ratios: tuple[float, ...]) -> None:
    assert resolve([f"search.token_ratios={text}"]).search.token_ratios == ratios


@pytest.mark.parametrize("text", ["0", "1", "[]", "0.1,0.1", "a", "[0.1, 1.5]", "{a: 1}", "null", "true"])
def test_other_ratios_are_refused(text: str) -> None:
    assert "search.piece_ratios: different ratios between 0 and 1" in message(f"search.piece_ratios={text}")


@pytest.mark.parametrize(
    ("text", "prices"), [("0.1,3", (0.1, 3.0)), ("[0.5]", (0.5,)), ("2", (2.0,)), ("1e-3,1e5", (1e-3, 1e5))]
)
def test_prices(text: str, prices: tuple[float, ...]) -> None:
    assert resolve([f"search.prices={text}"]).search.prices == prices


@pytest.mark.parametrize("text", ["0", "-1", "[]", "3,3", "a", "[.inf]", "{a: 1}", "null", "true"])
def test_other_prices_are_refused(text: str) -> None:
    assert "search.prices: different numbers above 0" in message(f"search.prices={text}")


def test_overrides_reach_every_level_and_the_last_wins() -> None:
    recipe = load_config(
        Recipe,
        "paper",
        ["seed=7", "tuning={epochs: 3}", "tuning.epochs=4", "tuning.epochs=5", "tuning.trackers=a, b"],
    )
    assert (recipe.seed, recipe.tuning.epochs, recipe.tuning.trackers) == (7, 5, ("a", "b"))
    assert recipe.tuning.clip_scope == "survivors"  # the section was replaced
    assert load_config(Recipe, "paper", ["tuning.trackers=[a]"]).tuning.trackers == ("a",)


def test_texts_stand_as_they_are() -> None:
    recipe = resolve(
        ["backbone.revision=12e4567", "prompt.init=text", "prompt.text=Is it so: yes #1", "task.data=null"]
    )
    assert recipe.backbone.revision == "12e4567"
    assert recipe.prompt.text == "Is it so: yes #1"
    assert recipe.task.data is None
    assert resolve(["task.id=none"]).task.id == "none"
    assert resolve(["prompt.init=text", "prompt.text='null'"]).prompt.text == "null"


@pytest.mark.parametrize("none", ["none", "null", "~", ""])
def test_none_is_what_the_help_calls_it(none: str) -> None:
    recipe = resolve([f"{key}={none}" for key in ("task.shots", "task.data", "prompt.text")])
    assert recipe == resolve()


def test_all_mistakes_come_in_one_message(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "kind: xprompts\ntoken: 3\ntuning: {epochz: 3, batch_size: 0}\ntask: imdb\nprompt: {tokens: true}\n"
    )
    with pytest.raises(ManyErrors) as caught:
        load_config(Recipe, path, ["oops", "seed=-1", "search.group=[1"])
    text = str(caught.value)
    assert text.startswith(f"9 mistakes in recipe {path}\n")
    for part in (
        'expected: an override as key=value\nfound:    "oops"',
        'found:    "xprompts"\ndo:       did you mean "xprompt"? available: adapt, tune, xprompt',
        'expected: a known key of tuning\nfound:    "epochz"\ndo:       did you mean "epochs"?',
        "expected: tuning.batch_size: greater than or equal to 1\nfound:    0\n"
        "do:       set tuning.batch_size=... (integer): examples of a batch",
        "expected: task: a mapping of keys to values\nfound:    'imdb'",
        "expected: prompt.tokens: a valid integer\nfound:    True",
        "expected: seed: greater than or equal to 0\nfound:    -1",
        "expected: a YAML value for search.group",
        'expected: a known key of a recipe\nfound:    "token"',
    ):
        assert part in text
    assert all(error.do for error in caught.value.errors)


def test_one_mistake_stands_alone() -> None:
    assert message("tuning.loss=rnk").splitlines() == [
        "expected: a known value of tuning.loss",
        'found:    "rnk"',
        'do:       did you mean "rank"? available: auto, likelihood, rank',
    ]


def test_a_key_of_another_section_is_found() -> None:
    assert 'did you mean "tuning.epochs" or "search.epochs"?' in message("epochs=3")
    assert 'did you mean "prompt.tokens"?' in message("tuning.tokens=3")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["prompt.init=file"], "prompt.file: a value where init is file\nfound:    nothing"),
        (["prompt.init=labels", "prompt.text=a"], "prompt.text: no value where init is labels"),
        (["prompt.text=a"], "prompt.text: no value where init is vocabulary\nfound:    'a'"),
        (
            ["selection.objective=smallest_within"],
            "selection.within: a value where objective is smallest_within",
        ),
        (["selection.within=0.1"], "selection.within: no value where objective is one_se"),
    ],
)
def test_keys_that_go_together(overrides: list[str], told: str) -> None:
    assert told in message(*overrides)


def test_keys_that_go_together_are_accepted() -> None:
    overrides = [
        "prompt.init=text",
        "prompt.text=a",
        "selection.objective=smallest_within",
        "selection.within=0.01",
    ]
    assert resolve(overrides).selection.within == 0.01


def test_a_text_to_start_from_may_be_the_tasks() -> None:
    assert resolve(["prompt.init=text"]).prompt.text is None


def test_the_prompt_file_gives_the_number_of_tokens_unless_told_otherwise() -> None:
    file = ["prompt.init=file", "prompt.file=mine.npy"]
    recipe = resolve(file)
    assert recipe.prompt.tokens_of_file
    assert "tokens" not in recipe.resolved()["prompt"]
    assert resolve(base=yaml.safe_load(recipe.dump())).prompt.tokens_of_file  # a recipe survives its dump
    told = resolve([*file, "prompt.tokens=20"])
    assert not told.prompt.tokens_of_file
    assert told.resolved()["prompt"]["tokens"] == 20
    assert not resolve().prompt.tokens_of_file


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a: [1", "as YAML"),
        (b"seed: 1\nseed: 2\n", "seed is given twice"),
        (b"day: 2024-99-99\n", "as YAML"),
        (b"- 1\n", "as a mapping of keys to values\nfound:    list"),
        (b"# only a comment\n", "as a mapping of keys to values\nfound:    nothing"),
        (b"\xff\xfe\x00", "iconv -f utf-16 "),
        ("seed: 1  # é".encode("cp1252"), "iconv -f windows-1252 "),
        (b"!!python/object/apply:os.system [ls]", "as YAML"),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    with pytest.raises(SoftpruneError, match="expected: ") as caught:
        load_config(Recipe, path)
    assert told in str(caught.value)


def test_recipes_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(SoftpruneError, match='did you mean "paper"'):
        recipe_text("papr")
    with pytest.raises(SoftpruneError, match="No such file"):
        recipe_text(tmp_path / "r.yaml")
    with pytest.raises(SoftpruneError, match="Is a directory"):
        recipe_text(tmp_path)


def test_every_key_has_a_type_a_default_and_a_description() -> None:
    fields = {field.key: field for field in flat_fields()}
    assert {key.partition(".")[0] for key in fields} == set(resolve().resolved())
    for field in fields.values():
        assert field.type
        assert re.search(r"\S.* \[default: [^\]]+\]$", field.description), field.key
    assert fields["tuning.lr"].type == "number or {relative: number}"
    assert fields["backbone.threads"].type == "integer or auto"
    assert fields["search.token_ratios"].type == "list of numbers"


def test_flat_fields_are_the_resolved_recipe() -> None:
    keys = {key.removesuffix(".relative") for key in keys_of(resolve().resolved())}
    assert keys == {field.key for field in flat_fields()}


def test_recipe_imports_no_torch() -> None:
    code = "import sys, softprune.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_recipe_takes_schema_by_its_name() -> None:
    assert Recipe.model_validate({"schema": 1}) == resolve()
    assert "a known value of schema" in message("schema=2")


def test_the_studys_recipe_has_its_values() -> None:
    """`study-gpt2-prompt-lora-lastlayer.md`: batch 4, 5e-5, five prompt tokens, LoRA r 128, alpha 32, dropout 0.2."""
    recipe = load_config(CompareRecipe, "gpt2-summaries")
    cells = {method: resolve((), recipe.cell(method, 0)) for method in recipe.methods}
    assert {(cell.tuning.batch_size, cell.tuning.lr) for cell in cells.values()} == {(4, 5e-5)}
    assert {method: cell.tuning.epochs for method, cell in cells.items()} == {"prompt": 5, "last-layer": 10, "lora": 10}
    assert cells["prompt"].prompt.tokens == 5
    lora = cells["lora"].adapter
    assert (lora.rank, lora.alpha, lora.dropout, lora.layers) == (128, 32, 0.2, (8, 9, 10, 11))
    assert lora.targets == ("attn.c_proj",)


@pytest.mark.parametrize("name", [name for name in list_shipped("recipe") if kind_of(name) == "compare"])
def test_every_run_of_a_shipped_comparison_is_a_recipe(name: str) -> None:
    recipe = load_config(CompareRecipe, name)
    for method in recipe.methods:
        cell = resolve((), recipe.cell(method, 3))
        assert (cell.seed, cell.task.id) == (3, recipe.task.id)
        assert cell.kind == {"prompt": "tune", "xprompt": "xprompt"}.get(method, "adapt")
