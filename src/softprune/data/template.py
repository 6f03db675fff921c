"""Rows to examples: row reader, columns, label, filled template."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from softprune.data.definition import MASK, Definition, Source, label_key, needed_names
from softprune.data.exact_match import extract_answer
from softprune.data.row_files import Located, Row
from softprune.errors import SoftpruneError
from softprune.types import Example, Segment

YAML_TRUTHS = ("yes", "no", "on", "off")
"""Words that YAML takes for true and false, in any case."""
_NAMES, _LETTERS = 8, 30
"""How many column names a message lists, and how much of each."""


def multirc_options(row: Row) -> Iterator[Row]:
    """MultiRC nests questions in passages and answers in questions; one row per answer option comes out.

    The rows have the hub's columns: `paragraph, question, answer, label` and `idx: {paragraph, question, answer}`.
    """
    passage = row["passage"]
    for question in passage["questions"]:
        for answer in question["answers"]:
            option = {
                "paragraph": passage["text"],
                "question": question["question"],
                "answer": answer["text"],
                "idx": {"paragraph": row["idx"], "question": question["idx"], "answer": answer["idx"]},
            }
            if "label" in answer:  # the test set has none
                option["label"] = answer["label"]
            yield option


def joined_article(row: Row) -> Iterator[Row]:
    """AG News's official files hold title and description apart; the hub's text joins them with a blank."""
    yield {**row, "text": f"{row['title']} {row['description']}"}


def without_line_breaks(row: Row) -> Iterator[Row]:
    """IMDb's reviews carry the web page's `<br />`, which says nothing and costs four tokens each."""
    yield {**row, "text": str(row["text"]).replace("<br />", " ")}


def metamath_gsm8k(row: Row) -> Iterator[Row]:
    """MetaMathQA's rows (`query`, `response`) under the names of GSM8K's (`question`, `answer`), which stay.

    MetaMathQA asks each question in many ways, `original_question` says which; GSM8K asks each once.
    """
    names = {"query": "question", "response": "answer"}
    renamed = {names.get(name, name): value for name, value in row.items()}
    yield {"original_question": renamed["question"], **renamed}


ROW_READERS: dict[str, Callable[[Row], Iterator[Row]]] = {
    "multirc": multirc_options,
    "ag_news": joined_article,
    "imdb": without_line_breaks,
    "metamath_gsm8k": metamath_gsm8k,
}
"""By the name that a source's `rows` has, what a map of columns can't describe: rows that must be changed, or that hold
several examples. A reader raises KeyError with the name of a column that is absent."""


class MissingColumn(SoftpruneError):
    """A row without a column that its task needs; what else can be done about it depends on whose task it is."""


def examples_from(definition: Definition, source: Source, rows: Iterable[Located]) -> Iterator[Example]:
    """Examples of one split, in the rows' order; a row reader may make several out of a row.

    Raises:
        SoftpruneError: for a missing column, a value that isn't text, or an unknown label, with the row's place.
    """
    needed = needed_names(definition)
    for index, row in enumerate(_expand(definition, source, rows)):
        values = {name: row.value(name, needed) for name in needed}
        names = {name: label_key(value) for name, value in values.items()}
        texts = row.texts()
        answers, gold = row.answers(texts, values[definition.target or definition.gold])
        yield Example(
            id=definition.id_from.format_map(names) if definition.id_from else str(index),
            index=index,
            segments=fill(definition, texts),
            answers=answers,
            gold=gold,
            group=definition.group.format_map(names) if definition.group else None,
            chat=definition.conversation,
        )


def select_rows(rows: Iterable[Located], wanted: Mapping[str, str]) -> Iterator[Located]:
    """The rows whose columns have the wanted values; a SoftpruneError for a row without such a column."""
    for located in rows:
        for column in wanted:
            if column not in located.row:
                raise _missing(column, located.row, located.where)
        if all(label_key(located.row[column]) == value for column, value in wanted.items()):
            yield located


@dataclass(frozen=True, slots=True)
class UnansweredRow:
    """A row that waits for its answer."""

    row: Row  # as the source has it, a row reader's changes included
    where: str  # its place, for complaints
    # Its template filled; `gold` is -1 where the row holds no label that the task knows, or no target text,
    # which then is empty.
    example: Example
    empty: bool  # whether all of its texts are


def unanswered_rows(definition: Definition, source: Source, rows: Iterable[Located]) -> Iterator[UnansweredRow]:
    """What a task asks about rows whose labels needn't be known; errors as `examples_from`, but for labels."""
    name = definition.target or definition.gold
    for index, row in enumerate(_expand(definition, source, rows)):
        texts = row.texts()
        try:
            answers, gold = row.answers(texts, row.value(name, [name]))
        except SoftpruneError:  # no label, or one that the task doesn't know
            answers, gold = ("",) if definition.is_generation else row.candidates(texts), -1
        segments = fill(definition, texts)
        example = Example(str(index), index, segments, answers, gold, chat=definition.conversation)
        yield UnansweredRow(row.row, row.where, example, empty=not any(texts.values()))


