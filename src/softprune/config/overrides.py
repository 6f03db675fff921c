"""`key.sub=value`: one change of a recipe, from the command line or from Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from softprune.config.schema import RecipeField
from softprune.config.yaml_io import parse_yaml
from softprune.errors import SoftpruneError


def apply_override(values: dict[str, Any], text: str, fields: Sequence[RecipeField]) -> None:
    """Put one override into nested mappings; a section that isn't a mapping is replaced.

    Args:
        values: of a recipe; changed in place.
        text: the override.
        fields: the recipe's keys, whose types say how the value is read.

    Raises:
        SoftpruneError: it has no key, or its value isn't YAML.
    """
    key, equals, raw = (part.strip() for part in text.partition("="))
    *sections, name = key.split(".")
    if not equals or not all([*sections, name]):
        raise SoftpruneError("an override as key=value", f'"{text}"', 'write it as in "tuning.epochs=5"')
    try:
        value = _parse_value(key, raw, fields)
    except yaml.YAMLError:
        do = "put texts with special characters in quotes"
        raise SoftpruneError(f"a YAML value for {key}", f'"{raw}"', do) from None
    for section in sections:
        if not isinstance(values.get(section), dict):
            values[section] = {}
        values = values[section]
    values[name] = value


def _parse_value(key: str, raw: str, fields: Sequence[RecipeField]) -> Any:
    """`raw` as YAML; but a key that takes text takes it literally, unless it is in quotes."""
    kind = next((field.type for field in fields if field.key == key), "")
    if kind.endswith(" or none") and raw.lower() in ("none", "null", "~", ""):
        return None
    is_quoted = len(raw) > 1 and raw[0] == raw[-1] and raw[0] in "\"'"
    return raw if kind.startswith("text") and not is_quoted else parse_yaml(raw)
