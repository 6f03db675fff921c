"""From a task's YAML to its definition, with every mistake of the file in one message."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from softprune.config.registry import unknown
from softprune.config.yaml_io import parse_keys, plain, read_text
from softprune.data.definition import (
    MASK,
    ChatSpec,
    Definition,
    FieldSpec,
    FileSource,
    GeneratedSource,
    HubSource,
    Source,
    Sources,
    join_definitions,
    label_key,
    named_sources,
    names_in,
    needed_names,
)
from softprune.data.demo import GENERATORS
from softprune.data.metrics import METRICS, ExactMatch
from softprune.data.row_files import ENDINGS, file_format
from softprune.data.template import ROW_READERS
from softprune.errors import ManyErrors, SoftpruneError

_SECTIONS: dict[tuple[str, ...], type[BaseModel]] = {
    (): Definition,
    ("chat",): ChatSpec,
    ("sources",): Sources,
    ("sources", "file"): FileSource,
    ("sources", "official"): FileSource,
    ("sources", "hub"): HubSource,
    ("sources", "generated"): GeneratedSource,
}
"""What each section of a file may hold; elsewhere, the keys are a field's."""


def read_definition(path: Path) -> Definition:
    """Read and check a task's YAML.

    Raises:
        SoftpruneError: when it can't be read as YAML, or for its one mistake.
        ManyErrors: with every mistake in it.
    """
    data = parse_keys(read_text(path, "task YAML"), f"task {path}", "fields: [text]", "docs/tasks.md")
    if "parts" in data:
        do = "remove it; tasks are joined by name: --task trec+ag_news"
        raise SoftpruneError("a file of one task", f"`parts` in {path}", do)
    return check_definition(data, path)


def check_definition(data: Any, path: Path) -> Definition:
    """Check what a task's YAML says, or what a ticket's file says of its task; the path names a task that has no `id`.

    Raises:
        SoftpruneError: for its one mistake.
        ManyErrors: with every mistake in it.
    """
    parts = data.get("parts") if isinstance(data, dict) else None
    if isinstance(parts, list) and parts:  # of a ticket for several tasks: what they have together follows
        return join_definitions([check_definition(part, path) for part in parts])
    if isinstance(data, dict):
        name = re.sub(r"[^a-z0-9_]+", "_", path.stem.lower()).strip("_") or "task"
        data = {"id": name, **data}
    try:
        definition = Definition.model_validate(data)
        mistakes = list(_find_mistakes(definition))
    except ValidationError as error:
        mistakes = _explain_invalid(error)
    if len(mistakes) > 1:
        raise ManyErrors(f"task {path}", mistakes)
    if mistakes:
        raise SoftpruneError(mistakes[0].expected, f"{mistakes[0].found} in {path}", mistakes[0].do)
    return definition


def _explain_invalid(error: ValidationError) -> list[SoftpruneError]:
    """Pydantic's errors in our words, those of values that YAML read as something other than text in one message."""
    items = error.errors(include_url=False)
    no_text = [item for item in items if item["type"] == "string_type"]
    unquoted = [item for item in no_text if not isinstance(item["input"], str | list | dict | None)]
    # A list whose values aren't text counts as too short as well: that is one mistake, reported once.
    reported = {item["loc"][:-1] for item in unquoted}
    mistakes = []
    for item in items:
        if item in unquoted or item["loc"] in reported:
            continue
        key = ".".join(map(str, item["loc"])) or "the file"
        section = tuple(str(part) for part in item["loc"][:-1])
        if item["type"] == "extra_forbidden":
            known = _SECTIONS.get(section, FieldSpec).model_fields
            mistakes.append(unknown(f"key of {'.'.join(section) or 'a task'}", str(item["loc"][-1]), known))
        elif item["type"] == "missing":
            mistakes.append(SoftpruneError(f"`{key}`", "no such key", "add it"))
        else:
            expected = f"`{key}`: {plain(item['msg'])}"
            mistakes.append(SoftpruneError(expected, reprlib.repr(item["input"]), "correct the value"))
    if unquoted:
        names = [".".join(map(str, item["loc"])).removesuffix(".[key]") for item in unquoted]
        keys = ", ".join(f"`{name}`" for name in dict.fromkeys(names))
        values = dict.fromkeys(label_key(item["input"]) for item in unquoted)
        hint = " (YAML reads yes, no, on and off as true and false)" if {"true", "false"} & set(values) else ""
        do = 'put it in quotes, as in "yes"'
        mistakes.append(SoftpruneError(f"text in {keys}", f"{', '.join(values)}{hint}", do))
    return mistakes


