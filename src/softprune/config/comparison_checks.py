"""What pydantic alone doesn't see in a comparison's recipe: mistakes in the settings of its methods."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from pydantic import ValidationError

from softprune.config.comparison_schema import METHODS, SHARED, cell_values, keys_of, methods_of, nested
from softprune.config.schema import Recipe, flat_fields
from softprune.config.validation_messages import explain_error
from softprune.errors import SoftpruneError


def find_cell_errors(values: Mapping[str, Any], known: Container[tuple[Any, str]]) -> list[SoftpruneError]:
    """What is wrong with the settings of a comparison's methods.

    Args:
        values: the comparison's keys.
        known: place and type of the mistakes in keys of the whole comparison, which are reported once.
    """
    errors: list[SoftpruneError] = []
    settings, adapter, methods = values.get("settings"), values.get("adapter"), methods_of(values)
    if isinstance(adapter, Mapping) and "method" in adapter:
        errors.append(SoftpruneError("methods alone to say what is compared", "adapter.method", "leave it out"))
    for method, own in settings.items() if isinstance(settings, Mapping) else ():
        if method not in METHODS or not isinstance(own, Mapping):
            continue  # pydantic reports it
        if methods is not None and method not in methods:
            found = f"settings.{method}; methods are {', '.join(methods)}"
            do = f"name {method} in methods, or leave settings.{method} out"
            errors.append(SoftpruneError("settings for methods that are compared", found, do))
        for error in _find_errors_of_method(values, method, own, known):
            errors.append(SoftpruneError(f"settings.{method}: {error.expected}", error.found, error.do))
    return errors


def _find_errors_of_method(
    values: Mapping[str, Any], method: str, own: Mapping[str, Any], known: Container[tuple[Any, str]]
) -> list[SoftpruneError]:
    errors: list[SoftpruneError] = []
    shared = [key for key in keys_of(nested(own)) if any(f"{key}.".startswith(f"{name}.") for name in SHARED)]
    if shared:
        do = "set it for the whole comparison, or make two of them"
        errors.append(SoftpruneError("keys that may differ between methods", ", ".join(shared), do))
    try:
        Recipe.model_validate(cell_values(values, method, 0))
    except ValidationError as error:
        for details in error.errors(include_url=False):
            if (details["loc"], details["type"]) not in known:
                errors.append(explain_error(details, flat_fields(Recipe)))
    return errors
