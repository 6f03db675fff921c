"""Rows to examples: columns, label, filled template."""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from softprune.data.definition import MASK, ROW_READERS, Definition, Source, label_key, needed_names
from softprune.data.row_files import Located, Row
from softprune.errors import SoftpruneError
from softprune.types import Example, Segment

YAML_TRUTHS = ("yes", "no", "on", "off")
"""Words that YAML takes for true and false, in any case."""
_NAMES, _LETTERS = 8, 30


class MissingColumn(SoftpruneError):
    """A row without a column that its task needs; what else can be done about it depends on whose task it is."""


def examples_from(definition: Definition, source: Source, rows: Iterable[Located]) -> Iterator[Example]:
    """Examples of one split, in the rows' order; a row reader may make several out of a row.

    Raises:
        SoftpruneError: for a missing column, a value that isn't text, or an unknown label, with the row's
        place.
    """
    flat = ((row, located.where) for located in rows for row in _expanded(source, located))
    for index, (row, where) in enumerate(flat):
        yield _example(definition, source, row, where, index)


def select_rows(rows: Iterable[Located], wanted: Mapping[str, str]) -> Iterator[Located]:
    """The rows whose columns have the wanted values.

    Raises:
        SoftpruneError: for a row without such a column.
    """
    for located in rows:
        for column in wanted:
            if column not in located.row:
                raise _missing(column, located.row, located.where)
        if all(label_key(located.row[column]) == value for column, value in wanted.items()):
            yield located


@dataclass(frozen=True, slots=True)
class UnansweredRow:
    """A row that waits for its answer.

    Attributes:
        row: as it stands in the source, a row reader's changes included.
        where: its place, for complaints.
        example: its template filled; `gold` is -1 where the row doesn't tell a label that the task knows, or the
            target text, which then is empty.
        empty: whether all of its texts are.
    """

    row: Row
    where: str
    example: Example
    empty: bool


def unanswered_rows(definition: Definition, source: Source, rows: Iterable[Located]) -> Iterator[UnansweredRow]:
    """What a task asks about rows whose labels needn't be known.

    Raises:
        SoftpruneError: for a missing field, or a value that isn't text, with the row's place.
    """
    flat = ((row, located.where) for located in rows for row in _expanded(source, located))
    for index, (row, where) in enumerate(flat):
        texts = _texts(definition, source, row, where)
        answers, gold = _told(definition, source, row, where, texts)
        example = Example(
            id=str(index),
            index=index,
            segments=fill(definition, texts),
            answers=answers,
            gold=gold,
        )
        yield UnansweredRow(row, where, example, empty=not any(texts.values()))


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


def _example(definition: Definition, source: Source, row: Row, where: str, index: int) -> Example:
    needed = needed_names(definition)
    values = {name: _value(source, row, name, where, needed) for name in needed}
    texts = _texts(definition, source, row, where)
    names = {name: label_key(value) for name, value in values.items()}
    answers, gold = _right(definition, source, values[definition.target or definition.gold], where, texts)
    return Example(
        id=definition.id_from.format_map(names) if definition.id_from else str(index),
        index=index,
        segments=fill(definition, texts),
        answers=answers,
        gold=gold,
        group=definition.group.format_map(names) if definition.group else None,
    )


def _texts(definition: Definition, source: Source, row: Row, where: str) -> dict[str, str]:
    fields = tuple(definition.fields)
    return {name: _text(_value(source, row, name, where, fields), name, where) for name in fields}


def _answers(definition: Definition, texts: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(answer.format_map(texts) for answer in definition.answers)


def _target(name: str, value: object, where: str) -> str:
    """The text that is to be written."""
    text = _text(value, name, where)
    if not text:
        raise SoftpruneError(f"a text in {name}, to be written", f"none in {where}", "fill it in, or remove the row")
    return text


def _right(
    definition: Definition, source: Source, value: object, where: str, texts: Mapping[str, str]
) -> tuple[tuple[str, ...], int]:
    """Answers and which of them a label means; of a text to be written, itself."""
    if definition.target is not None:
        return (_target(definition.target, value, where),), 0
    return _answers(definition, texts), _gold(definition, source, value, where)


def _told(
    definition: Definition, source: Source, row: Row, where: str, texts: Mapping[str, str]
) -> tuple[tuple[str, ...], int]:
    """Answers, and the gold one if the row tells it, else -1; of a text to be written the text, if the row has it."""
    name = definition.target or definition.gold
    try:
        value = _value(source, row, name, where, [name])
        return _right(definition, source, value, where, texts)
    except SoftpruneError:
        return ("",) if definition.is_generation else _answers(definition, texts), -1


def _expanded(source: Source, located: Located) -> Iterator[Row]:
    if source.rows is None:
        yield located.row
        return
    try:
        yield from ROW_READERS[source.rows](located.row)
    except KeyError as error:
        raise _missing(error.args[0], located.row, located.where) from None
    except (TypeError, AttributeError) as error:
        expected = f"rows nested as the files of {source.rows} are"
        raise SoftpruneError(expected, f"{error} in {located.where}", "correct that row") from None


def _value(source: Source, row: Row, name: str, where: str, needed: Iterable[str]) -> Any:
    """The value of a name's column, one of those that are needed; dots lead into nested objects."""
    column = source.columns.get(name, name)
    if column in row:
        return row[column]
    value: Any = row
    for key in column.split("."):
        if not isinstance(value, Mapping) or key not in value:
            raise _missing(column, row, where, [source.columns.get(each, each) for each in needed])
        value = value[key]
    return value


def _missing(column: str, row: Row, where: str, wanted: Iterable[str] = ()) -> MissingColumn:
    expected = f"the columns {', '.join(wanted)}" if wanted else f"the column {column}"
    names = list(map(str, row))
    near = get_close_matches(column, names, n=1)
    hint = f'did you mean "{near[0]}"? ' if near else ""
    found = f'no "{column}" in {where}; its columns are {_listed(names)}'
    return MissingColumn(expected, found, f"{hint}rename the column")


def _listed(names: Sequence[str]) -> str:
    """The first names, each cut: a file without a header has whole texts for names."""
    shown = [name if len(name) <= _LETTERS else f"{name[:_LETTERS]}..." for name in names[:_NAMES]]
    return ", ".join(shown) + (f" and {len(names) - _NAMES} more" if len(names) > _NAMES else "")


def _text(value: object, name: str, where: str) -> str:
    if value is None:
        raise SoftpruneError(f"text in {name}", f"none in {where}", "fill it in, or remove the row")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise SoftpruneError(f"text in {name}", f"{value!r:.60} in {where}", "fix that value")
    return str(value).strip()


def _gold(definition: Definition, source: Source, value: object, where: str) -> int:
    if value is None:
        expected = f"a label out of {', '.join(source.labels)}"
        raise SoftpruneError(expected, f"none in {where}", "fill it in, or remove the row")
    key = label_key(value)
    if key not in source.labels:
        raise SoftpruneError(
            f"a label out of {', '.join(source.labels)}",
            f'"{key}" in {where}',
            "put yes, no, on and off in quotes in the task YAML; without them YAML reads true and false"
            if key.lower() in YAML_TRUTHS and {"true", "false"} & set(source.labels)
            else "correct the label, or add it to the source's `labels` in the task YAML",
        )
    return definition.answers.index(source.labels[key])
