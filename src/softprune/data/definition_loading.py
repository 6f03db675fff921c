"""From a task's YAML to its definition, with every mistake of the file in one message."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from softprune.config.registry import unknown
from softprune.config.yaml_io import check_writable, parse_yaml, plain
from softprune.data.definition import (
    GENERATORS,
    MASK,
    ROW_READERS,
    Definition,
    FieldSpec,
    FileSource,
    GeneratedSource,
    HubSource,
    Source,
    Sources,
    label_key,
    named_sources,
    names_in,
    needed_names,
)
from softprune.data.metrics import METRICS
from softprune.data.multitask import join_definitions
from softprune.data.row_files import ENDINGS, file_format
from softprune.errors import ManyErrors, SoftpruneError
from softprune.text_encoding import how_to_convert

_SECTIONS: dict[tuple[str, ...], type[BaseModel]] = {
    (): Definition,
    ("sources",): Sources,
    ("sources", "file"): FileSource,
    ("sources", "official"): FileSource,
    ("sources", "hub"): HubSource,
    ("sources", "generated"): GeneratedSource,
}


def read_definition(path: Path) -> Definition:
    """Read and check a task's YAML.

    Raises:
        SoftpruneError: when it can't be read as YAML, or for its one mistake.
        ManyErrors: with every mistake in it.
    """
    try:
        data = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        found = f"no file {path}" if isinstance(error, FileNotFoundError) else f"{path}: {error.strerror}"
        raise SoftpruneError("a task YAML", found, "check the path") from None
    except UnicodeDecodeError as error:
        found = f"byte 0x{error.object[error.start]:02x} in {path}"
        raise SoftpruneError("a task YAML in UTF-8", found, how_to_convert(error.object, path)) from None
    except yaml.YAMLError as error:
        found = " ".join(str(error).split())
        raise SoftpruneError(f"YAML in UTF-8 in {path}", found, "fix the file's syntax") from None
    except ValueError:  # a path with a NUL
        raise SoftpruneError("a task YAML", f"no file {str(path)!r}", "check the path") from None
    check_writable(data, f"task {path}")
    if isinstance(data, dict) and "parts" in data:
        do = "remove it; tasks are joined by name: --task trec+ag_news"
        raise SoftpruneError("a file of one task", f"`parts` in {path}", do)
    return check_definition(data, path)


def check_definition(data: Any, path: Path) -> Definition:
    """Check what a task's YAML says, or what a ticket's file says of its task.

    Args:
        data: its value.
        path: the file, which gives the task its name where it states none.

    Raises:
        SoftpruneError: for its one mistake.
        ManyErrors: with every mistake in it.
    """
    parts = data.get("parts") if isinstance(data, dict) else None
    if isinstance(parts, list) and parts:  # of a ticket for several tasks: what they have together follows
        return join_definitions([check_definition(part, path) for part in parts])
    try:
        definition = Definition.model_validate({"id": _task_id(path), **data} if isinstance(data, dict) else data)
    except ValidationError as error:
        raise _combine(path, _translate(error)) from None
    mistakes = [*_template_mistakes(definition)]
    mistakes += _target_mistakes(definition) if definition.is_generation else _answer_mistakes(definition)
    mistakes += _name_mistakes(definition)
    mistakes += _source_mistakes(definition)
    if mistakes:
        raise _combine(path, mistakes)
    return definition


def _task_id(path: Path) -> str:
    return re.sub(r"[^a-z0-9_]+", "_", path.stem.lower()).strip("_") or "task"


def _combine(path: Path, mistakes: Sequence[SoftpruneError]) -> SoftpruneError:
    if len(mistakes) > 1:
        return ManyErrors(f"task {path}", mistakes)
    only = mistakes[0]
    return SoftpruneError(only.expected, f"{only.found} in {path}", only.do)


def _translate(error: ValidationError) -> list[SoftpruneError]:
    """Pydantic's errors in our words, those of values that YAML read as something other than text in one message."""
    items = error.errors(include_url=False)
    unquoted = [item for item in items if _is_unquoted(item)]
    # A list whose values aren't text counts as too short as well: that is one mistake, reported once.
    reported = {item["loc"][:-1] for item in unquoted}
    mistakes = [_mistake(item) for item in items if item not in unquoted and item["loc"] not in reported]
    if unquoted:
        mistakes.append(_unquoted_mistake(unquoted))
    return mistakes


