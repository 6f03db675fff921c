"""From YAML and `key.sub=value` overrides to a validated recipe, with every mistake in one message."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from softprune.config.comparison_schema import CompareRecipe, drop_unused_settings, find_method_errors
from softprune.config.recipe_fields import RecipeField, flat_fields
from softprune.config.registry import unknown
from softprune.config.schema import Recipe
from softprune.config.validation_messages import explain_error, without_misspelt
from softprune.config.yaml_io import check_writable, parse_keys, parse_yaml, read_text
from softprune.errors import SoftpruneError, gathered, join_errors

# By recipe key, what looks up the name that it holds; it raises a SoftpruneError for an unknown one.
NameChecks: TypeAlias = Mapping[str, Callable[[str], object]]

R = TypeVar("R", bound=BaseModel)

_SHIPPED: Final = Path(__file__).parents[1] / "recipes"
# The folder of what ships, and the command that runs it.
_PLACES: Final = {"recipe": (_SHIPPED, "softprune run"), "study": (_SHIPPED / "studies", "softprune study run")}
# Of a task's YAML, which is easily taken for a recipe; no recipe has them.
_TASK_KEYS: Final = frozenset(("template", "answers", "fields"))
_KINDS: Final = frozenset(("xprompt", "tune", "adapt", "tokens", "compare", "study"))


def list_shipped(what: str) -> tuple[str, ...]:
    """Names of each `recipe` or `study` that comes with softprune."""
    return tuple(sorted(path.stem for path in _PLACES[what][0].glob("*.yaml")))


def recipe_text(path_or_name: str | Path, what: str = "recipe") -> str:
    """The YAML text of a shipped recipe (or `study`) or of a file.

    Raises:
        SoftpruneError: there is no such recipe, or it can't be read.
    """
    name, shipped = str(path_or_name), list_shipped(what)
    path = _PLACES[what][0] / f"{name}.yaml" if name in shipped else Path(path_or_name)
    if not path.exists() and path.suffix not in (".yaml", ".yml") and len(path.parts) == 1:
        for other, (_, command) in _PLACES.items():
            if name in list_shipped(other):
                raise SoftpruneError(f"a {what}", f"{name}, which is a {other}", f"{command} {name}")
        raise unknown(f"{what} (or the path of a {what} file)", name, shipped)
    return read_text(path, f"{what} file")


def kind_of(path_or_name: str | Path) -> str:
    """The kind that a shipped recipe or a file names; xprompt where it names none."""
    return str(parse_keys(recipe_text(path_or_name), f"recipe {path_or_name}").get("kind", "xprompt"))


def load_config(
    kind: type[R],
    source: Mapping[str, Any] | str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    where: str = "",
    names: NameChecks | None = None,
) -> R:
    """A recipe of any kind, validated.

    Args:
        kind: `Recipe`, `CompareRecipe` or `TokensRecipe`; a study has `load_study`.
        source: a shipped recipe's name, a file, or the keys as nested mappings; None for the defaults.
        overrides: `key.sub=value` that change it, the last one winning.
        where: what a message calls the source, if not by its name.
        names: look-ups of names that other packages know; their errors are reported with the rest.

    Raises:
        SoftpruneError: with every mistake in it (`ManyErrors` when there is more than one).
    """
    if not isinstance(source, str | Path):
        return validate(kind, source or {}, overrides, where or "recipe", names)
    where = where or f"recipe {source}"
    values = parse_keys(recipe_text(source), f"recipe {source}")
    if len(_TASK_KEYS & set(values)) > 1:
        do = f"softprune xprompt --task {shlex.quote(str(source))}"
        raise SoftpruneError("a recipe", f"a task in {source}", do)
    kinds = get_args(kind.model_fields["kind"].annotation)
    if values.get("kind") in _KINDS and values["kind"] not in kinds:
        found = f"kind: {values['kind']} in {source}"
        command = "study run" if values["kind"] == "study" else "run"
        do = f"softprune {command} {shlex.quote(str(source))}"
        raise SoftpruneError(f"a recipe of kind {' or '.join(kinds)}", found, do)
    return validate(kind, values, overrides, where, names)


def resolve(overrides: Sequence[str] = (), base: Mapping[str, Any] | None = None, where: str = "recipe") -> Recipe:
    """The recipe of a run from its keys (none: all defaults) and overrides."""
    return load_config(Recipe, base, overrides, where=where)


def validate(
    kind: type[R],
    base: Mapping[str, Any],
    overrides: Sequence[str],
    where: str,
    names: NameChecks | None = None,
    *,
    what: str = "a recipe",
    more_fields: Sequence[RecipeField] = (),
    find_more: Callable[[Mapping[str, Any]], Sequence[SoftpruneError]] | None = None,
) -> R:
    """Keys (`base`) and overrides as a model of their kind, as `load_config` gives it.

    `what` is what a message calls the kind; overrides may have `more_fields` (`*` in one is a place in a list), and
    `find_more` finds mistakes that the model itself doesn't see.
    """
    values, fields = copy.deepcopy(dict(base)), [*flat_fields(kind), *more_fields]  # a copy, which overrides change
    errors: list[SoftpruneError] = []
    for text in overrides:
        with gathered(errors):
            _apply_override(values, text, fields)
    check_writable(values, where)
    if issubclass(kind, CompareRecipe):
        values = drop_unused_settings(values, base)
    recipe, invalid = None, list[ErrorDetails]()
    try:
        recipe = kind.model_validate(values)
    except ValidationError as error:
        invalid = without_misspelt(error.errors(include_url=False))
    errors += [explain_error(details, fields, what) for details in invalid]
    if issubclass(kind, CompareRecipe):
        errors += find_method_errors(values, {(details["loc"], details["type"]) for details in invalid})
    if find_more is not None:
        errors += find_more(values)
    for key, look_up in (names or {}).items():
        name: Any = values
        for part in key.split("."):
            name = name.get(part) if isinstance(name, Mapping) else None
        if isinstance(name, str) and name:  # without a name the key has its default, or an error of its own
            with gathered(errors):
                look_up(name)
    if recipe is None or errors:
        raise join_errors(where, errors)
    return recipe


def _apply_override(values: dict[str, Any], text: str, fields: Sequence[RecipeField]) -> None:
    """Put `key.sub=value` into nested mappings; a section that isn't a mapping is replaced.

    The value is YAML; but a key that takes text takes it literally, unless it is in quotes.
    """
    key, equals, raw = (part.strip() for part in text.partition("="))
    *sections, name = key.split(".")
    if not equals or not all([*sections, name]):
        raise SoftpruneError("an override as key=value", f'"{text}"', 'write it as in "tuning.epochs=5"')
    kind = next((field.type for field in fields if field.key == key), "")
    is_quoted = len(raw) > 1 and raw[0] == raw[-1] and raw[0] in "\"'"
    value: Any = raw
    if kind.endswith(" or none") and raw.lower() in ("none", "null", "~", ""):
        value = None
    elif not kind.startswith("text") or is_quoted:
        try:
            value = parse_yaml(raw)
        except yaml.YAMLError:
            do = "put texts with special characters in quotes"
            raise SoftpruneError(f"a YAML value for {key}", f'"{raw}"', do) from None
    for section in sections:
        if not isinstance(values.get(section), dict):
            values[section] = {}
        values = values[section]
    values[name] = value
