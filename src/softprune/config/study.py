"""The keys of a study (`kind: study`): a matrix of runs that answers one question of a paper, at one of two scales.

`load_study` reads one with every mistake in one message: its own, and those in its runs' recipes.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from softprune.config.comparison_schema import find_recipe_errors, keys_below, merge, nested
from softprune.config.field_types import Names, RecipeBase, Section, key
from softprune.config.loading import NameChecks, recipe_text, validate
from softprune.config.recipe_fields import flat_fields
from softprune.config.registry import unknown
from softprune.config.schema import ClusterConfig, Recipe
from softprune.config.yaml_io import parse_keys
from softprune.errors import SoftpruneError


class Published(Section):
    """A table as its source prints it."""

    title: str = key("", "what it is, with its number in the source")
    columns: tuple[str, ...] = key((), "names of the columns, that of the rows first")
    rows: tuple[tuple[str, ...], ...] = key([], "the cells as texts, the row's name first")
    note: str = key("", "what a reader must know of it")

    @field_validator("columns", mode="before")
    @classmethod
    def _list(cls, value: Any) -> object:
        return tuple(map(str, value)) if isinstance(value, list) else value

    @field_validator("rows", mode="before")
    @classmethod
    def _lists(cls, value: Any, info: ValidationInfo) -> object:
        many = len(info.data.get("columns", ()))
        if not isinstance(value, list) or not all(isinstance(row, list) and len(row) == many for row in value):
            raise PydanticCustomError("rows", "a list of rows, each a list of {many} cells", {"many": many})
        return tuple(tuple(map(str, row)) for row in value)


class Variant(Section):
    """One setting that a study compares with others: recipe keys that replace the study's own in its runs."""

    name: str = Field(min_length=1, description="short, for ids")
    label: str = Field(min_length=1, description="as tables have it")
    row: Literal["winner", "tuned", "control", "random", "adapted"] = key("winner", "which result of its runs counts")
    keys: dict[str, Any] = key({}, "recipe keys of its runs, nested or dotted; kind too")


class Scale(Section):
    """How large a study is made."""

    backbone: str = key("tiny", "the model", min_length=1)
    tasks: Names = key((), "ids of the tasks")
    seeds: int = key(1, "runs of each sort: seed, seed + 1, ...", ge=1)
    keys: dict[str, Any] = key({}, "recipe keys of all runs")
    options: dict[str, Any] = key({}, "of the experiment")
    hardware: str = key("", "what it was made for")
    hours: str = key("", "how long that takes, and whether it was measured")

    @property
    def takes(self) -> str:
        """`hours` with the unit behind the number that it begins with, where nothing else is."""
        return re.sub(r"^((?:about )?\d+(?:\.\d+)?)(?=$|[,;]| (?:of|and) )", r"\1 hours", self.hours)


