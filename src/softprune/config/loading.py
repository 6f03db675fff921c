"""From YAML and `key.sub=value` overrides to a `Recipe`, with every mistake in one message."""

from __future__ import annotations

import copy
import difflib
import shlex
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from softprune.config.comparison_schema import (
    METHODS,
    SHARED,
    CompareRecipe,
    cell_values,
    keys_of,
    methods_of,
    nested,
    without_left_out,
)
from softprune.config.registry import unknown
from softprune.config.schema import Recipe, RecipeField, flat_fields
from softprune.config.token_pruning_schema import TokensRecipe
from softprune.config.yaml_io import check_writable, parse_yaml, plain
from softprune.errors import ManyErrors, SoftpruneError, gathered
from softprune.text_encoding import how_to_convert

Names: TypeAlias = Mapping[str, Callable[[str], object]]
"""By recipe key, what looks up the name that stands there; it raises a SoftpruneError for an unknown one."""

R = TypeVar("R", bound=BaseModel)
Fields: TypeAlias = Sequence[RecipeField]

_SHIPPED: Final = Path(__file__).parents[1] / "recipes"
_STUDIES: Final = _SHIPPED / "studies"
_PLACES: Final = {"recipe": (_SHIPPED, "softprune run"), "study": (_STUDIES, "softprune study run")}
"""Where what ships lies, and what runs it."""
_OF_A_TASK: Final = frozenset(("template", "answers", "fields"))
"""Keys of a task's YAML, which is easily taken for a recipe; no recipe has them."""
_KINDS: Final = frozenset(("xprompt", "tune", "adapt", "tokens", "compare", "study"))


def shipped_recipes() -> tuple[str, ...]:
    """Names of the recipes that come with softprune."""
    return _names_in(_SHIPPED)


def shipped_studies() -> tuple[str, ...]:
    """Names of the studies that come with softprune."""
    return _names_in(_STUDIES)


def recipe_text(path_or_name: str | Path) -> str:
    """The YAML text of a shipped recipe or of a file.

    Raises:
        SoftpruneError: there is no such recipe, or it can't be read.
    """
    return _text("recipe", path_or_name)


def study_text(path_or_name: str | Path) -> str:
    """The YAML text of a shipped study or of a file; errors as of `recipe_text`."""
    return _text("study", path_or_name)


def _text(what: str, path_or_name: str | Path) -> str:
    name, (folder, _) = str(path_or_name), _PLACES[what]
    shipped = _names_in(folder)
    path = folder / f"{name}.yaml" if name in shipped else Path(path_or_name)
    if not path.exists() and path.suffix not in (".yaml", ".yml") and len(path.parts) == 1:
        raise _no_such(what, name, shipped)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{error.object[error.start]:02x} in {path}"
        raise SoftpruneError(f"a {what} file in UTF-8", byte, how_to_convert(error.object, path)) from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        why = error.strerror if isinstance(error, OSError) else "no path"
        shown = name.replace("\0", "\\0")
        raise SoftpruneError(f"a {what} file that can be read", f"{shown}: {why}", "check its path") from error


def _no_such(what: str, name: str, shipped: Sequence[str]) -> SoftpruneError:
    for other, (folder, command) in _PLACES.items():
        if name in _names_in(folder):
            return SoftpruneError(f"a {what}", f"{name}, which is a {other}", f"{command} {name}")
    return unknown(f"{what} (or the path of a {what} file)", name, shipped)


def _names_in(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in folder.glob("*.yaml")))


def kind_of(path_or_name: str | Path) -> str:
    """The kind that a shipped recipe or a file names; xprompt where it names none.

    Raises:
        SoftpruneError: it can't be read.
    """
    return str(parse_recipe(recipe_text(path_or_name), f"recipe {path_or_name}").get("kind", "xprompt"))


def load_recipe(path_or_name: str | Path, overrides: Sequence[str] = (), *, names: Names | None = None) -> Recipe:
    """A recipe from a shipped name or a file, changed by `key.sub=value` overrides; `names` as in `resolve`.

    Raises:
        SoftpruneError: with every mistake in it (`ManyErrors` when there is more than one).
    """
    return resolve_as(Recipe, overrides, _load(Recipe, path_or_name), f"recipe {path_or_name}", names)


