"""The recipe keys of a comparison of methods (`kind: compare`), the recipe of each of its runs, and its mistakes."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from copy import deepcopy
from typing import Any, Final, Literal, get_args

from pydantic import Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from softprune.config.adapter_schema import CARTRIDGE, PREFIXES, WITH_PROMPT, AdapterConfig
from softprune.config.field_types import Names, RecipeBase, check_known, key, parse_names
from softprune.config.forms import FORMS, PLAIN
from softprune.config.recipe_fields import flat_fields
from softprune.config.schema import (
    BackboneConfig,
    PromptConfig,
    PruningConfig,
    Recipe,
    SearchConfig,
    SelectionConfig,
    TaskConfig,
    TuningConfig,
)
from softprune.config.validation_messages import explain_error
from softprune.errors import SoftpruneError

ADAPTERS: Final[tuple[str, ...]] = get_args(AdapterConfig.model_fields["method"].annotation)
FORM_METHODS: Final = tuple(name for name in FORMS if name != PLAIN)  # a prompt trained as something else
METHODS: Final = (*ADAPTERS, "prompt", *FORM_METHODS, "xprompt")
DEFAULT_METHODS: Final = tuple(method for method in METHODS if method != CARTRIDGE)  # which needs a document

SECTIONS: Final = ("backbone", "task", "prompt", "tuning", "adapter", "pruning", "search", "selection")
# No method has settings of its own for these: a comparison is of the same data, model and choices.
SHARED: Final = ("task", "selection", "seed", "kind", "schema", "backbone.name", "backbone.family", "adapter.method")

# Keys whose default is another one for each method (its own learning rate, say), or for a comparison.
_OWN: Final = (
    ("tuning", "lr"),
    ("tuning", "latency"),
    ("task", "report_seed"),
    ("selection", "seeds"),
    ("search", "token_ratios"),
    ("search", "piece_ratios"),
)

_KINDS: Final = {"prompt": "tune", "xprompt": "xprompt"} | dict.fromkeys(FORM_METHODS, "tune")
_STARTS: Final = ("init", "text", "file")  # the prompt's keys that say what it starts from


class CompareRecipe(RecipeBase):
    """All that a comparison depends on."""

    kind: Literal["compare"] = key("compare", "several methods side by side, on several seeds")
    methods: Names = key(DEFAULT_METHODS, "names of the methods; softprune methods describes each")
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
        check_known(value, METHODS)
        if not value or len(set(value)) < len(value):
            raise PydanticCustomError("methods", "different methods, at least one")
        return value

    @field_validator("settings")
    @classmethod
    def _of_methods(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        check_known(value, METHODS)
        return value

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, as JSON and YAML hold it; without those that are each method's own unless named."""
        values = self.model_dump(mode="json", by_alias=True)
        del values["adapter"]["method"], values["prompt"]["form"]
        for section, name in _OWN:
            if name not in getattr(self, section).model_fields_set:
                del values[section][name]
        return values

    def cell(self, method: str, seed: int) -> dict[str, Any]:
        """The recipe keys of one method's run on one seed; those that weren't named have the method's defaults."""
        return _make_cell(self.model_dump(mode="json", by_alias=True, exclude_unset=True), method, seed)


def _make_cell(values: Mapping[str, Any], method: str, seed: int) -> dict[str, Any]:
    """What a comparison's keys (those that were named, as YAML holds them) say for one of its runs.

    Latency is measured, `report` is drawn alike on every seed, and XPrompt retrains nothing on fresh seeds (the
    comparison has seeds of its own), unless the recipe says otherwise.
    """
    cell: dict[str, Any] = {
        "tuning": {"latency": True},
        "task": {"report_seed": values.get("seed", 0)},
        "selection": {"seeds": 0},
    }
    merge(cell, {name: deepcopy(values[name]) for name in SECTIONS if name in values})
    if method in FORM_METHODS:
        prompt = cell.get("prompt", {})
        if FORMS[method].start and isinstance(prompt, dict):  # as adapters, it starts as nothing that a prompt may
            cell["prompt"] = {key: value for key, value in prompt.items() if key not in _STARTS}
        merge(cell, {"prompt": {"form": method}})
    settings = values.get("settings")
    merge(cell, nested(settings.get(method)) if isinstance(settings, Mapping) else {})
    if method in ADAPTERS:
        merge(cell, {"adapter": {"method": method}})
        _drop_unread_start(cell)
    return {**cell, "kind": _KINDS.get(method, "adapt"), "seed": seed}