class Study(RecipeBase):
    """All that a study depends on."""

    kind: Literal["study"] = key("study", "a matrix of runs that makes a table")
    title: str = Field(min_length=1, description="what it is about")
    source: str = key("", "where it was published")
    question: str = key("", "what it answers")
    experiment: str = key("variants", "what is done with the runs", min_length=1)
    keys: dict[str, Any] = key({}, "recipe keys of all runs, at every scale")
    by_task: dict[str, dict[str, Any]] = key({}, "the same by task")
    options: dict[str, Any] = key({}, "of the experiment, at every scale")
    # Not strict: YAML has lists, and no tuples.
    variants: tuple[Variant, ...] = key((), "what is compared", strict=False)
    published: tuple[Published, ...] = key((), "the source's tables", strict=False)
    scales: dict[Literal["smoke", "full"], Scale] = key({}, "its sizes")
    scale: Literal["smoke", "full"] = key("smoke", "smoke: minutes on two cores; full: as published")
    backbone: str | None = key(None, "the model; none is the scale's", min_length=1)
    tasks: Names = key((), "ids of the tasks; empty for the scale's")
    seeds: int | None = key(None, "runs of each sort; none is the scale's", ge=1)
    seed: int = key(0, "the first seed", ge=0, lt=2**32 - 1000)
    data: str | None = key(None, "folder with the data of the tasks; none loads from the hub")
    change: dict[str, Any] = key({}, "recipe keys of all runs that win over the study's own")
    executor: Literal["in-process", "ray"] = key("in-process", "what makes the runs: this process or Ray")
    cluster: ClusterConfig = Field(ClusterConfig(), description="where Ray does it")

    @field_validator("scale")
    @classmethod
    def _there(cls, value: str, info: ValidationInfo) -> str:
        scales = info.data.get("scales")
        if scales and value not in scales:
            raise PydanticCustomError("scale", "a scale that the study has: {scales}", {"scales": ", ".join(scales)})
        return value

    @property
    def size(self) -> Scale:
        """The scale with what was asked for in its place; a study without any has the defaults."""
        asked = {"backbone": self.backbone, "tasks": self.tasks or None, "seeds": self.seeds}
        update = {name: value for name, value in asked.items() if value is not None}
        return self.scales.get(self.scale, Scale()).model_copy(update=update)

    @property
    def settings(self) -> dict[str, Any]:
        """The experiment's options at this scale."""
        return {**self.options, **self.size.options}

    @property
    def matters(self) -> dict[str, Any]:
        """What the findings depend on at this scale: no texts for readers, and not where the work is done."""
        own = self.model_dump(mode="json", include={"experiment", "keys", "by_task", "seed", "data", "change"})
        size = self.size.model_dump(mode="json", exclude={"hardware", "hours", "options"})
        return {
            **own,
            "scale": {"name": self.scale, **size},
            "options": self.settings,
            "variants": {variant.name: variant.model_dump(mode="json") for variant in self.variants},
            "order of variants": [variant.name for variant in self.variants],
        }

    def run(self, task: str, seed: int, keys: Mapping[str, Any]) -> dict[str, Any]:
        """The recipe keys of one run; keys that aren't named have the recipe's defaults.

        `keys` are of this run alone: they win over the study's (a backbone too), but not over what the user changed.
        """
        task_keys: dict[str, Any] = {"id": task, "report_seed": self.seed}
        if self.data is not None:
            task_keys["data"] = self.data
        values: dict[str, Any] = {"backbone": {"name": self.size.backbone}, "task": task_keys, "seed": seed}
        for more in (self.keys, self.by_task.get(task, {}), self.size.keys, keys, self.change):
            merge(values, nested(deepcopy(dict(more))))
        return values


# Without `backbone`: `backbone=...` is a key of the study, `backbone.dtype=...` one of its runs.
_STUDY_KEYS: Final = {"schema", *Study.model_fields} - {"schema_", "backbone"}
# Recipe keys that a study has under another name.
_STUDY_NAMES: Final = {"backbone.name": "backbone", "task.id": "tasks", "task.data": "data"}
# Recipe keys that the study sets for all its runs.
_RESERVED: Final = ("schema", "backbone.name", "task.id", "seed", "executor", "cluster")


def load_study(path_or_name: str | Path, overrides: Sequence[str] = (), *, names: NameChecks | None = None) -> Study:
    """A study from a shipped name or a file. An override that isn't of a study's key changes the recipes of its runs.

    Raises:
        SoftpruneError: with every mistake in it (`ManyErrors` when there is more than one).
    """
    where = f"study {path_or_name}"
    values = parse_keys(recipe_text(path_or_name, "study"), where)
    if values.get("kind") != "study":
        found = f"kind: {values.get('kind', 'xprompt')} in {path_or_name}"
        raise SoftpruneError("a study", found, f"softprune run {shlex.quote(str(path_or_name))}")
    options = _options_by_scale(values)
    known = {str(name) for each in options.values() for name in each}
    changes: list[str] = []
    errors: list[SoftpruneError] = []
    for override in overrides:
        changes += _translate_override(override, options)
        section, dot, name = override.partition("=")[0].strip().partition(".")
        if dot and section == "options" and name not in known:
            errors.append(unknown("option of the study", name, known))
    more = [replace(field, key=f"change.{field.key}") for field in flat_fields(Recipe)]
    for part, model in (("variants", Variant), ("published", Published), ("scales", Scale)):
        more += [replace(field, key=f"{part}.*.{field.key}") for field in flat_fields(model)]

    def find_more(values: Mapping[str, Any]) -> list[SoftpruneError]:
        return [*errors, *_find_run_errors(values)]

    return validate(Study, values, changes, where, names, what="a study", more_fields=more, find_more=find_more)