def load_tokens_recipe(
    path_or_name: str | Path, overrides: Sequence[str] = (), *, names: Names | None = None
) -> TokensRecipe:
    """The same for a recipe of learned token pruning."""
    return resolve_as(TokensRecipe, overrides, _load(TokensRecipe, path_or_name), f"recipe {path_or_name}", names)


def resolve(
    overrides: Sequence[str] = (),
    base: Mapping[str, Any] | None = None,
    where: str = "recipe",
    *,
    names: Names | None = None,
) -> Recipe:
    """The recipe of a mapping (nothing: all defaults) and `key.sub=value` overrides, the last one winning.

    Args:
        overrides: what changes the mapping.
        base: the mapping.
        where: what a message calls it.
        names: lookups of names in other rooms, whose errors are told with the rest; the command line gives them.

    Raises:
        SoftpruneError: with every mistake in it (`ManyErrors` when there is more than one).
    """
    return resolve_as(Recipe, overrides, base, where, names)


def resolve_tokens(
    overrides: Sequence[str] = (),
    base: Mapping[str, Any] | None = None,
    where: str = "recipe",
    *,
    names: Names | None = None,
) -> TokensRecipe:
    """The same for a recipe of learned token pruning."""
    return resolve_as(TokensRecipe, overrides, base, where, names)


def load_compare_recipe(
    path_or_name: str | Path, overrides: Sequence[str] = (), *, names: Names | None = None
) -> CompareRecipe:
    """The same for a recipe of a comparison; what is wrong with the settings of its methods is told with the rest."""
    return resolve_as(CompareRecipe, overrides, _load(CompareRecipe, path_or_name), f"recipe {path_or_name}", names)


def resolve_compare(
    overrides: Sequence[str] = (),
    base: Mapping[str, Any] | None = None,
    where: str = "recipe",
    *,
    names: Names | None = None,
) -> CompareRecipe:
    """The same for a comparison."""
    return resolve_as(CompareRecipe, overrides, base, where, names)


def _load(of: type[BaseModel], path_or_name: str | Path) -> dict[str, Any]:
    values = parse_recipe(recipe_text(path_or_name), f"recipe {path_or_name}")
    if len(_OF_A_TASK & set(values)) > 1:
        do = f"softprune xprompt --task {shlex.quote(str(path_or_name))}"
        raise SoftpruneError("a recipe", f"a task in {path_or_name}", do)
    kinds = get_args(of.model_fields["kind"].annotation)
    if values.get("kind") in _KINDS and values["kind"] not in kinds:
        found = f"kind: {values['kind']} in {path_or_name}"
        command = "study run" if values["kind"] == "study" else "run"
        do = f"softprune {command} {shlex.quote(str(path_or_name))}"
        raise SoftpruneError(f"a recipe of kind {' or '.join(kinds)}", found, do)
    return values


def resolve_as(
    of: type[R],
    overrides: Sequence[str],
    base: Mapping[str, Any] | None,
    where: str,
    names: Names | None,
    *,
    what: str = "a recipe",
    more_fields: Fields = (),
    further: Callable[[Mapping[str, Any]], Sequence[SoftpruneError]] | None = None,
) -> R:
    """As `resolve`, of any kind.

    Args:
        of: the kind.
        overrides, base, where, names: as there.
        what: what a message calls the kind.
        more_fields: of keys that overrides may have beside the kind's own; `*` in one is a place in a list.
        further: finds mistakes in the values that the kind itself doesn't see.

    Raises:
        SoftpruneError: with every mistake (`ManyErrors` when there is more than one).
    """
    values, fields = copy.deepcopy(dict(base or {})), [*flat_fields(of), *more_fields]
    errors = [error for text in overrides if (error := _override(values, text, fields)) is not None]
    check_writable(values, where)
    if issubclass(of, CompareRecipe):
        values = without_left_out(values, base or {})
    recipe = None
    found: list[ErrorDetails] = []
    try:
        recipe = of.model_validate(values)
    except ValidationError as error:
        found = _without_misspelt(error.errors(include_url=False))
    errors += [told(details, fields, what) for details in found]
    if issubclass(of, CompareRecipe):
        errors += _of_cells(values, {(details["loc"], details["type"]) for details in found})
    if further is not None:
        errors += further(values)
    errors += _unknown_names(values, names or {})
    if recipe is None or errors:
        raise errors[0] if len(errors) == 1 else ManyErrors(where, errors)
    return recipe


