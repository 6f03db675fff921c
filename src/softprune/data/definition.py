"""What a task's YAML may say, as frozen models, and several tasks as one.

`data/definition_loading.py` reads one and names its mistakes.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from softprune.config.registry import unknown
from softprune.data.row_files import Format, Located
from softprune.errors import SoftpruneError
from softprune.types import Chat

MASK = "mask"
TASK = "task"
"""The column of a row that names its task, for a ticket of several."""
JOINED_METRIC = "accuracy"
"""The one metric of joined tasks: an F1 counts one answer as positive, and ROUGE is of texts."""
Split = Literal["train", "dev", "validation"]


def label_key(value: object) -> str:
    """How a label of any type is looked up: `true`, `0`, `entailment`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def names_in(template: str) -> tuple[str, ...]:
    """The names in braces, in order; a ValueError where the braces don't match."""
    return tuple(name for _, name, _, _ in string.Formatter().parse(template) if name is not None)


def _vary(answers: object) -> bool:
    """Whether answers hold field names, so that they differ from example to example."""
    try:
        return isinstance(answers, list) and any(names_in(answer) for answer in answers if isinstance(answer, str))
    except ValueError:  # reported by `_check_template`
        return False


def _expand_names(value: object) -> object:
    """A plain list of field names: all of them may be shortened."""
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        return value
    twice = sorted({name for name in value if value.count(name) > 1})
    if twice:
        raise ValueError(f"each name once ({', '.join(twice)} is there twice)")
    return {name: {"shortenable": True} for name in value}


def _is_name(value: object) -> bool:
    """Whether a value is one name, as in a template's braces."""
    # format_map would follow dots and brackets into objects, and take numbers and "" for positions.
    return isinstance(value, str) and bool(value) and not value.isdecimal() and not set(value) & set(".[]{}!:")


def _check_template(value: str) -> str:
    try:
        parts = list(string.Formatter().parse(value))
    except ValueError as error:
        raise ValueError(f"braces must match ({error})") from None
    for _, name, spec, conversion in parts:
        if name is not None and (spec or conversion or not _is_name(name)):
            raise ValueError("a plain name in each pair of braces (a brace that is text is doubled)")
    return value


def _check_target(value: str) -> str:
    if not _is_name(value):
        raise ValueError("one plain name, without braces")
    return value


