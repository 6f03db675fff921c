"""Pydantic's validation errors in softprune's words: expected, found, do."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace

from pydantic_core import ErrorDetails

from softprune.config.recipe_fields import RecipeField
from softprune.config.registry import unknown
from softprune.config.yaml_io import plain
from softprune.errors import SoftpruneError


def explain_error(error: ErrorDetails, fields: Sequence[RecipeField], what: str = "a recipe") -> SoftpruneError:
    """One of pydantic's errors as a message about `what`, which has these fields; `*` in one is a place in a list."""
    parts = [str(part) for part in error["loc"]]
    key = ".".join(parts)
    known = []
    for field in fields:
        # `*` in a field's key becomes the place in a list that the error has there.
        names = enumerate(field.key.split("."))
        filled = [parts[n] if name == "*" and n < len(parts) else name for n, name in names]
        known.append(replace(field, key=".".join(filled)))
    if error["type"] == "extra_forbidden":
        return _unknown_key(parts, known, what)
    around = [field for field in known if f"{key}.".startswith(f"{field.key}.")]
    nearest = max(around, key=lambda field: field.key.count("."), default=None)
    if error["type"] == "missing" and nearest is not None:
        do = f"add {parts[-1]}: ... ({nearest.type}): {nearest.description}"
        return SoftpruneError(f"{key}, which is required", "nothing", do)
    if error["type"] == "literal_error" and nearest is not None:
        return unknown(f"value of {key}", str(error["input"]), nearest.type.split(" | "))
    if error["type"] == "unknown_name":
        return unknown(f"value of {key}", error["ctx"]["name"], error["ctx"]["available"])
    value = "nothing" if error["input"] is None else repr(error["input"])
    if error["type"] == "only_with" and error["input"] is not None:
        # The key goes with one choice of another key.
        other, choice = error["ctx"]["key"], error["ctx"]["choice"]
        do = f"add --{other} {choice} ({'.'.join(parts[:-1])}.{other}={choice}), or leave {key} out"
        return SoftpruneError(f"{key}: {plain(error['msg'])}", value, do)
    wanted = "a mapping of keys to values" if error["type"] == "model_type" else plain(error["msg"])
    if nearest is None:
        do = f"write its keys indented under {key}:, or leave it out"
    else:
        in_list = any(isinstance(part, int) for part in error["loc"])
        # No override reaches a place in a list.
        how = f"write {parts[-1]}: ..." if in_list and nearest.key == key else f"set {nearest.key}=..."
        do = f"{how} ({nearest.type}): {nearest.description}"
    return SoftpruneError(f"{key}: {wanted}", value, do)


def without_misspelt(errors: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Errors without those for a required key that is there under a misspelt name, which has an error of its own."""
    kept = []
    unknown_keys = [error["loc"] for error in errors if error["type"] == "extra_forbidden"]
    for error in errors:
        place = error["loc"]
        siblings = [str(other[-1]) for other in unknown_keys if other[:-1] == place[:-1]]
        if error["type"] != "missing" or not difflib.get_close_matches(str(place[-1]), siblings, n=1):
            kept.append(error)
    return kept


def _unknown_key(parts: Sequence[str], fields: Sequence[RecipeField], what: str) -> SoftpruneError:
    """The error for a key that no section has, or only another one."""
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