def _of_cells(values: Mapping[str, Any], known: Container[tuple[Any, str]]) -> list[SoftpruneError]:
    """What is wrong with the settings of a comparison's methods; `known` mistakes are those of all of them."""
    errors: list[SoftpruneError] = []
    settings, adapter, methods = values.get("settings"), values.get("adapter"), methods_of(values)
    if isinstance(adapter, Mapping) and "method" in adapter:
        errors.append(SoftpruneError("methods alone to say what is compared", "adapter.method", "leave it out"))
    for method, own in settings.items() if isinstance(settings, Mapping) else ():
        if method not in METHODS or not isinstance(own, Mapping):
            continue
        if methods is not None and method not in methods:
            found = f"settings.{method}; methods are {', '.join(methods)}"
            do = f"name {method} in methods, or leave settings.{method} out"
            errors.append(SoftpruneError("settings for methods that are compared", found, do))
        mistakes: list[SoftpruneError] = []
        keys = [key for key in keys_of(nested(own)) if any(f"{key}.".startswith(f"{name}.") for name in SHARED)]
        if keys:
            do = "set it for the whole comparison, or make two of them"
            mistakes.append(SoftpruneError("keys that may differ between methods", ", ".join(keys), do))
        try:
            Recipe.model_validate(cell_values(values, method, 0))
        except ValidationError as error:
            details = [each for each in error.errors(include_url=False) if (each["loc"], each["type"]) not in known]
            mistakes += [told(each, flat_fields(Recipe)) for each in details]
        errors += [SoftpruneError(f"settings.{method}: {e.expected}", e.found, e.do) for e in mistakes]
    return errors


def _unknown_names(values: Mapping[str, Any], names: Names) -> list[SoftpruneError]:
    """What the lookups say of the names given; a key without a name has its default, or is told elsewhere."""
    errors: list[SoftpruneError] = []
    for key, look_up in names.items():
        name: Any = values
        for part in key.split("."):
            name = name.get(part) if isinstance(name, Mapping) else None
        if isinstance(name, str) and name:
            with gathered(errors):
                look_up(name)
    return errors


def parse_recipe(text: str, where: str) -> dict[str, Any]:
    """The keys of a YAML text; `where` it stands, for messages."""
    try:
        values = parse_yaml(text)
    except yaml.YAMLError as error:
        found = " ".join(str(error).replace('in "<unicode string>", ', "at ").split())
        raise SoftpruneError(f"{where} as YAML", found, "fix that place; see docs/usage.md") from error
    if not isinstance(values, dict):
        found = "nothing" if values is None else f"{type(values).__name__}: {values!r}"
        do = 'begin with "kind: xprompt" or another key: value line'
        raise SoftpruneError(f"{where} as a mapping of keys to values", found, do)
    check_writable(values, where)
    return values


def _override(values: dict[str, Any], text: str, fields: Fields) -> SoftpruneError | None:
    """Puts one `key.sub=value` into `values`; a section that isn't a mapping gives way."""
    key, equals, raw = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        return SoftpruneError("an override as key=value", f'"{text}"', 'write it as in "tuning.epochs=5"')
    try:
        value = _override_value(key.strip(), raw.strip(), fields)
    except yaml.YAMLError:
        return SoftpruneError(f"a YAML value for {key}", f'"{raw}"', "put texts with special signs in quotes")
    for part in parts[:-1]:
        if not isinstance(values.get(part), dict):
            values[part] = {}
        values = values[part]
    values[parts[-1]] = value
    return None


