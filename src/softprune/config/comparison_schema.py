"""The recipe keys of a comparison of methods (`kind: compare`), and the recipe of each of its runs."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final, Literal, get_args

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from softprune.config.field_types import Names, RecipeBase, key, parse_names
from softprune.config.schema import (
    AdapterConfig,
    BackboneConfig,
    PromptConfig,
    PruningConfig,
    SearchConfig,
    SelectionConfig,
    TaskConfig,
    TuningConfig,
)

ADAPTERS: Final[tuple[str, ...]] = get_args(AdapterConfig.model_fields["method"].annotation)
METHODS: Final = (*ADAPTERS, "prompt", "xprompt")
"""What can be compared."""

SECTIONS: Final = ("backbone", "task", "prompt", "tuning", "adapter", "pruning", "search", "selection")
SHARED: Final = ("task", "selection", "seed", "kind", "schema", "backbone.name", "backbone.family", "adapter.method")
"""Keys that no method has settings of its own for: a comparison is of the same data, model and choices."""

_OWN: Final = (
    ("tuning", "lr"),
    ("tuning", "latency"),
    ("task", "report_seed"),
    ("selection", "seeds"),
    ("search", "token_ratios"),
    ("search", "piece_ratios"),
)
"""Keys that mean something else where nobody names them: a method's own rate, say."""

_KINDS: Final = {"prompt": "tune", "xprompt": "xprompt"}


class CompareRecipe(RecipeBase):
    """All that a comparison depends on."""

    kind: Literal["compare"] = key("compare", "several methods side by side, on several seeds")
    methods: Names = key(METHODS, "names of the methods; softprune methods describes each")
    seeds: int = key(3, "how many seeds each method is run on: seed, seed + 1, ...", ge=1)
    backbone: BackboneConfig = Field(BackboneConfig(), description="the model")
    task: TaskConfig = Field(TaskConfig(), description="what it is adapted to")
    prompt: PromptConfig = Field(PromptConfig(), description="the prompt and its first values")
    tuning: TuningConfig = Field(TuningConfig(), description="how all methods are trained")
    adapter: AdapterConfig = Field(AdapterConfig(), description="what is trained in a prompt's place")
    pruning: PruningConfig = Field(PruningConfig(), description="xprompt: what is cut and how it is chosen")
    search: SearchConfig = Field(SearchConfig(), description="xprompt: which candidates are tried")
    selection: SelectionConfig = Field(SelectionConfig(), description="how choices are made and methods compared")
    settings: dict[str, dict[str, Any]] = key(
        {}, "by method, recipe keys that differ, as in {lora: {tuning.epochs: 10, adapter.rank: 128}}"
    )
    seed: int = key(0, "the first seed", ge=0, lt=2**32 - 1000)

    @field_validator("methods")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        _hold_to_names(value)
        if not value or len(set(value)) < len(value):
            raise PydanticCustomError("methods", "different methods, at least one")
        return value

    @field_validator("settings")
    @classmethod
    def _of_methods(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        _hold_to_names(tuple(value))
        return value

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as JSON and YAML hold it; without those that are each method's own unless named."""
        values = self.model_dump(mode="json", by_alias=True)
        del values["adapter"]["method"]
        for section, name in _OWN:
            if name not in getattr(self, section).model_fields_set:
                del values[section][name]
        return values

    def cell(self, method: str, seed: int) -> dict[str, Any]:
        """The keys of the run of one method on one seed; what nobody named is left to the method."""
        return cell_values(self.model_dump(mode="json", by_alias=True, exclude_unset=True), method, seed)


def cell_values(values: Mapping[str, Any], method: str, seed: int) -> dict[str, Any]:
    """What a comparison's keys say for one of its runs.

    Latency is measured, `report` is drawn alike on every seed, and XPrompt retrains nothing on fresh seeds (the
    comparison has seeds of its own), unless the recipe says otherwise.

    Args:
        values: the comparison's keys that were named, as YAML holds them.
        method: a known one.
        seed: of the run.
    """
    first = values.get("seed", 0)
    cell: dict[str, Any] = {
        "tuning": {"latency": True},
        "task": {"report_seed": first},
        "selection": {"seeds": 0},
    }
    merge(cell, {name: deepcopy(values[name]) for name in SECTIONS if name in values})
    settings = values.get("settings")
    merge(cell, nested(settings.get(method)) if isinstance(settings, Mapping) else {})
    if method in ADAPTERS:
        merge(cell, {"adapter": {"method": method}})
    return {**cell, "kind": _KINDS.get(method, "adapt"), "seed": seed}


def methods_of(values: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The methods that a comparison's keys name, or all; None where it names unknown ones."""
    named = parse_names(values.get("methods", METHODS))
    return named if isinstance(named, tuple) and all(name in METHODS for name in named) else None


def without_left_out(values: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """A comparison's keys less the settings that a recipe had for methods of its own which flags have left out.

    Args:
        values: the keys with what the flags changed.
        base: those of the recipe.
    """
    settings, before = values.get("settings"), base.get("settings")
    methods, own = methods_of(values), methods_of(base)
    if not (isinstance(settings, Mapping) and isinstance(before, Mapping)) or methods is None or own is None:
        return dict(values)
    dropped = {name for name in before if name in own and name not in methods and settings.get(name) == before[name]}
    return {**values, "settings": {name: keys for name, keys in settings.items() if name not in dropped}}


def nested(settings: object) -> dict[str, Any]:
    """Keys such as `tuning.epochs` as mappings in mappings; anything but a mapping is left out."""
    made: dict[str, Any] = {}
    for name, value in settings.items() if isinstance(settings, Mapping) else ():
        changes: Any = nested(value) if isinstance(value, Mapping) and "." not in str(name) else value
        for part in reversed(str(name).split(".")):
            changes = {part: changes}
        merge(made, changes)
    return made


def keys_of(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys of mappings in mappings."""
    found: list[str] = []
    for name, value in settings.items():
        found += keys_of(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [f"{prefix}{name}"]
    return found


def merge(target: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Puts changes into mappings in mappings, key by key."""
    for name, value in changes.items():
        if isinstance(value, Mapping) and isinstance(target.get(name), dict):
            merge(target[name], value)
        else:
            target[name] = dict(value) if isinstance(value, Mapping) else value


def _hold_to_names(names: tuple[str, ...]) -> None:
    for name in names:
        if name not in METHODS:
            raise PydanticCustomError("unknown_name", "a known method", {"name": name, "available": METHODS})