Template = Annotated[str, AfterValidator(_check_template)]
Target = Annotated[str, AfterValidator(_check_target)]
Fields = Annotated[dict[str, "FieldSpec"], BeforeValidator(_expand_names)]
# YAML reads labels such as 0, 1.0 and true as numbers and truth values.
Label = Annotated[str, BeforeValidator(label_key)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    # Keys that are younger than the first tickets: written where they say something, so that records stay equal.
    written_if_set: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _leave_out_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        return {name: value for name, value in values.items() if value or name not in self.written_if_set}


class FieldSpec(_Frozen):
    """One text of an example."""

    shortenable: bool = False
    """Whether truncation may cut its end. OpenPrompt's default: true for text_a and text_b, else false."""
    append: str = ""
    """Characters added after the text (Table 10's post-processing)."""


class ChatSpec(_Frozen):
    """How an example becomes a conversation: the tokenizer's own chat template renders it."""

    system: str = ""
    """What the system's turn says; a conversation without one where empty."""
    place: Literal["front", "system"] = "front"
    """Where the soft prompt goes: in front of everything, or at the beginning of the system's text."""
    options: dict[str, bool | int | float | str] = {}
    """What the template takes beside the messages, such as `enable_thinking: false`."""


def _expand_chat(value: object) -> object:
    """`chat: true` is a conversation with nothing set, `chat: false` none."""
    return {} if value is True else None if value is False else value


class Source(_Frozen):
    """What any source of rows needs."""

    columns: dict[str, str] = {}
    """Name in this task to column in the rows, where they differ; dots lead into nested objects."""
    labels: dict[Label, str] = {}  # filled in by Definition
    """Label as the rows have it to the answer that it means; each answer is its own label where left out."""
    rows: str | None = None
    """A row reader for layouts that one row per example doesn't describe (MultiRC's nested questions)."""
    verified: bool
    """Whether this layout was checked against the real data."""


class HubPlace(_Frozen):
    """A data set of the Hugging Face hub."""

    repository: str
    """Its name on the hub."""
    config: str | None = None
    """Its configuration, where it has several."""


class HubSource(HubPlace, Source):
    """A data set of the Hugging Face hub, or a local folder with its files."""

    written_if_set = ("elsewhere",)

    splits: dict[Split, str]
    """Our split to the hub's."""
    elsewhere: dict[Split, HubPlace] = {}
    """Splits that are in another data set."""
    verified: bool = False


class FileSource(Source):
    """Files in a folder."""

    format: Format | None = None
    """How the files are written, UTF-8; jsonl and csv also with `.gz` or `.xz`. Left out, their endings say so."""
    files: dict[Split, str]
    """Split to file: `train`, and `dev` and `validation` where there are any."""
    where: dict[Split, dict[str, Label]] = {}
    """Split to the rows that belong to it, as `column: value`, where one file holds several splits."""
    held_out: float | None = Field(default=None, gt=0, lt=1)
    """Fraction of train that is the validation set, where no validation file is named."""
    folder: str | None = None
    """Where the files are below the given folder, when they aren't in it directly."""
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

    written_if_set = ("chat", "extract", "parts")

    id: str = Field(pattern=r"^[a-z0-9_]+$")
    """Its name: small letters, digits and underscores; the file's where left out."""
    version: int = Field(default=1, ge=1)
    """Raised when examples or templates change, so that runs stay comparable."""
    title: str
    """Its full name; the id where left out."""
    kind: str = ""
    """What kind of task it is, in a word or two (Table 9's column)."""
    instruction: str = ""
    """The task in one English sentence; a prompt may start from it (`prompt.init: text`)."""
    fields: Fields = Field(min_length=1)
    """The texts of an example; a plain list of names where all of them may be shortened."""
    template: Template
    """The input: field names in braces, and `{mask}` where the answer goes."""
    chat: Annotated[ChatSpec | None, BeforeValidator(_expand_chat)] = None
    """That the filled template is a user's turn of a conversation, which the assistant answers: `true`, or its keys."""
    answers: tuple[Template, ...]
    """Candidate answers, at least two; they may hold field names in braces. Not beside `target`."""
    target: Target | None = None
    """Name of the text that is to be written, where the model doesn't choose among answers: the summary."""
    gold: str = "label"
    """Name of the label column."""
    id_from: Template | None = None
    """Template of an example's id over column names; the row number where absent."""
    group: Template | None = None
    """Template of the resampling unit over column names, where examples share a text."""
    metric: str
    """One of the metrics' names.

    Where left out, f1 beside `positive`, exact_match beside `extract`, rougeL beside `target`, else accuracy.
    """
    extract: str | None = None
    """A regular expression whose last match is what counts of a text: its first group, or all of it without one."""
    positive: str | None = None
    """The answer that F1 counts as positive."""
    score: Literal["sum", "mean"]
    """How an answer's token log-probabilities are put together; where left out, mean if answers hold field names."""
    targets: Literal["answers", "text"]
    """Answers are scored, a text is written; where left out, text beside `target`."""
    sources: Sources
    """Where its rows come from."""
    parts: tuple[Definition, ...] = ()
    """The tasks that one prompt serves, where they are several; see `join_definitions`. Not for task files."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        """Add what a short file leaves out."""
        if not isinstance(data, dict):
            raise ValueError("a task file holds `key: value` lines")
        if data.get("target") is not None or data.get("targets") == "text":
            # One "answer", the text itself, is what fills the answer's place of an example.
            itself = [f"{{{data['target']}}}"] if _is_name(data.get("target")) else []
            metric = "rougeL" if data.get("extract") is None else "exact_match"
            written: dict[str, Any] = {"metric": metric, "score": "mean", "targets": "text", "answers": itself}
            return written | {"title": data.get("id")} | data
        answers, sources = data.get("answers"), data.get("sources")
        if isinstance(sources, dict) and isinstance(answers, list) and not _vary(answers):
            labels = {"labels": {answer: answer for answer in answers if isinstance(answer, str)}}
            sources = {name: labels | each if isinstance(each, dict) else each for name, each in sources.items()}
        defaults = {
            "title": data.get("id"),
            "metric": "accuracy" if data.get("positive") is None else "f1",
            # Answers that vary differ in length, and a longer one would lose by its sum alone.
            "score": "mean" if _vary(answers) else "sum",
            "targets": "answers",
        }
        return defaults | data | {"sources": sources}

    @property
    def conversation(self) -> Chat | None:
        """How its examples become conversations; None where they are plain texts."""
        if self.chat is None:
            return None
        return Chat(self.chat.system, self.chat.place, tuple(sorted(self.chat.options.items())))

    @property
    def fixed_answers(self) -> tuple[str, ...] | None:
        """The answers, where they are the same for every example; None where they hold field names."""
        return None if _vary(list(self.answers)) else self.answers

    @property
    def is_generation(self) -> bool:
        """Whether the model writes a text, instead of choosing among answers."""
        return self.target is not None


def named_sources(sources: Sources) -> dict[str, Source]:
    """The sources that a task has, by layout name: own and official files before the hub's."""
    by_name = {name: getattr(sources, name) for name in ("file", "official", "hub", "generated")}
    return {name: source for name, source in by_name.items() if source is not None}


def needed_names(definition: Definition) -> tuple[str, ...]:
    """Every name that a row must give: fields, label or target, and what id and group are made of."""
    templates = names_in((definition.id_from or "") + (definition.group or ""))
    return tuple(dict.fromkeys([*definition.fields, definition.target or definition.gold, *templates]))


def join_definitions(parts: Sequence[Definition]) -> Definition:
    """Several tasks as one, for one prompt that serves them all: `trec+ag_news`.

    Their answers and fields are united. Every example keeps its own template and answers, and says which task it is of.
    What counts is the accuracy over all; tasks that can't be counted alike are refused, and so is one that comes twice.
    """
    ids = [part.id for part in parts]
    twice = [name for name in ids if ids.count(name) > 1]
    if twice:
        raise SoftpruneError("tasks to join, each once", f"{twice[0]} twice", "name it once")
    for part in parts:
        if part.parts:
            raise SoftpruneError("single tasks to join", part.id, "name the tasks one by one")
        if part.is_generation:
            expected, found = "tasks with answers to choose from, to join them", f"{part.id}, whose texts are written"
            raise SoftpruneError(expected, found, "train it a prompt of its own")
        if part.metric != JOINED_METRIC:
            found = f"{part.id}, which is counted by {part.metric} of one of its answers"
            do = "train it a prompt of its own: there is no such answer in another task"
            raise SoftpruneError("tasks that are counted by accuracy, to join them", found, do)
    if len({part.score for part in parts}) > 1:
        found = ", ".join(f"{part.id} by {part.score}" for part in parts)
        do = "join tasks that agree, or give your copy of a task's YAML another `score`"
        raise SoftpruneError("tasks whose answers are scored alike, to join them", found, do)
    fields: dict[str, FieldSpec] = {}
    for part in parts:
        fields |= part.fields
    # Not validated: an id with "+" and no sources of its own are what no task file may have.
    return Definition.model_construct(
        id="+".join(ids),
        version=max(part.version for part in parts),
        title=" and ".join(part.title for part in parts),
        kind=" and ".join(dict.fromkeys(part.kind for part in parts if part.kind)),
        instruction=" ".join(part.instruction for part in parts if part.instruction),
        fields=fields,
        template="\n".join(f"{part.id}: {part.template}" for part in parts),
        answers=tuple(dict.fromkeys(answer for part in parts for answer in part.answers)),
        metric=JOINED_METRIC,
        score=parts[0].score,
        targets="answers",
        sources=Sources(),
        parts=tuple(parts),
    )


def definition_for_row(definition: Definition, located: Located) -> Definition:
    """The definition that a row is read by: that of the task which it names, where several are joined."""
    if not definition.parts:
        return definition
    known = {part.id: part for part in definition.parts}
    if TASK not in located.row:
        found = f"{located.where} has {', '.join(map(str, located.row))}"
        do = "add the column: this prompt serves several tasks"
        raise SoftpruneError(f'a column "{TASK}" that names each row\'s task ({", ".join(known)})', found, do)
    name = str(located.row[TASK])
    if name not in known:
        error = unknown("task", name, known)
        raise SoftpruneError(error.expected, f"{error.found} in {located.where}", error.do)
    return known[name]