def _drop_unread_start(cell: dict[str, Any]) -> None:
    """Leave out what a comparison says for its other methods, and an adapter alone would be refused for."""
    prompt, adapter = cell.get("prompt"), cell["adapter"]
    if not isinstance(adapter, dict):
        return
    if adapter["method"] not in PREFIXES:
        adapter.pop("start", None)
    if adapter["method"] != CARTRIDGE:
        adapter.pop("document", None)
    reads_prompt = adapter.get("start", "random") != "random" or adapter["method"] in WITH_PROMPT
    if not reads_prompt and isinstance(prompt, dict):
        cell["prompt"] = {key: value for key, value in prompt.items() if key not in _STARTS}


def _read_methods(values: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The methods that a comparison's keys name, or all; None where it names unknown ones."""
    named = parse_names(values.get("methods", DEFAULT_METHODS))
    return named if isinstance(named, tuple) and all(name in METHODS for name in named) else None


def drop_unused_settings(values: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """The keys without the settings of their recipe (`base`) for methods that it compares and that flags left out.

    Else `--methods` with fewer methods than the recipe's would be refused for these settings.
    """
    settings, before = values.get("settings"), base.get("settings")
    methods, recipe_methods = _read_methods(values), _read_methods(base)
    if not (isinstance(settings, Mapping) and isinstance(before, Mapping)) or methods is None or recipe_methods is None:
        return dict(values)
    dropped = {name: before[name] for name in recipe_methods if name in before and name not in methods}
    used = {name: keys for name, keys in settings.items() if name not in dropped or keys != dropped[name]}
    return {**values, "settings": used}


def find_method_errors(values: Mapping[str, Any], known: Container[tuple[Any, str]]) -> list[SoftpruneError]:
    """Mistakes in the settings of a comparison's methods, which the schema alone doesn't show.

    Those in keys of the whole comparison are `known` by place and type, and aren't reported again.
    """
    errors: list[SoftpruneError] = []
    settings, adapter, methods = values.get("settings"), values.get("adapter"), _read_methods(values)
    prompt = values.get("prompt")
    for name, section in (("adapter.method", adapter), ("prompt.form", prompt)):
        if isinstance(section, Mapping) and name.partition(".")[2] in section:
            errors.append(SoftpruneError("methods alone to say what is compared", name, "leave it out"))
    for method, own in settings.items() if isinstance(settings, Mapping) else ():
        if method not in METHODS or not isinstance(own, Mapping):
            continue  # pydantic reports it
        if methods is not None and method not in methods:
            found = f"settings.{method}; methods are {', '.join(methods)}"
            do = f"name {method} in methods, or leave settings.{method} out"
            errors.append(SoftpruneError("settings for methods that are compared", found, do))
        # XPrompt may prune a prompt of any form; every other method is one form, or none.
        shared = keys_below(own, SHARED if method == "xprompt" else (*SHARED, "prompt.form"))
        if shared:
            expected = f"settings.{method}: keys that may differ between methods"
            do = "set it for the whole comparison, or make two of them"
            errors.append(SoftpruneError(expected, ", ".join(shared), do))
        for error in find_recipe_errors(_make_cell(values, method, 0), known):
            errors.append(SoftpruneError(f"settings.{method}: {error.expected}", error.found, error.do))
    return errors


def find_recipe_errors(values: Mapping[str, Any], known: Container[tuple[Any, str]] = ()) -> list[SoftpruneError]:
    """The mistakes in the recipe of a single run, but for known ones (place and type)."""
    try:
        Recipe.model_validate(values)
    except ValidationError as error:
        fields, mistakes = flat_fields(Recipe), error.errors(include_url=False)
        return [explain_error(each, fields) for each in mistakes if (each["loc"], each["type"]) not in known]
    return []


def nested(settings: object) -> dict[str, Any]:
    """Keys such as `tuning.epochs` as mappings in mappings; anything but a mapping is left out."""
    sections: dict[str, Any] = {}
    for name, value in settings.items() if isinstance(settings, Mapping) else ():
        changes: Any = nested(value) if isinstance(value, Mapping) and "." not in str(name) else value
        for part in reversed(str(name).split(".")):
            changes = {part: changes}
        merge(sections, changes)
    return sections


def keys_of(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys of mappings in mappings."""
    keys: list[str] = []
    for name, value in settings.items():
        keys += keys_of(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [f"{prefix}{name}"]
    return keys


def keys_below(settings: Mapping[str, Any], sections: Sequence[str]) -> list[str]:
    """The dotted keys that are among these sections or keys, or inside one of them."""
    return [key for key in keys_of(nested(settings)) if any(f"{key}.".startswith(f"{each}.") for each in sections)]


def merge(target: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Puts changes into mappings in mappings, key by key."""
    for name, value in changes.items():
        if isinstance(value, Mapping) and isinstance(target.get(name), dict):
            merge(target[name], value)
        else:
            target[name] = dict(value) if isinstance(value, Mapping) else value
