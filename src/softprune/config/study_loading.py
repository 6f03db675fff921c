"""From YAML and overrides to a `Study`, with every mistake in one message: its own, and those in its runs' recipes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from softprune.config.comparison_schema import keys_of, nested
from softprune.config.loading import Names, parse_recipe, study_text, validate
from softprune.config.registry import unknown
from softprune.config.schema import Recipe, flat_fields
from softprune.config.study_schema import Published, Scale, Study, Variant
from softprune.config.validation_messages import explain_error
from softprune.errors import SoftpruneError

_OWN: Final = {"schema", *Study.model_fields} - {"schema_", "backbone"}
"""Keys of studies, but for `backbone`: `backbone=...` is one, `backbone.dtype=...` a key of runs."""
_MEANT: Final = {"backbone.name": "backbone", "task.id": "tasks", "task.data": "data"}
"""Recipe keys that a study has under another name."""
_THE_STUDYS: Final = ("schema", "backbone.name", "task.id", "seed", "executor", "cluster")
"""Recipe keys that the study itself says of all its runs; a variant may name a backbone of its own."""


def load_study(path_or_name: str | Path, overrides: Sequence[str] = (), *, names: Names | None = None) -> Study:
    """A study from a shipped name or a file. An override of no key of a study is one of the recipes of all its runs.

    Raises:
        SoftpruneError: with every mistake in it (`ManyErrors` when there is more than one).
    """
    where = f"study {path_or_name}"
    values = parse_recipe(study_text(path_or_name), where)
    if values.get("kind") != "study":
        found = f"kind: {values.get('kind', 'xprompt')} in {path_or_name}"
        raise SoftpruneError("a study", found, f"softprune run {shlex.quote(str(path_or_name))}")
    changes = [change for text in overrides for change in _changes(values, text)]
    more = [replace(field, key=f"change.{field.key}") for field in flat_fields(Recipe)]
    parts: dict[str, type[BaseModel]] = {"variants": Variant, "published": Published, "scales": Scale}
    more += [replace(f, key=f"{name}.*.{f.key}") for name, of in parts.items() for f in flat_fields(of)]
    further = _further(values, overrides)
    return validate(Study, values, changes, where, names, what="a study", more_fields=more, find_more=further)


def _changes(values: Mapping[str, Any], override: str) -> Iterator[str]:
    """What an override changes in a study's YAML."""
    key, equals, value = override.partition("=")
    if not equals:
        yield override  # refused where overrides are read
        return
    key = _MEANT.get(key.strip(), key.strip())
    if key != "backbone" and key.partition(".")[0] not in _OWN:
        yield f"change.{key}{equals}{value}"
        return
    yield f"{key}{equals}{value}"
    for scale, options in _options(values).items():
        if scale and key.removeprefix("options.") in options:  # what a scale says would win over it
            yield f"scales.{scale}.{key}{equals}{value}"


def _options(values: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The experiment's options by the scale that has them; under the empty name those of every scale."""
    scales = values.get("scales")
    places = {"": values, **(scales if isinstance(scales, Mapping) else {})}
    found = {name: place.get("options") for name, place in places.items() if isinstance(place, Mapping)}
    return {str(name): options for name, options in found.items() if isinstance(options, Mapping)}


def _further(read: Mapping[str, Any], overrides: Sequence[str]) -> Any:
    """Finds what is wrong with options and with the recipes of the runs."""
    known = {str(name) for options in _options(read).values() for name in options}
    asked = [text.partition("=")[0].strip() for text in overrides if text.strip().startswith("options.")]
    names = [key.removeprefix("options.") for key in asked]

    def mistakes(values: Mapping[str, Any]) -> list[SoftpruneError]:
        return [*(unknown("option of the study", n, known) for n in names if n not in known), *_of_runs(values)]

    return mistakes


def _of_runs(values: Mapping[str, Any]) -> list[SoftpruneError]:
    """What is wrong with the recipes of runs, each mistake once."""
    study = _readable(values)
    if study is None:
        return []
    errors = list(_not_theirs(study))
    seen: set[str] = set()
    variants = {f"variant {variant.name}: ": variant.keys for variant in study.variants}
    for where, keys in {"": {}, **variants}.items():
        for task in study.size.tasks or ("task",):
            for error in _of_recipe(study.run(task, study.seed, keys)):
                if str(error) not in seen:
                    seen.add(str(error))
                    errors.append(SoftpruneError(f"{where}{error.expected} (recipe of a run)", error.found, error.do))
    return errors


def _of_recipe(values: Mapping[str, Any]) -> list[SoftpruneError]:
    try:
        Recipe.model_validate(values)
    except ValidationError as error:
        return [explain_error(details, flat_fields(Recipe)) for details in error.errors(include_url=False)]
    return []


def _not_theirs(study: Study) -> Iterator[SoftpruneError]:
    """Keys of runs that are the study's to say."""
    of_all = {"keys": study.keys, "change": study.change}
    of_all |= {f"by_task.{task}": keys for task, keys in study.by_task.items()}
    of_all |= {f"scales.{name}.keys": scale.keys for name, scale in study.scales.items()}
    for where, keys in of_all.items():
        yield from _held(where, keys, _THE_STUDYS)
    for variant in study.variants:
        yield from _held(f"variant {variant.name}", variant.keys, [k for k in _THE_STUDYS if k != "backbone.name"])


def _held(where: str, keys: Mapping[str, Any], not_theirs: Sequence[str]) -> Iterator[SoftpruneError]:
    found = [key for key in keys_of(nested(keys)) if any(f"{key}.".startswith(f"{name}.") for name in not_theirs)]
    if found:
        do = "leave it out: the study's own backbone, tasks, seed, executor and cluster say it"
        yield SoftpruneError(f"{where} without what the study says of all its runs", ", ".join(found), do)


def _readable(values: Mapping[str, Any]) -> Study | None:
    """The study without its wrong keys, whose mistakes are reported already."""
    try:
        return Study.model_validate(values)
    except ValidationError as error:
        wrong = [details["loc"] for details in error.errors() if details["loc"]]
    return _valid(_without(values, wrong)) or _valid(_without(values, [where[:1] for where in wrong]))


def _valid(values: Mapping[str, Any]) -> Study | None:
    try:
        return Study.model_validate(values)
    except ValidationError:
        return None


def _without(values: Mapping[str, Any], wrong: Sequence[tuple[int | str, ...]]) -> dict[str, Any]:
    """The values without keys that are wrong, and with something for what is required."""
    kept = deepcopy(dict(values))
    for where in wrong:
        inner: Any = kept
        for part in where[:-1]:
            known = isinstance(inner, list) if isinstance(part, int) else isinstance(inner, dict) and part in inner
            inner = inner[part] if known else None
        if isinstance(inner, dict):
            inner.pop(where[-1], None)
    variants = kept.get("variants")
    for number, variant in enumerate(variants if isinstance(variants, list) else (), start=1):
        if isinstance(variant, dict):
            kept["variants"][number - 1] = {"name": str(number), "label": "?"} | variant
    return {"title": "?"} | kept
