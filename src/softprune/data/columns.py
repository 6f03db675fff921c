"""What the columns of a file are like: which one may be the label, which ones are texts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from softprune.config.registry import unknown
from softprune.data.definition import label_key
from softprune.data.row_files import Located
from softprune.errors import SoftpruneError

MOST_ANSWERS = 50
"""Different values of a column that may still be a label."""
LABEL_NAMES = ("label", "labels", "target", "class", "category", "gold", "answer", "sentiment", "intent", "topic", "y")
ID_NAMES = ("id", "idx", "index", "uuid", "guid", "key")


@dataclass(slots=True)
class Column:
    """A column, as far as it was read.

    Attributes:
        name: as the file has it.
        rows: rows that have it.
        words: words in all of them, by white space.
        plain: whether every value is text, a number or a truth value.
        numeric: whether every value reads as a number or a truth value.
        empty: where its first empty value stands.
        nan: where its first "nan" is: a missing value among numbers, a word among texts.
        counts: value to its rows; given up (empty) beyond `MOST_ANSWERS` values.
    """

    name: str
    rows: int = 0
    words: int = 0
    plain: bool = True
    numeric: bool = True
    empty: str | None = None
    nan: str | None = None
    counts: Counter[str] = field(default_factory=Counter)
    crowded: bool = False

    def add(self, value: object, where: str) -> None:
        """Take one more value into account."""
        self.rows += 1
        if value is None:
            self.empty = self.empty or where
            return
        key = label_key(value)
        self.words += len(key.split())
        self.plain &= isinstance(value, str | int | float)
        if key.strip().lower() == "nan":
            self.nan = self.nan or where
        else:
            self.numeric &= not isinstance(value, str) or _is_number(value)
        if not key.strip():
            self.empty = self.empty or where
        if not self.crowded:
            self.counts[key] += 1
            self.crowded = len(self.counts) > MOST_ANSWERS

    @property
    def may_be_label(self) -> bool:
        """Whether it has few values, each of them more than once on average."""
        return self.plain and not self.crowded and 2 <= len(self.counts) <= max(2, self.rows / 2)

    @property
    def reads(self) -> float:
        """Mean words, 0 for what isn't text."""
        return 0.0 if self.numeric or not self.plain else self.words / self.rows


def read_columns(rows: Iterable[Located]) -> dict[str, Column]:
    """The columns of a file by name, in order. Only counts are kept of the rows.

    Raises:
        SoftpruneError: as reading the file does.
    """
    columns: dict[str, Column] = {}
    for located in rows:
        for name, value in located.row.items():
            columns.setdefault(name, Column(name)).add(value, located.where)
    return columns


def choose_label(columns: Mapping[str, Column], asked: str | None) -> Column:
    """The label's column: the one asked for, one that is named like a label, or the one with the fewest values.

    Raises:
        SoftpruneError: when there is none, or the one asked for isn't there or has too many values or an empty one.
    """
    label = _known(columns, asked) if asked is not None else _guessed_label(columns)
    empty = label.empty or (label.nan if label.numeric else None)
    if empty is not None:
        do = "fill it in, or remove the row"
        raise SoftpruneError(f"a label in every row of {label.name}", f"none in {empty}", do)
    if not label.plain:
        found = f"lists, objects, dates or other values in {label.name}"
        do = f"write them as text, or name another one with --label; there are {', '.join(columns)}"
        raise SoftpruneError("a label column of texts, numbers or truth values", found, do)
    if label.crowded or len(label.counts) < 2:
        count = f"more than {MOST_ANSWERS}" if label.crowded else str(len(label.counts))
        raise SoftpruneError(
            f"a label column of 2 to {MOST_ANSWERS} different values",
            f"{count} in {label.name}",
            f"name another one with --label; there are {', '.join(columns)}",
        )
    return label


def choose_target(columns: Mapping[str, Column], asked: str) -> Column:
    """The column with the texts that are to be written.

    Raises:
        SoftpruneError: when it isn't there, holds no text, or misses one.
    """
    target = _known(columns, asked)
    if target.empty is not None:
        raise SoftpruneError(f"a text in every row of {target.name}", f"none in {target.empty}", "fill it in")
    if target.reads == 0:
        found = f"{target.name}, which holds none"
        raise SoftpruneError("a column of texts to be written", found, f"name another one; there are {_names(columns)}")
    return target


def choose_longest_text(columns: Mapping[str, Column], asked: Sequence[str], target: Column) -> tuple[Column, ...]:
    """The columns to read where a text is written: those asked for, or the one with the longest texts.

    Raises:
        SoftpruneError: when there is none, or one that is asked for isn't there or is the target.
    """
    if target.name in asked:
        found = f"{target.name} as both"
        raise SoftpruneError("texts to read beside the one to be written", found, "name another --text or --target")
    found_texts = choose_texts(columns, asked, target, "target")
    return found_texts if asked else (max(found_texts, key=lambda column: column.reads),)


def choose_texts(
    columns: Mapping[str, Column], asked: Sequence[str], label: Column, called: str = "label"
) -> tuple[Column, ...]:
    """The columns to read: those asked for, or all that hold words, in the file's order.

    Raises:
        SoftpruneError: when there is none, or one that is asked for isn't there.
    """
    if asked:
        return tuple(_known(columns, name) for name in asked)
    others = [column for column in columns.values() if column is not label and column.name.lower() not in ID_NAMES]
    sentences = [column for column in others if column.reads >= 2]
    found = sentences or [column for column in others if column.reads > 0]
    if not found:
        do = f"name it with --text; there are {', '.join(columns)}"
        raise SoftpruneError(f"a column of texts beside the {called}", f"none ({called}: {label.name})", do)
    return tuple(found)


def _guessed_label(columns: Mapping[str, Column]) -> Column:
    named = {column.name.lower(): column for column in columns.values()}
    for name in LABEL_NAMES:
        if name in named and not named[name].crowded:
            return named[name]
    fitting = [c for c in columns.values() if c.may_be_label and c.name.lower() not in ID_NAMES]
    if not fitting:
        found = f"none among {', '.join(columns)}"
        raise SoftpruneError(f"a label column of 2 to {MOST_ANSWERS} different values", found, "name one with --label")
    return min(fitting, key=lambda column: (len(column.counts), column.words))


def _names(columns: Mapping[str, Column]) -> str:
    return ", ".join(columns)


def _known(columns: Mapping[str, Column], name: str) -> Column:
    if name not in columns:
        raise unknown("column", name, columns)
    return columns[name]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return text.lower() in ("true", "false")