def _is_unquoted(item: ErrorDetails) -> bool:
    is_scalar = item["input"] is not None and not isinstance(item["input"], str | list | dict)
    return item["type"] == "string_type" and is_scalar


def _unquoted_mistake(items: Sequence[ErrorDetails]) -> SoftpruneError:
    keys = list(dict.fromkeys(f"`{_key(item).removesuffix('.[key]')}`" for item in items))
    values = list(dict.fromkeys(label_key(item["input"]) for item in items))
    hint = " (YAML reads yes, no, on and off as true and false)" if {"true", "false"} & set(values) else ""
    return SoftpruneError(f"text in {', '.join(keys)}", f"{', '.join(values)}{hint}", 'put it in quotes, as in "yes"')


def _mistake(item: ErrorDetails) -> SoftpruneError:
    key = _key(item)
    section = tuple(str(part) for part in item["loc"][:-1])
    if item["type"] == "extra_forbidden":
        known = _SECTIONS.get(section, FieldSpec).model_fields
        return unknown(f"key of {'.'.join(section) or 'a task'}", str(item["loc"][-1]), known)
    if item["type"] == "missing":
        return SoftpruneError(f"`{key}`", "no such key", "add it")
    return SoftpruneError(f"`{key}`: {plain(item['msg'])}", reprlib.repr(item["input"]), "correct the value")


def _key(item: ErrorDetails) -> str:
    return ".".join(map(str, item["loc"])) or "the file"


def _template_mistakes(definition: Definition) -> list[SoftpruneError]:
    names, fields = names_in(definition.template), tuple(definition.fields)
    mistakes = []
    if names.count(MASK) != 1:
        found = f"{names.count(MASK)} of them"
        mistakes.append(SoftpruneError("one {mask} in `template`", found, "mark the answer's place once"))
    used = [("template", name) for name in names if name != MASK]
    if not definition.is_generation:
        for answer in definition.answers:
            used += [("answers", name) for name in names_in(answer)]
    for key, name in used:
        if name not in fields:
            expected = f"fields that exist in `{key}` ({', '.join(fields)})"
            mistakes.append(SoftpruneError(expected, f"{{{name}}}", "declare it under `fields` or correct the name"))
    return mistakes


def _target_mistakes(definition: Definition) -> list[SoftpruneError]:
    """What doesn't go with a text to be written, where there is nothing to choose from."""
    mistakes, target = [], definition.target
    if definition.answers != (f"{{{target}}}",):
        found, do = ", ".join(definition.answers), "remove one of them"
        mistakes.append(SoftpruneError("`target` (a text to write) or `answers` (to choose from)", found, do))
    if definition.targets != "text":
        mistakes.append(SoftpruneError("`targets: text` beside `target`", definition.targets, "correct one of them"))
    if target in definition.fields:
        found = f"{target}, which the model would then read"
        do = "remove it from `fields`; what the model reads and what it writes differ"
        mistakes.append(SoftpruneError("a `target` that is no field of the input", found, do))
    for key, default in (("gold", "label"), ("positive", None)):
        value = getattr(definition, key)
        if value != default:
            mistakes.append(SoftpruneError(f"no `{key}` beside `target`", value, "remove it: there is no label"))
    known = [name for name, metric in METRICS.items() if metric.reads == "texts"]
    if definition.metric in METRICS and definition.metric not in known:
        expected, do = f"a metric of written texts ({', '.join(known)})", "choose one of them, or remove `metric`"
        mistakes.append(SoftpruneError(expected, definition.metric, do))
    for layout, source in named_sources(definition.sources).items():
        if source.labels:
            expected = f"no labels in `sources.{layout}` beside `target`"
            mistakes.append(SoftpruneError(expected, ", ".join(source.labels), "remove them"))
    return mistakes


