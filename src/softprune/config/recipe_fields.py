"""Every recipe key with its type and meaning, for command-line flags and documentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel

from softprune.config.field_types import LearningRate, Section
from softprune.config.schema import Recipe


@dataclass(frozen=True)
class RecipeField:
    """One recipe key, for command-line flags and documentation."""

    key: str  # dotted, such as `tuning.epochs`
    type: str  # of its values, in words
    description: str  # meaning, unit and default


def flat_fields(of: type[BaseModel] = Recipe, prefix: str = "") -> list[RecipeField]:
    """All keys of a kind of recipe, or of its section behind this prefix, in its order."""
    fields: list[RecipeField] = []
    for name, field in of.model_fields.items():
        key, kind = f"{prefix}{field.alias or name}", field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            fields += flat_fields(kind, f"{key}.")
        else:
            fields.append(RecipeField(key, _type_name(kind), field.description or ""))
    return fields


def _type_name(kind: Any) -> str:
    words = {int: "integer", float: "number", str: "text", bool: "true or false", type(None): "none", dict: "mapping"}
    if kind is LearningRate:
        return "{relative: number}"
    if get_origin(kind) is Annotated:
        return _type_name(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return " | ".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        return f"list of {_type_name(get_args(kind)[0])}s"
    if isinstance(kind, type) and issubclass(kind, Section):
        return "mapping"
    kind = get_origin(kind) if get_origin(kind) is dict else kind
    return words[kind] if kind in words else " or ".join(_type_name(part) for part in get_args(kind))