def fill(definition: Definition, texts: Mapping[str, str]) -> tuple[Segment, ...]:
    """The filled template.

    White space goes with what follows it (` premise:`, ` text`), so that every tokenizer can join the
    segments; before the answer slot it is dropped, since a slot's text is empty and each model family sets
    the answer apart in its way.
    """
    segments, blank = [], ""
    for literal, name, _, _ in string.Formatter().parse(definition.template):
        text = (blank + literal).rstrip()
        blank = (blank + literal)[len(text) :]
        if text:
            segments.append(Segment(text))
        if name == MASK:
            segments.append(Segment("", answer_slot=True))
            blank = ""
        elif name is not None:
            spec = definition.fields[name]
            segments.append(Segment(blank + texts[name] + spec.append, shortenable=spec.shortenable, from_row=True))
            blank = ""
    return tuple(segments)


@dataclass(frozen=True, slots=True)
class _TaskRow:
    """A row as a task reads it from a source."""

    definition: Definition
    source: Source
    row: Row
    where: str

    def texts(self) -> dict[str, str]:
        """The field's texts by name."""
        fields = tuple(self.definition.fields)
        return {name: self._text(self.value(name, fields), name) for name in fields}

    def answers(self, texts: Mapping[str, str], value: object) -> tuple[tuple[str, ...], int]:
        """Answers and which of them a label means; of a text to be written, itself."""
        target, labels = self.definition.target, self.source.labels
        if target is not None:
            text = self._text(value, target)
            if not text:
                expected, found = f"a text in {target}, to be written", f"none in {self.where}"
                raise SoftpruneError(expected, found, "fill it in, or remove the row")
            pattern = self.definition.extract
            if pattern is not None and extract_answer(text, pattern) is None:
                expected = f"text in {target} in which `extract` finds an answer ({pattern})"
                found = f'nothing in {self.where}, which ends in "{" ".join(text.split())[-_LETTERS:]}"'
                raise SoftpruneError(expected, found, "correct `extract` in the task YAML, or the row")
            return (text,), 0
        expected = f"a label out of {', '.join(labels)}"
        if value is None:
            raise SoftpruneError(expected, f"none in {self.where}", "fill it in, or remove the row")
        key = label_key(value)
        if key not in labels:
            do = "correct the label, or add it to the source's `labels` in the task YAML"
            if key.lower() in YAML_TRUTHS and {"true", "false"} & set(labels):
                do = "put yes, no, on and off in quotes in the task YAML; without them YAML reads true and false"
            raise SoftpruneError(expected, f'"{key}" in {self.where}', do)
        return self.candidates(texts), self.definition.answers.index(labels[key])

    def candidates(self, texts: Mapping[str, str]) -> tuple[str, ...]:
        """The answers to choose from, which may hold the row's texts."""
        return tuple(answer.format_map(texts) for answer in self.definition.answers)

    def value(self, name: str, needed: Iterable[str]) -> Any:
        """The value of a name's column, one of those that are needed; dots lead into nested objects."""
        column = self.source.columns.get(name, name)
        if column in self.row:  # also a name that has dots in it
            return self.row[column]
        value: Any = self.row
        for key in column.split("."):
            if not isinstance(value, Mapping) or key not in value:
                wanted = [self.source.columns.get(each, each) for each in needed]
                raise _missing(column, self.row, self.where, wanted)
            value = value[key]
        return value

    def _text(self, value: object, name: str) -> str:
        if value is None:
            raise SoftpruneError(f"text in {name}", f"none in {self.where}", "fill it in, or remove the row")
        # A number is text that a CSV or a table wrote so; True would read as a word that isn't in the file.
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise SoftpruneError(f"text in {name}", f"{value!r:.60} in {self.where}", "fix that value")
        return str(value).strip()


def _expand(definition: Definition, source: Source, rows: Iterable[Located]) -> Iterator[_TaskRow]:
    """Rows as a task reads them, several of one where a row reader makes them."""
    for located in rows:
        if source.rows is None:
            yield _TaskRow(definition, source, located.row, located.where)
            continue
        try:
            for row in ROW_READERS[source.rows](located.row):
                yield _TaskRow(definition, source, row, located.where)
        except KeyError as error:
            raise _missing(error.args[0], located.row, located.where) from None
        except (TypeError, AttributeError) as error:
            expected = f"rows nested as the files of {source.rows} are"
            raise SoftpruneError(expected, f"{error} in {located.where}", "correct that row") from None


def _missing(column: str, row: Row, where: str, wanted: Iterable[str] = ()) -> MissingColumn:
    expected = f"the columns {', '.join(wanted)}" if wanted else f"the column {column}"
    names = list(map(str, row))
    near = get_close_matches(column, names, n=1)
    hint = f'did you mean "{near[0]}"? ' if near else ""
    # A file without a header has whole texts for names, so they are cut.
    listed = ", ".join(name if len(name) <= _LETTERS else f"{name[:_LETTERS]}..." for name in names[:_NAMES])
    if len(names) > _NAMES:
        listed += f" and {len(names) - _NAMES} more"
    return MissingColumn(expected, f'no "{column}" in {where}; its columns are {listed}', f"{hint}rename the column")
