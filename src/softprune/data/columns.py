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
_FEW_VALUES = f"a label column of 2 to {MOST_ANSWERS} different values"
ID_NAMES = ("id", "idx", "index", "uuid", "guid", "key")


@dataclass(slots=True)
class Column:
    """A column, as far as it was read."""

    name: str  # as the file has it
    rows: int = 0  # rows that have it
    words: int = 0  # words in all of them, by white space
    is_plain: bool = True  # whether every value is text, a number or a truth value
    is_numeric: bool = True  # whether every value reads as a number or a truth value
    empty: str | None = None  # the place of its first empty value
    nan: str | None = None  # the place of its first "nan": a missing value among numbers, a word among texts
    # Value to its rows; not continued beyond `MOST_ANSWERS` values.
    counts: Counter[str] = field(default_factory=Counter)
    is_crowded: bool = False  # whether it has more of them

    def add(self, value: object, where: str) -> None:
        """Take one more value into account."""
        self.rows += 1
        if value is None:
            self.empty = self.empty or where
            return
        key = label_key(value)
        self.words += len(key.split())
        self.is_plain &= isinstance(value, str | int | float)
        if key.strip().lower() == "nan":
            self.nan = self.nan or where
        else:
            self.is_numeric &= not isinstance(value, str) or _is_number(value)
        if not key.strip():
            self.empty = self.empty or where
        if not self.is_crowded:
            self.counts[key] += 1
            self.is_crowded = len(self.counts) > MOST_ANSWERS

    @property
    def mean_words(self) -> float:
        """Words a row, 0 for what isn't text."""
        return 0.0 if self.is_numeric or not self.is_plain else self.words / self.rows


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return text.lower() in ("true", "false")


def read_columns(rows: Iterable[Located]) -> dict[str, Column]:
    """The columns of a file by name, in order. Only counts are kept of the rows."""
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
    label = _known(columns, asked) if asked is not None else _guess_label(columns)
    other = f"name another one with --label; there are {', '.join(columns)}"
    empty = label.empty or (label.nan if label.is_numeric else None)
    if empty is not None:
        expected = f"a label in every row of {label.name}"
        raise SoftpruneError(expected, f"none in {empty}", "fill it in, or remove the row")
    if not label.is_plain:
        expected = "a label column of texts, numbers or truth values"
        found = f"lists, objects, dates or other values in {label.name}"
        raise SoftpruneError(expected, found, f"write them as text, or {other}")
    if label.is_crowded or len(label.counts) < 2:
        count = f"more than {MOST_ANSWERS}" if label.is_crowded else str(len(label.counts))
        raise SoftpruneError(_FEW_VALUES, f"{count} in {label.name}", other)
    return label


def _guess_label(columns: Mapping[str, Column]) -> Column:
    named = {column.name.lower(): column for column in columns.values()}
    for name in LABEL_NAMES:
        if name in named and not named[name].is_crowded:
            return named[name]
    fitting = []
    for column in columns.values():
        # A label has few values, each of them in two rows or more on average.
        has_few = column.is_plain and not column.is_crowded and 2 <= len(column.counts) <= max(2, column.rows / 2)
        if has_few and column.name.lower() not in ID_NAMES:
            fitting.append(column)
    if not fitting:
        raise SoftpruneError(_FEW_VALUES, f"none among {', '.join(columns)}", "name one with --label")
    return min(fitting, key=lambda column: (len(column.counts), column.words))


def choose_target(columns: Mapping[str, Column], asked: str) -> Column:
    """The column with the texts that are to be written.

    Raises:
        SoftpruneError: when it isn't there, holds no text, or misses one.
    """
    target = _known(columns, asked)
    if target.empty is not None:
        raise SoftpruneError(f"a text in every row of {target.name}", f"none in {target.empty}", "fill it in")
    if target.mean_words == 0:
        do = f"name another one; there are {', '.join(columns)}"
        raise SoftpruneError("a column of texts to be written", f"{target.name}, which holds none", do)
    return target


def choose_texts(
    columns: Mapping[str, Column], asked: Sequence[str], answer: Column, *, is_target: bool
) -> tuple[Column, ...]:
    """The columns to read: those asked for, or all that hold words, in the file's order.

    Args:
        columns: of the file, by name.
        asked: names of columns.
        answer: the label's column, or that of the texts to be written.
        is_target: whether it is the latter; then one column is read, the one with the longest texts.

    Raises:
        SoftpruneError: when there is none, or one that is asked for isn't there or is to be written.
    """
    if is_target and answer.name in asked:
        do = "name another --text or --target"
        raise SoftpruneError("texts to read beside the one to be written", f"{answer.name} as both", do)
    if asked:
        return tuple(_known(columns, name) for name in asked)
    others = [column for column in columns.values() if column is not answer and column.name.lower() not in ID_NAMES]
    for least in (2, 0):  # columns of sentences before those of single words
        texts = tuple(column for column in others if column.mean_words >= least and column.mean_words > 0)
        if texts:
            return (max(texts, key=lambda column: column.mean_words),) if is_target else texts
    kind = "target" if is_target else "label"
    do = f"name it with --text; there are {', '.join(columns)}"
    raise SoftpruneError(f"a column of texts beside the {kind}", f"none ({kind}: {answer.name})", do)


def _known(columns: Mapping[str, Column], name: str) -> Column:
    if name not in columns:
        raise unknown("column", name, columns)
    return columns[name]