def _override_value(key: str, raw: str, fields: Fields) -> Any:
    """`raw` as YAML; but a key that takes text takes it as it stands, unless it is in quotes."""
    kind = next((field.type for field in fields if field.key == key), "")
    if kind.endswith(" or none") and raw.lower() in ("none", "null", "~", ""):
        return None
    quoted = len(raw) > 1 and raw[0] == raw[-1] and raw[0] in "\"'"
    return raw if kind.startswith("text") and not quoted else parse_yaml(raw)


def _without_misspelt(errors: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Without required keys that are there under a misspelt name, which is told itself."""
    strange = [error["loc"] for error in errors if error["type"] == "extra_forbidden"]

    def misspelt(loc: tuple[int | str, ...]) -> bool:
        near = [str(other[-1]) for other in strange if other[:-1] == loc[:-1]]
        return bool(difflib.get_close_matches(str(loc[-1]), near, n=1))

    return [error for error in errors if error["type"] != "missing" or not misspelt(error["loc"])]


def told(error: ErrorDetails, fields: Fields, what: str = "a recipe") -> SoftpruneError:
    """One of pydantic's errors in softprune's words; `what` has the keys."""
    parts = [str(part) for part in error["loc"]]
    key = ".".join(parts)
    in_list = any(isinstance(part, int) for part in error["loc"])
    fields = [replace(field, key=_placed(field.key, parts)) for field in fields]
    if error["type"] == "extra_forbidden":
        return _unknown_key(parts, fields, what)
    holding = [field for field in fields if f"{key}.".startswith(f"{field.key}.")]
    field = max(holding, key=lambda field: field.key.count("."), default=None)
    if error["type"] == "missing" and field is not None:
        do = f"add {parts[-1]}: ... ({field.type}): {field.description}"
        return SoftpruneError(f"{key}, which is required", "nothing", do)
    if error["type"] == "literal_error" and field is not None:
        return unknown(f"value of {key}", str(error["input"]), field.type.split(" | "))
    if error["type"] == "unknown_name":
        return unknown(f"value of {key}", error["ctx"]["name"], error["ctx"]["available"])
    wanted = plain(error["msg"])
    if error["type"] == "only_with" and error["input"] is not None:
        return SoftpruneError(f"{key}: {wanted}", _found(error["input"]), _companion(parts, error["ctx"]))
    if error["type"] == "model_type":
        wanted = "a mapping of keys to values"
    if field is None:
        do = f"write its keys indented under {key}:, or leave it out"
    else:  # overrides reach no place in a list
        how = f"write {parts[-1]}: ..." if in_list and field.key == key else f"set {field.key}=..."
        do = f"{how} ({field.type}): {field.description}"
    return SoftpruneError(f"{key}: {wanted}", _found(error["input"]), do)


def _placed(key: str, parts: Sequence[str]) -> str:
    """A field's key with the places in lists that `parts` have."""
    names = key.split(".")
    return ".".join(parts[n] if name == "*" and n < len(parts) else name for n, name in enumerate(names))


def _companion(parts: Sequence[str], context: Mapping[str, Any]) -> str:
    """What to do about a key that goes with a choice of another one."""
    key, choice = context["key"], context["choice"]
    return f"add --{key} {choice} ({'.'.join(parts[:-1])}.{key}={choice}), or leave {'.'.join(parts)} out"


def _found(value: object) -> str:
    return "nothing" if value is None else repr(value)


def _unknown_key(parts: Sequence[str], fields: Fields, what: str) -> SoftpruneError:
    """The error for a key that no section, or another one, has."""
    section, name = ".".join(parts[:-1]), parts[-1]
    keys = [field.key for field in fields if "*" not in field.key]
    prefix = f"{section}." if section else ""
    siblings = {key.removeprefix(prefix).partition(".")[0] for key in keys if key.startswith(prefix)}
    error = unknown(f"key of {section or what}", name, siblings)
    elsewhere = [key for key in keys if key.rpartition(".")[2] == name]
    if elsewhere and "did you mean" not in error.do:
        meant = " or ".join(f'"{key}"' for key in elsewhere)
        return SoftpruneError(error.expected, error.found, f"did you mean {meant}? {error.do}")
    return error
