"""What a task's YAML may say: frozen models, and one message with every mistake of a file."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from softprune.errors import ManyErrors, SoftpruneError
from softprune.registry import Registry
from softprune.tasks.metrics import METRICS

MASK = "mask"
Split = Literal["train", "dev", "validation"]

ROW_READERS: Registry[Any] = Registry(
    "row reader",
    {
        "multirc": "softprune.tasks.superglue:multirc_options",
        "ag_news": "softprune.tasks.classification:joined_article",
        "imdb": "softprune.tasks.classification:without_line_breaks",
    },
)
GENERATORS: Registry[Any] = Registry("generator", {"demo": "softprune.tasks.demo:generate"})


def label_key(value: object) -> str:
    """How a label of any type is looked up: `true`, `0`, `entailment`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def names_in(template: str) -> tuple[str, ...]:
    """The names in braces, in order.

    Raises:
        ValueError: where the braces don't match.
    """
    return tuple(name for _, name, _, _ in string.Formatter().parse(template) if name is not None)


def _with_text_keys(value: object) -> object:
    return {label_key(key): item for key, item in value.items()} if isinstance(value, dict) else value


def _checked_template(value: str) -> str:
    try:
        names_in(value)
    except ValueError as error:
        raise ValueError(f"braces must match ({error})") from None
    return value


