"""Whatever stands in a recipe or an override: a recipe comes out, or a SoftpruneError, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from softprune.config import (
    METHODS,
    CompareRecipe,
    Recipe,
    flat_fields,
    kind_of,
    list_shipped,
    load_config,
    recipe_text,
    resolve,
)
from softprune.data import load_task
from softprune.errors import ManyErrors, SoftpruneError
from softprune.models.description import find_source

pytestmark = pytest.mark.slow

bounded = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

NAMES = {"backbone.name": find_source, "task.id": load_task}  # as the command line looks them up
# The others: test_token_recipe, and compare/test_recipe.
PROMPTS = [name for name in list_shipped("recipe") if kind_of(name) not in ("tokens", "compare")]
KEYS = [field.key for field in flat_fields()]
SECTIONS = sorted({part for key in KEYS for part in key.split(".")})
WORDS = sorted({word for field in flat_fields() for word in field.type.split(" | ")} | {"relative", "none", "~", "{}"})

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["\x85", "a\0.yaml", "\0", "x" * 5000, "x/" * 3000 + "y.yaml", "\u2028", "a\rb\nc", "=", "~"])
    | st.sampled_from(WORDS)
    | st.dates()
    | st.binary(max_size=4)
)
names = st.sampled_from(SECTIONS) | st.text(max_size=6) | st.integers() | st.booleans() | st.none()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=8
)
shaped = st.dictionaries(st.sampled_from(SECTIONS), values | st.dictionaries(st.sampled_from(SECTIONS), scalars))
typed = st.builds(lambda key, value: f"{key}={value}", st.sampled_from(KEYS), scalars | st.sampled_from(WORDS))
overrides = st.lists(st.text(max_size=20) | typed, max_size=4)


def hold(found: Recipe | SoftpruneError) -> None:
    """A recipe is what it dumps; an error has its three parts, each in every mistake."""
    if isinstance(found, Recipe):
        assert resolve([], yaml.safe_load(found.dump())) == found
        return
    for mistake in found.errors if isinstance(found, ManyErrors) else [found]:
        assert all((mistake.expected.strip(), mistake.found.strip(), mistake.do.strip())), mistake
        assert str(found).encode()


def resolved(given_overrides: list[str], base: Any = None) -> Recipe | SoftpruneError:
    try:
        return load_config(Recipe, base, given_overrides, names=NAMES)
    except SoftpruneError as error:
        return error


def loaded(path: Path) -> Recipe | SoftpruneError:
    try:
        return load_config(Recipe, path)
    except SoftpruneError as error:
        return error


@bounded
@given(base=shaped, changes=overrides)
def test_any_mapping(base: dict[str, Any], changes: list[str]) -> None:
    hold(resolved(changes, base))


@bounded
@given(value=values)
def test_any_yaml_value_as_a_file(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(value), encoding="utf-8")
    hold(loaded(path))


@bounded
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_as_a_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    hold(loaded(path))


@bounded
@given(name=st.sampled_from(PROMPTS), at=st.integers(0, 400), cut=st.integers(0, 9), new=st.text(max_size=9))
def test_a_shipped_recipe_with_a_slip(tmp_path: Path, name: str, at: int, cut: int, new: str) -> None:
    text = "\n".join(line for line in recipe_text(name).splitlines() if not line.startswith("#"))
    place = at % len(text)
    path = tmp_path / "r.yaml"
    path.write_bytes((text[:place] + new + text[place + cut :]).encode("utf-8", "surrogatepass"))
    hold(loaded(path))


@bounded
@given(changes=overrides)
def test_any_overrides(changes: list[str]) -> None:
    hold(resolved(changes))


@bounded
@given(key=st.sampled_from(KEYS), value=scalars, name=st.sampled_from(PROMPTS))
def test_a_shipped_recipe_with_another_value(key: str, value: Any, name: str) -> None:
    base = yaml.safe_load(recipe_text(name))
    section, _, last = key.rpartition(".")
    (base.setdefault(section, {}) if section else base)[last] = value
    hold(resolved([], base))


@pytest.mark.parametrize("name", PROMPTS)
def test_shipped_recipes_dump_to_themselves(name: str) -> None:
    hold(load_config(Recipe, name))


def test_what_is_held_can_be_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError):
        hold(SoftpruneError("a number", "", "give one"))
    monkeypatch.setattr(Recipe, "dump", lambda recipe: recipe.model_copy(update={"seed": 7}).model_dump_json())
    with pytest.raises((AssertionError, SoftpruneError)):
        hold(resolve([]))


own_settings = st.dictionaries(
    st.sampled_from(METHODS) | st.text(max_size=6),
    st.dictionaries(st.sampled_from(KEYS) | names, values | st.dictionaries(names, scalars), max_size=4) | scalars,
    max_size=3,
)
comparisons = st.builds(
    lambda base, methods, settings: base | {"methods": methods, "settings": settings},
    shaped,
    st.lists(st.sampled_from(METHODS), unique=True) | values,
    own_settings | values,
)


@bounded
@given(base=comparisons, changes=overrides)
def test_any_comparison(base: dict[str, Any], changes: list[str]) -> None:
    """A comparison's recipe is what it dumps, and has a run for every method; or it is told what is wrong."""
    try:
        found = load_config(CompareRecipe, base, changes, names=NAMES)
    except SoftpruneError as error:
        hold(error)
        return
    assert load_config(CompareRecipe, yaml.safe_load(found.dump())).resolved() == found.resolved()
    for method in found.methods:
        resolve(base=found.cell(method, 0))


@bounded
@given(settings=st.dictionaries(st.sampled_from(METHODS), st.dictionaries(st.sampled_from(KEYS), scalars, max_size=3)))
def test_any_settings(settings: dict[str, Any]) -> None:
    test_any_comparison.hypothesis.inner_test({"settings": settings}, [])
