"""From a task's YAML to its definition, with every mistake of the file in one message."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from softprune.config.registry import Registry, unknown
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
from softprune.data.rouge import KINDS
from softprune.data.row_files import ENDINGS, format_of
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
    except ValueError:
        raise SoftpruneError("a task YAML", f"no file {str(path)!r}", "check the path") from None
    check_writable(data, f"task {path}")
    if isinstance(data, dict) and "parts" in data:
        do = "remove it; tasks are joined by name: --task trec+ag_news"
        raise SoftpruneError("a file of one task", f"`parts` in {path}", do)
    return definition_of(data, path)


def definition_of(data: Any, path: Path) -> Definition:
    """Check what a task's YAML says.

    Args:
        data: its value.
        path: the file, which gives the task its name where it states none.

    Raises:
        SoftpruneError: for its one mistake.
        ManyErrors: with every mistake in it.
    """
    parts = data.get("parts") if isinstance(data, dict) else None
    if isinstance(parts, list) and parts:  # of a ticket for several tasks: what they have together follows
        from softprune.data.multitask import joined_definition

        return joined_definition([definition_of(part, path) for part in parts])
    try:
        definition = Definition.model_validate({"id": _name_of(path), **data} if isinstance(data, dict) else data)
    except ValidationError as error:
        raise _together(path, _told(error)) from None
    mistakes = (
        _template_mistakes(definition)
        + _answer_mistakes(definition)
        + _name_mistakes(definition)
        + _source_mistakes(definition)
    )
    if mistakes:
        raise _together(path, mistakes)
    return definition


def _name_of(path: Path) -> str:
    return re.sub(r"[^a-z0-9_]+", "_", path.stem.lower()).strip("_") or "task"


def _together(path: Path, mistakes: Sequence[SoftpruneError]) -> SoftpruneError:
    if len(mistakes) > 1:
        return ManyErrors(f"task {path}", mistakes)
    only = mistakes[0]
    return SoftpruneError(only.expected, f"{only.found} in {path}", only.do)


def _told(error: ValidationError) -> list[SoftpruneError]:
    """Pydantic's errors in our words; values that YAML took for something else than text stand together."""
    items = error.errors(include_url=False)
    unquoted = [item for item in items if _is_unquoted(item)]
    # Values that are no text make a list too short as well: one mistake, told once.
    sections = {item["loc"][:-1] for item in unquoted}
    told = [_told_alone(item) for item in items if item not in unquoted and item["loc"] not in sections]
    return told + ([_told_unquoted(unquoted)] if unquoted else [])


def _is_unquoted(item: ErrorDetails) -> bool:
    scalar = item["input"] is not None and not isinstance(item["input"], str | list | dict)
    return item["type"] == "string_type" and scalar


def _told_unquoted(items: Sequence[ErrorDetails]) -> SoftpruneError:
    keys = list(dict.fromkeys(f"`{_key(item).removesuffix('.[key]')}`" for item in items))
    found = list(dict.fromkeys(label_key(item["input"]) for item in items))
    hint = " (YAML reads yes, no, on and off as true and false)" if {"true", "false"} & set(found) else ""
    return SoftpruneError(f"text in {', '.join(keys)}", f"{', '.join(found)}{hint}", 'put it in quotes, as in "yes"')


def _told_alone(item: ErrorDetails) -> SoftpruneError:
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
    mistakes, fields = [], tuple(definition.fields)
    names = names_in(definition.template)
    answers = () if definition.is_generation else definition.answers
    if names.count(MASK) != 1:
        mistakes.append(
            SoftpruneError("one {mask} in `template`", f"{names.count(MASK)} of them", "mark the answer's place once")
        )
    for key, template in [("template", definition.template), *[("answers", a) for a in answers]]:
        for name in names_in(template):
            if name not in fields and not (key == "template" and name == MASK):
                mistakes.append(
                    SoftpruneError(
                        f"fields that exist in `{key}` ({', '.join(fields)})",
                        f"{{{name}}}",
                        "declare it under `fields` or correct the name",
                    )
                )
    return mistakes