Template = Annotated[str, AfterValidator(_checked_template)]
Labels = Annotated[dict[str, str], BeforeValidator(_with_text_keys)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class FieldSpec(_Frozen):
    """One text of an example."""

    shortenable: bool = False
    """Whether truncation may cut its end. OpenPrompt's default: true for text_a and text_b, else false."""
    append: str = ""
    """Characters added after the text (Table 10's post-processing)."""


class Source(_Frozen):
    """What any source of rows needs."""

    columns: dict[str, str] = {}
    """Name in this task to column in the rows, where they differ; dots lead into nested objects."""
    labels: Labels
    """Label as it stands in the rows to the answer that it means."""
    rows: str | None = None
    """A row reader for layouts that one row per example doesn't describe (MultiRC's nested questions)."""
    verified: bool
    """Whether this layout was checked against the real data."""


class HubSource(Source):
    """A data set of the Hugging Face hub, or a local folder with its files."""

    repository: str
    """Its name on the hub."""
    config: str | None = None
    """Its configuration, where it has several."""
    splits: dict[Split, str]
    """Our split to the hub's."""
    verified: bool = False


class FileSource(Source):
    """Files in a folder."""

    format: Literal["jsonl", "csv", "parquet"]
    """How the files are written, UTF-8; jsonl and csv also with `.gz`."""
    files: dict[Split, str]
    """Split to file name. An absent `dev` or `validation` is no error."""
    folder: str | None = None
    """Where the files stand below the given folder, when they aren't in it directly."""
    header: tuple[str, ...] | None = None
    """Column names of a CSV that has no header line."""
    verified: bool = True


class GeneratedSource(Source):
    """Rows made by a function of this package; no files."""

    generator: str
    """Its name."""
    verified: bool = True


class Sources(_Frozen):
    """Where a task's rows come from; at least one."""

    hub: HubSource | None = None
    """By hub name, or a local folder in the hub's layout."""
    official: FileSource | None = None
    """The benchmark's own files."""
    file: FileSource | None = None
    """Your own files; relative to the YAML's folder."""
    generated: GeneratedSource | None = None
    """Made, not read."""


class Definition(_Frozen):
    """A task, as its YAML states it."""

    id: str = Field(pattern=r"^[a-z0-9_]+$")
    """Its name: small letters, digits and underscores."""
    version: int = Field(ge=1)
    """Raised when examples or templates change, so that runs stay comparable."""
    title: str
    """Its full name."""
    instruction: str
    """The task in one English sentence."""
    fields: dict[str, FieldSpec] = Field(min_length=1)
    """The texts of an example."""
    template: Template
    """The input: field names in braces, and `{mask}` where the answer stands."""
    answers: tuple[Template, ...] = Field(min_length=2)
    """Candidate answers; they may hold field names in braces."""
    gold: str = "label"
    """Name of the label column."""
    id_from: Template | None = None
    """Template of an example's id over column names; the row number where absent."""
    group: Template | None = None
    """Template of the resampling unit over column names, where examples share a text."""
    metric: str
    """One of the metrics' names."""
    positive: str | None = None
    """The answer that F1 counts as positive."""
    score: Literal["sum", "mean"] = "sum"
    """How an answer's token log-probabilities are put together; mean where answers differ in length."""
    targets: Literal["answers"] = "answers"
    """Answers are scored."""
    sources: Sources
    """Where its rows come from."""

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            raise ValueError("a task file holds `key: value` lines")
        return data


def read_definition(path: Path) -> Definition:
    """Read and check a task's YAML.

    Raises:
        SoftpruneError: when it can't be read as YAML.
        ManyErrors: with every mistake in it.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SoftpruneError("a task YAML", f"no file {path}", "check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        found = " ".join(str(error).split())
        raise SoftpruneError(f"YAML in UTF-8 in {path}", found, "mend the file's syntax") from None
    try:
        definition = Definition.model_validate(data)
    except ValidationError as error:
        raise ManyErrors(f"task {path}", [_told(item) for item in error.errors()]) from None
    mistakes = _template_mistakes(definition) + _answer_mistakes(definition) + _name_mistakes(definition)
    if mistakes:
        raise ManyErrors(f"task {path}", mistakes)
    return definition


def named_sources(sources: Sources) -> dict[str, Source]:
    """The sources that a task has, by layout name: own and official files before the hub's."""
    found = ((name, getattr(sources, name)) for name in ("file", "official", "hub", "generated"))
    return {name: source for name, source in found if source is not None}


def needed_names(definition: Definition) -> tuple[str, ...]:
    """Every name that a row must give: fields, label, and what id and group are made of."""
    used = [*definition.fields, definition.gold]
    for template in (definition.id_from, definition.group):
        used += names_in(template or "")
    return tuple(dict.fromkeys(used))


def _told(item: Any) -> SoftpruneError:
    """A pydantic error in our words."""
    key = ".".join(map(str, item["loc"])) or "the file"
    if item["type"] == "extra_forbidden":
        return SoftpruneError("known keys only", f"`{key}`", "remove it or correct its spelling")
    if item["type"] == "missing":
        return SoftpruneError(f"`{key}`", "no such key", "add it")
    return SoftpruneError(f"`{key}`: {item['msg']}", repr(item["input"])[:80], "correct the value")


def _template_mistakes(definition: Definition) -> list[SoftpruneError]:
    mistakes, fields = [], tuple(definition.fields)
    names = names_in(definition.template)
    if names.count(MASK) != 1:
        mistakes.append(
            SoftpruneError("one {mask} in `template`", f"{names.count(MASK)} of them", "mark the answer's place once")
        )
    for key, template in [("template", definition.template), *[("answers", a) for a in definition.answers]]:
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


def _answer_mistakes(definition: Definition) -> list[SoftpruneError]:
    mistakes, answers = [], ", ".join(definition.answers)
    if definition.positive is not None and definition.positive not in definition.answers:
        mistakes.append(
            SoftpruneError(
                f"`positive` among the answers ({answers})",
                f'"{definition.positive}"',
                "name the answer that F1 counts",
            )
        )
    for layout, source in named_sources(definition.sources).items():
        for label, answer in source.labels.items():
            if answer not in definition.answers:
                mistakes.append(
                    SoftpruneError(
                        f"labels of sources.{layout} that lead to an answer ({answers})",
                        f"{label} -> {answer}",
                        "correct the label map",
                    )
                )
    return mistakes


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
    if not sources:
        mistakes.append(SoftpruneError("at least one source", "none under `sources`", "say where the rows are"))
    needed = needed_names(definition)
    for layout, source in sources.items():
        for name in set(source.columns) - set(needed):
            mistakes.append(
                SoftpruneError(
                    f"columns of sources.{layout} for names in use ({', '.join(needed)})",
                    f"`{name}`",
                    "remove it or correct its spelling",
                )
            )
    return mistakes