def _answer_mistakes(definition: Definition) -> list[SoftpruneError]:
    mistakes, answers = [], ", ".join(definition.answers)
    if definition.targets == "text":
        do = "name the text to be written, as in target: highlights, instead of `answers`"
        return [SoftpruneError("`target` beside `targets: text`", "none", do)]
    if len(definition.answers) < 2:
        do = "add one; for a text that is to be written, name its column as `target` instead"
        return [SoftpruneError("`answers`: at least 2 to choose from", answers or "none", do)]
    if definition.metric in METRICS and METRICS[definition.metric].reads != "answers":
        do = "choose accuracy or f1, or name a text to be written as `target`"
        mistakes.append(SoftpruneError("a metric of answers", definition.metric, do))
    if len(set(definition.answers)) < len(definition.answers):
        mistakes.append(SoftpruneError("`answers` that differ", answers, "give each answer once"))
    if definition.positive is not None and definition.positive not in definition.answers:
        expected = f"`positive` among the answers ({answers})"
        mistakes.append(SoftpruneError(expected, f'"{definition.positive}"', "name the answer that F1 counts"))
    for layout, source in named_sources(definition.sources).items():
        mistakes += _label_mistakes(definition, layout, source)
    return mistakes


def _label_mistakes(definition: Definition, layout: str, source: Source) -> list[SoftpruneError]:
    if not source.labels:
        do = f'say which label means which answer, as in labels: {{0: "{definition.answers[0]}"}}'
        return [SoftpruneError(f"`sources.{layout}.labels`, since answers hold field names", "none", do)]
    expected = f"labels of sources.{layout} that lead to an answer ({', '.join(definition.answers)})"
    return [
        SoftpruneError(expected, f"{label} -> {answer}", "correct the label map")
        for label, answer in source.labels.items()
        if answer not in definition.answers
    ]


def _name_mistakes(definition: Definition) -> list[SoftpruneError]:
    """Names of things that softprune doesn't have."""
    named: list[tuple[str, str, Iterable[str]]] = [("metric", definition.metric, METRICS)]
    for source in named_sources(definition.sources).values():
        if source.rows:
            named.append(("row reader", source.rows, ROW_READERS.names()))
        if isinstance(source, GeneratedSource):
            named.append(("generator", source.generator, GENERATORS.names()))
    mistakes = [unknown(kind, name, known) for kind, name, known in named if name not in known]
    metric = METRICS.get(definition.metric)
    if metric is not None and metric.needs_positive and definition.positive is None:
        expected = f"`positive` beside the metric {metric.name}"
        mistakes.append(SoftpruneError(expected, "none", "name the answer that F1 counts"))
    return mistakes


def _source_mistakes(definition: Definition) -> list[SoftpruneError]:
    mistakes: list[SoftpruneError] = []
    sources, needed = named_sources(definition.sources), needed_names(definition)
    if not sources:
        mistakes.append(SoftpruneError("at least one source", "none under `sources`", "say where the rows are"))
    for layout, source in sources.items():
        expected = f"columns of sources.{layout} for names in use ({', '.join(needed)})"
        for name in sorted(set(source.columns) - set(needed)):
            mistakes.append(SoftpruneError(expected, f"`{name}`", "remove it or correct its spelling"))
        if isinstance(source, FileSource):
            mistakes += _file_mistakes(f"sources.{layout}", source)
    return mistakes


def _file_mistakes(key: str, source: FileSource) -> list[SoftpruneError]:
    mistakes, files = [], source.files
    named = ", ".join(files) or "none"
    if "train" not in files:
        mistakes.append(SoftpruneError(f"a file to train on in `{key}.files`", named, "add train: FILE"))
    if not {"dev", "validation"} & set(files) and source.held_out is None:
        do = "add validation: FILE there, or held_out: 0.2 beside `files`"
        mistakes.append(SoftpruneError(f"something to report on in `{key}.files`", named, do))
    for split in source.where:
        if split not in files:
            do = f"add {split}: FILE to `files`, or remove it"
            mistakes.append(SoftpruneError(f"`{key}.where` for splits with a file ({named})", split, do))
    if "validation" in files and source.held_out is not None:
        found = f"validation: {files['validation']} and held_out: {source.held_out}"
        mistakes.append(SoftpruneError(f"one validation set in `{key}`", found, "remove one of them"))
    unclear = [name for name in files.values() if source.format is None and file_format(Path(name)) is None]
    if unclear:
        expected = f"files in `{key}` that end in {', '.join(ENDINGS)} (or .gz, .xz)"
        mistakes.append(SoftpruneError(expected, ", ".join(unclear), "add format: jsonl, csv or parquet"))
    return mistakes