def _target_mistakes(definition: Definition) -> list[SoftpruneError]:
    """What doesn't go with a text to be written, where there is nothing to choose from."""
    mistakes, target = [], definition.target
    labelled = {"gold": definition.gold != "label", "positive": definition.positive is not None}
    if definition.answers != (f"{{{target}}}",):
        found, do = ", ".join(definition.answers), "remove one of them"
        mistakes.append(SoftpruneError("`target` (a text to write) or `answers` (to choose from)", found, do))
    if definition.targets != "text":
        mistakes.append(SoftpruneError("`targets: text` beside `target`", definition.targets, "correct one of them"))
    if target in definition.fields:
        found = f"{target}, which the model would then read"
        do = "remove it from `fields`; what the model reads and what it writes differ"
        mistakes.append(SoftpruneError("a `target` that is no field of the input", found, do))
    for key in [key for key, said in labelled.items() if said]:
        found = str(getattr(definition, key))
        mistakes.append(SoftpruneError(f"no `{key}` beside `target`", found, "remove it: there is no label"))
    if definition.metric in METRICS and definition.metric not in KINDS:
        found, do = definition.metric, "choose one of them, or remove `metric`"
        mistakes.append(SoftpruneError(f"a metric of written texts ({', '.join(KINDS)})", found, do))
    return mistakes + [
        SoftpruneError(f"no labels in `sources.{layout}` beside `target`", ", ".join(source.labels), "remove them")
        for layout, source in named_sources(definition.sources).items()
        if source.labels
    ]


def _answer_mistakes(definition: Definition) -> list[SoftpruneError]:
    if definition.is_generation:
        return _target_mistakes(definition)
    mistakes, answers = [], ", ".join(definition.answers)
    if definition.targets == "text":
        do = "name the text to be written, as in target: highlights, instead of `answers`"
        return [SoftpruneError("`target` beside `targets: text`", "none", do)]
    if len(definition.answers) < 2:
        do = "add one; for a text that is to be written, name its column as `target` instead"
        return [SoftpruneError("`answers`: at least 2 to choose from", answers or "none", do)]
    if definition.metric in KINDS:
        do = "choose accuracy or f1, or name a text to be written as `target`"
        mistakes.append(SoftpruneError("a metric of answers", definition.metric, do))
    if len(set(definition.answers)) < len(definition.answers):
        mistakes.append(SoftpruneError("`answers` that differ", answers, "give each answer once"))
    if definition.positive is not None and definition.positive not in definition.answers:
        mistakes.append(
            SoftpruneError(
                f"`positive` among the answers ({answers})",
                f'"{definition.positive}"',
                "name the answer that F1 counts",
            )
        )
    for layout, source in named_sources(definition.sources).items():
        mistakes += _label_mistakes(definition, layout, source)
    return mistakes


def _label_mistakes(definition: Definition, layout: str, source: Source) -> list[SoftpruneError]:
    answers = ", ".join(definition.answers)
    if not source.labels:
        do = f'say which label means which answer, as in labels: {{0: "{definition.answers[0]}"}}'
        return [SoftpruneError(f"`sources.{layout}.labels`, since answers hold field names", "none", do)]
    return [
        SoftpruneError(
            f"labels of sources.{layout} that lead to an answer ({answers})",
            f"{label} -> {answer}",
            "correct the label map",
        )
        for label, answer in source.labels.items()
        if answer not in definition.answers
    ]


def _name_mistakes(definition: Definition) -> list[SoftpruneError]:
    mistakes: list[SoftpruneError] = []
    sources, generated = named_sources(definition.sources), definition.sources.generated
    checks: list[tuple[Registry[Any], str]] = [(METRICS, definition.metric)]
    checks += [(ROW_READERS, source.rows) for source in sources.values() if source.rows]
    checks += [(GENERATORS, generated.generator)] if generated else []
    for registry, name in checks:
        try:
            registry.check(name)
        except SoftpruneError as error:
            mistakes.append(error)
    if definition.metric == "f1" and definition.positive is None:
        mistakes.append(SoftpruneError("`positive` beside the metric f1", "none", "name the answer that F1 counts"))
    return mistakes


def _source_mistakes(definition: Definition) -> list[SoftpruneError]:
    mistakes: list[SoftpruneError] = []
    sources = named_sources(definition.sources)
    if not sources:
        mistakes.append(SoftpruneError("at least one source", "none under `sources`", "say where the rows are"))
    needed = needed_names(definition)
    for layout, source in sources.items():
        for name in sorted(set(source.columns) - set(needed)):
            mistakes.append(
                SoftpruneError(
                    f"columns of sources.{layout} for names in use ({', '.join(needed)})",
                    f"`{name}`",
                    "remove it or correct its spelling",
                )
            )
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
    for split in [split for split in source.where if split not in files]:
        do = f"add {split}: FILE to `files`, or remove it"
        mistakes.append(SoftpruneError(f"`{key}.where` for splits with a file ({named})", split, do))
    if "validation" in files and source.held_out is not None:
        found = f"validation: {files['validation']} and held_out: {source.held_out}"
        mistakes.append(SoftpruneError(f"one validation set in `{key}`", found, "remove one of them"))
    strange = [name for name in files.values() if source.format is None and format_of(Path(name)) is None]
    if strange:
        expected = f"files in `{key}` that end in {', '.join(ENDINGS)} (or .gz, .xz)"
        mistakes.append(SoftpruneError(expected, ", ".join(strange), "add format: jsonl, csv or parquet"))
    return mistakes