def _find_mistakes(definition: Definition) -> Iterator[SoftpruneError]:
    """What is wrong with a file whose values have the right types."""
    names, fields = names_in(definition.template), tuple(definition.fields)
    if names.count(MASK) != 1:
        found = f"{names.count(MASK)} of them"
        yield SoftpruneError("one {mask} in `template`", found, "mark the answer's place once")
    used = [("template", name) for name in names if name != MASK]
    if not definition.is_generation:
        for answer in definition.answers:
            used += [("answers", name) for name in names_in(answer)]
    for key, name in used:
        if name not in fields:
            expected = f"fields that exist in `{key}` ({', '.join(fields)})"
            yield SoftpruneError(expected, f"{{{name}}}", "declare it under `fields` or correct the name")
    yield from _target_mistakes(definition) if definition.is_generation else _answer_mistakes(definition)
    yield from _metric_mistakes(definition)
    if definition.extract is not None:
        yield from _extract_mistakes(definition, definition.extract)
    sources = named_sources(definition.sources)
    if not sources:
        yield SoftpruneError("at least one source", "none under `sources`", "say where the rows are")
    for layout, source in sources.items():
        yield from _source_mistakes(f"sources.{layout}", source, definition)


def _target_mistakes(definition: Definition) -> Iterator[SoftpruneError]:
    """What doesn't go with a text to be written, where there is nothing to choose from."""
    target = definition.target
    if definition.answers != (f"{{{target}}}",):
        found, do = ", ".join(definition.answers), "remove one of them"
        yield SoftpruneError("`target` (a text to write) or `answers` (to choose from)", found, do)
    if definition.targets != "text":
        yield SoftpruneError("`targets: text` beside `target`", definition.targets, "correct one of them")
    if target in definition.fields:
        found = f"{target}, which the model would then read"
        do = "remove it from `fields`; what the model reads and what it writes differ"
        yield SoftpruneError("a `target` that is no field of the input", found, do)
    for key, default in (("gold", "label"), ("positive", None)):
        value = getattr(definition, key)
        if value != default:
            yield SoftpruneError(f"no `{key}` beside `target`", value, "remove it: there is no label")


def _answer_mistakes(definition: Definition) -> Iterator[SoftpruneError]:
    answers = ", ".join(definition.answers)
    if definition.targets == "text":
        do = "name the text to be written, as in target: highlights, instead of `answers`"
        yield SoftpruneError("`target` beside `targets: text`", "none", do)
        return
    if len(definition.answers) < 2:
        do = "add one; for a text that is to be written, name its column as `target` instead"
        yield SoftpruneError("`answers`: at least 2 to choose from", answers or "none", do)
        return
    if len(set(definition.answers)) < len(definition.answers):
        yield SoftpruneError("`answers` that differ", answers, "give each answer once")
    if definition.positive is not None and definition.positive not in definition.answers:
        expected = f"`positive` among the answers ({answers})"
        yield SoftpruneError(expected, f'"{definition.positive}"', "name the answer that F1 counts")