def _options_by_scale(values: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The experiment's options by the scale that has them; under the empty name those of every scale."""
    scales = values.get("scales")
    places = {"": values, **(scales if isinstance(scales, Mapping) else {})}
    options = {}
    for name, place in places.items():
        if isinstance(place, Mapping) and isinstance(place.get("options"), Mapping):
            options[str(name)] = place["options"]
    return options


def _translate_override(override: str, options: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What an override of a study or of its runs changes in the study's YAML."""
    key, equals, value = override.partition("=")
    if not equals:
        return [override]  # refused where overrides are read
    key = _STUDY_NAMES.get(key.strip(), key.strip())
    if key != "backbone" and key.partition(".")[0] not in _STUDY_KEYS:
        return [f"change.{key}{equals}{value}"]
    changes = [f"{key}{equals}{value}"]
    for scale, own in options.items():
        if scale and key.removeprefix("options.") in own:  # what a scale says would win over it
            changes.append(f"scales.{scale}.{key}{equals}{value}")
    return changes


def _find_run_errors(values: Mapping[str, Any]) -> list[SoftpruneError]:
    """What is wrong with the recipes of a study's runs, each mistake once."""
    study = _read_valid_part(values)
    if study is None:
        return []
    errors: list[SoftpruneError] = []
    variants = {f"variant {variant.name}": variant.keys for variant in study.variants}
    places = {"keys": study.keys, "change": study.change}
    places |= {f"by_task.{task}": keys for task, keys in study.by_task.items()}
    places |= {f"scales.{name}.keys": scale.keys for name, scale in study.scales.items()}
    for place, keys in (places | variants).items():
        found = keys_below(keys, _RESERVED)
        if place in variants and "backbone.name" in found:  # a variant may be of another model
            found.remove("backbone.name")
        if found:
            do = "leave it out: the study's own backbone, tasks, seed, executor and cluster say it"
            expected = f"{place} without what the study says of all its runs"
            errors.append(SoftpruneError(expected, ", ".join(found), do))
    seen: set[str] = set()
    for place, keys in {"": {}, **variants}.items():
        where = f"{place}: " if place else ""
        for task in study.size.tasks or ("task",):
            for error in find_recipe_errors(study.run(task, study.seed, keys)):
                if str(error) not in seen:  # most mistakes are those of every task and variant
                    seen.add(str(error))
                    errors.append(SoftpruneError(f"{where}{error.expected} (recipe of a run)", error.found, error.do))
    return errors


def _read_valid_part(values: Mapping[str, Any]) -> Study | None:
    """The study without its wrong keys, whose mistakes are reported already; None where nothing valid is left."""
    try:
        return Study.model_validate(values)
    except ValidationError as error:
        wrong = [details["loc"] for details in error.errors() if details["loc"]]
    # If a wrong key can't be left out by itself, its whole section is.
    for places in (wrong, [place[:1] for place in wrong]):
        try:
            return Study.model_validate(_without(values, places))
        except ValidationError:
            continue
    return None


def _without(values: Mapping[str, Any], wrong: Sequence[tuple[int | str, ...]]) -> dict[str, Any]:
    """The values without keys that are wrong, and with something for what is required."""
    kept = deepcopy(dict(values))
    for *sections, name in wrong:
        inner: Any = kept
        try:
            for section in sections:
                inner = inner[section]
        except (LookupError, TypeError):
            continue  # pydantic's places also hold names that are none of the values, such as `[key]`
        if isinstance(inner, dict):
            inner.pop(name, None)
    variants = kept.get("variants")
    for number, variant in enumerate(variants if isinstance(variants, list) else (), start=1):
        if isinstance(variant, dict):
            kept["variants"][number - 1] = {"name": str(number), "label": "?"} | variant
    return {"title": "?"} | kept