def _metric_mistakes(definition: Definition) -> Iterator[SoftpruneError]:
    metric = METRICS.get(definition.metric)
    if metric is None:
        yield unknown("metric", definition.metric, METRICS)
        return
    reads = "texts" if definition.is_generation or definition.targets == "text" else "answers"
    if metric.reads != reads:
        expected = f"a metric of {reads} ({', '.join(name for name in METRICS if METRICS[name].reads == reads)})"
        yield SoftpruneError(expected, metric.name, "choose one of them, or remove `metric`")
    if metric.needs_positive and definition.positive is None:
        yield SoftpruneError(f"`positive` beside the metric {metric.name}", "none", "name the answer that F1 counts")


def _extract_mistakes(definition: Definition, pattern: str) -> Iterator[SoftpruneError]:
    """What is wrong with a pattern, by itself and beside the rest of the task."""
    if not definition.is_generation:
        yield SoftpruneError("`target` beside `extract`", "none", "remove `extract`: answers are compared as they are")
    elif definition.metric != ExactMatch.name:
        expected = f"the metric {ExactMatch.name} beside `extract`"
        yield SoftpruneError(expected, definition.metric, "remove one of them: no other metric extracts")
    try:
        re.compile(pattern)
    except (re.error, OverflowError) as error:
        place = getattr(error, "pos", None)
        at = "" if place is None else f' at character {place + 1}, before "{pattern[place : place + 20]}"'
        found = f"{getattr(error, 'msg', error)}{at}"
        yield SoftpruneError("a regular expression in `extract`", found, f"correct it: {pattern}")


def _source_mistakes(key: str, source: Source, definition: Definition) -> Iterator[SoftpruneError]:
    needed, answers = needed_names(definition), definition.answers
    for name in sorted(set(source.columns) - set(needed)):
        expected = f"columns of {key} for names in use ({', '.join(needed)})"
        yield SoftpruneError(expected, f"`{name}`", "remove it or correct its spelling")
    if source.rows and source.rows not in ROW_READERS:
        yield unknown("row reader", source.rows, ROW_READERS)
    if isinstance(source, GeneratedSource) and source.generator not in GENERATORS:
        yield unknown("generator", source.generator, GENERATORS)
    if definition.is_generation:
        if source.labels:
            yield SoftpruneError(f"no labels in `{key}` beside `target`", ", ".join(source.labels), "remove them")
    elif len(answers) > 1:
        if not source.labels:
            do = f'say which label means which answer, as in labels: {{0: "{answers[0]}"}}'
            yield SoftpruneError(f"`{key}.labels`, since answers hold field names", "none", do)
        for label, answer in source.labels.items():
            if answer not in answers:
                expected = f"labels of {key} that lead to an answer ({', '.join(answers)})"
                yield SoftpruneError(expected, f"{label} -> {answer}", "correct the label map")
    if isinstance(source, FileSource):
        yield from _file_mistakes(key, source)


def _file_mistakes(key: str, source: FileSource) -> Iterator[SoftpruneError]:
    files = source.files
    named = ", ".join(files) or "none"
    if "train" not in files:
        yield SoftpruneError(f"a file to train on in `{key}.files`", named, "add train: FILE")
    if not {"dev", "validation"} & set(files) and source.held_out is None:
        do = "add validation: FILE there, or held_out: 0.2 beside `files`"
        yield SoftpruneError(f"something to report on in `{key}.files`", named, do)
    for split in source.where:
        if split not in files:
            do = f"add {split}: FILE to `files`, or remove it"
            yield SoftpruneError(f"`{key}.where` for splits with a file ({named})", split, do)
    if "validation" in files and source.held_out is not None:
        found = f"validation: {files['validation']} and held_out: {source.held_out}"
        yield SoftpruneError(f"one validation set in `{key}`", found, "remove one of them")
    unclear = [name for name in files.values() if source.format is None and file_format(Path(name)) is None]
    if unclear:
        expected = f"files in `{key}` that end in {', '.join(ENDINGS)} (or .gz, .xz)"
        yield SoftpruneError(expected, ", ".join(unclear), "add format: jsonl, csv or parquet")
