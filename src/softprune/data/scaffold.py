"""A first task YAML from a file's columns, to be read and edited by its owner."""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from softprune.config.registry import unknown
from softprune.data.definition import MASK, label_key
from softprune.data.row_files import ENDINGS, file_format, read_rows
from softprune.data.splits import Splits
from softprune.data.task import load_task
from softprune.errors import SoftpruneError

HELD_OUT = 0.2
ASKS_FOR_TEXT = "TL;DR:"
"""What a template puts before a text that is to be written: models that read the web know that a summary follows."""
TRUTHS = {"true": "yes", "false": "no"}
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
            self.is_numeric &= not isinstance(value, str) or not math.isnan(_size(value))
        if not key.strip():
            self.empty = self.empty or where
        if not self.is_crowded:
            self.counts[key] += 1
            self.is_crowded = len(self.counts) > MOST_ANSWERS

    @property
    def mean_words(self) -> float:
        """Words a row, 0 for what isn't text."""
        return 0.0 if self.is_numeric or not self.is_plain else self.words / self.rows


def _size(text: str) -> float:
    """A number's size, by which labels are sorted, truth values behind them; NaN for any other text."""
    if text.lower() in TRUTHS:
        return math.inf
    try:
        return float(text) if math.isfinite(float(text)) else math.nan
    except ValueError:
        return math.nan


@dataclass(frozen=True, slots=True)
class Guess:
    """What a file seems to hold."""

    label: Column  # its label's column, or that of the texts to be written
    texts: tuple[Column, ...]  # the columns to read, in order
    fields: tuple[str, ...]  # per text, its name in the task
    answers: dict[str, str]  # label, as the rows have it, to an answer; none where texts are written
    template: str  # the input
    others: tuple[str, ...]  # columns that are left out

    @property
    def is_generation(self) -> bool:
        """Whether texts are to be written."""
        return not self.answers

    @property
    def to_be_edited(self) -> bool:
        """Whether answers are numbers with a word before them, since nothing better is known."""
        truths = set(TRUTHS.values())
        return not self.is_generation and self.label.is_numeric and not set(self.answers.values()) <= truths


def guess(
    file: Path,
    validation: Path | None = None,
    text: Sequence[str] = (),
    label: str | None = None,
    target: str | None = None,
) -> Guess:
    """What the columns of training examples mean, and of examples to report on; those that aren't named are guessed.

    The names are those of columns: texts to read, and the label or, without labels, the texts to be written (`target`).
    A SoftpruneError where a file can't be read, or a column isn't what it should be.
    """
    if label is not None and target is not None:
        found, do = f"--label {label} and --target {target}", "leave one of them out"
        raise SoftpruneError("a label to choose, or a text to write", found, do)
    columns = _read_columns(*(path for path in (file, validation) if path is not None))
    if not columns:
        raise SoftpruneError("rows to learn from", f"none in {file}", "choose another file")
    answer = _choose_label(columns, label) if target is None else _choose_target(columns, target)
    texts = _choose_texts(columns, text, answer, is_target=target is not None)
    fields = _field_names(texts, answer)
    shown = f"{{{fields[0]}}}"
    if len(fields) > 1:  # each text under its name
        shown = " ".join(f"{field.replace('_', ' ')}: {{{field}}}" for field in fields)
    answers, question = {}, ASKS_FOR_TEXT
    if target is None:
        answers = _guess_answers(answer)
        name = _plain_name(answer.name).replace("_", " ").lower()
        says_nothing = name in (*LABEL_NAMES[:4], *ID_NAMES, "y")
        question = "answer:" if says_nothing else f"{name}:"
    others = tuple(name for name, column in columns.items() if column is not answer and column not in texts)
    return Guess(answer, texts, fields, answers, f"{shown} {question} {{{MASK}}}", others)


def _read_columns(*files: Path) -> dict[str, Column]:
    """The columns of some files by name, in order. Only counts are kept of the rows."""
    columns: dict[str, Column] = {}
    for path in files:
        kind = file_format(path)
        if kind is None:
            expected = f"a file that ends in {', '.join(ENDINGS)} (or .gz, .xz)"
            raise SoftpruneError(expected, str(path), "convert or rename it")
        if not path.is_file():
            raise SoftpruneError("a file with one example per row", f"no file {path}", "check the path")
        for located in read_rows(path, kind):
            for name, value in located.row.items():
                columns.setdefault(name, Column(name)).add(value, located.where)
    return columns


def _choose_label(columns: Mapping[str, Column], asked: str | None) -> Column:
    """The label's column: the one asked for, one that is named like a label, or the one with the fewest values."""
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


def _choose_target(columns: Mapping[str, Column], asked: str) -> Column:
    """The column with the texts that are to be written."""
    target = _known(columns, asked)
    if target.empty is not None:
        raise SoftpruneError(f"a text in every row of {target.name}", f"none in {target.empty}", "fill it in")
    if target.mean_words == 0:
        do = f"name another one; there are {', '.join(columns)}"
        raise SoftpruneError("a column of texts to be written", f"{target.name}, which holds none", do)
    return target


def _choose_texts(
    columns: Mapping[str, Column], asked: Sequence[str], answer: Column, *, is_target: bool
) -> tuple[Column, ...]:
    """The columns to read: those asked for, or all that hold words, in the file's order.

    Beside texts to be written (`is_target`) it is one column, the one with the longest texts.
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


def _field_names(texts: Sequence[Column], label: Column) -> tuple[str, ...]:
    """Names for a template's braces, all different, and none of them the label's."""
    names = [MASK, _plain_name(label.name)]
    for column in texts:
        name = plain = _plain_name(column.name)
        numbers = count(2)
        while name in names:
            name = f"{plain}_{next(numbers)}"
        names.append(name)
    return tuple(names[2:])


def _plain_name(name: str) -> str:
    """A column's name as a name in braces: letters, digits and underscores, a letter first."""
    plain = re.sub(r"\W+", "_", name).strip("_")
    return plain if plain and not plain[0].isdigit() else f"column_{plain}".rstrip("_")


def _guess_answers(label: Column) -> dict[str, str]:
    """Label to answer: its own words; yes and no; numbers get a word to go with them."""
    answers = {}
    for value in sorted(sorted(label.counts), key=_size) if label.is_numeric else label.counts:
        named = f"{_plain_name(label.name)} {value}" if label.is_numeric else " ".join(value.split())
        words = TRUTHS.get(value.lower(), named)
        answers[value] = words.replace("{", "{{").replace("}", "}}")  # as in templates
    if len(set(answers.values())) < len(answers):
        found = ", ".join(f'"{value}"' for value in answers)
        raise SoftpruneError(f"labels in {label.name} that differ by more than blanks", found, "correct the labels")
    return answers


def write_task(guessed: Guess, out: Path, file: Path, validation: Path | None = None) -> Splits:
    """Write the YAML, and load it to see that it works; else it is deleted. One that is there already stays."""
    if out.suffix not in (".yaml", ".yml"):
        raise SoftpruneError("a task file that ends in .yaml", str(out), "rename it")
    try:
        with out.open("x", encoding="utf-8") as stream:
            stream.write(_task_text(guessed, out, file, validation))
    except FileExistsError:
        raise SoftpruneError("a new file", f"{out} is there already", "choose another one with --out") from None
    except OSError as error:
        raise SoftpruneError("a file that can be written", f"{out}: {error.strerror}", "choose another --out") from None
    try:
        return load_task(out).load()
    except BaseException:  # Ctrl-C too: a file that was never read through may be wrong
        out.unlink()
        raise


def _task_text(guessed: Guess, out: Path, file: Path, validation: Path | None) -> str:
    """The YAML, every line of it explained."""
    gold = _plain_name(guessed.label.name)
    columns = {field: column.name for field, column in zip(guessed.fields, guessed.texts, strict=True)}
    columns[gold] = guessed.label.name
    columns = {field: name for field, name in columns.items() if field != name}
    files = {"train": _relative_path(out, file)}
    if validation is not None:
        files["validation"] = _relative_path(out, validation)
    lines = [
        f"# A task over {file.name}, written by softprune tasks new. docs/tasks.md explains every key.",
        "# Its name in tables.",
        f"title: {_flow(out.stem)}",
        "# The task in one English sentence; a prompt may start from it (--init text).",
        'instruction: ""',
        "# The texts of an example; all of them may be cut where the input is too long.",
        f"fields: {_flow(list(guessed.fields))}",
        "# The input: texts in braces, and {mask} where the answer goes.",
        f"template: {_flow(guessed.template)}",
    ]
    if guessed.is_generation:
        lines += ["# The column with the text that the model is to write.", f"target: {_flow(gold)}"]
    else:
        wording = "Plain words work best."
        if guessed.to_be_edited:
            wording = "Numbers say nothing to a language model: put words here, and in `labels` below."
        lines += [f"# What the model may answer. {wording}", f"answers: {_flow(list(guessed.answers.values()))}"]
        lines += ["# The column with the right answer.", f"gold: {_flow(gold)}"]
    lines += ["sources:", "  file:", "    # Relative to this file, or absolute.", f"    files: {_flow(files)}"]
    if validation is None:
        drawn = "at random" if guessed.is_generation else "by label"
        lines.append(f"    # The fraction of train to report on: drawn {drawn}, the same examples in every run.")
        lines.append(f"    held_out: {HELD_OUT}")
    if columns:
        lines += ["    # Name in this task: column of the file.", f"    columns: {_flow(columns)}"]
    if any(label != answer for label, answer in guessed.answers.items()):
        lines += ["    # Label in the file: the answer that it means.", f"    labels: {_flow(guessed.answers)}"]
    return "\n".join(lines) + "\n"


def _relative_path(out: Path, file: Path) -> str:
    """The file as the YAML names it: relative where it lies in the YAML's folder or below."""
    folder, whole = out.resolve().parent, file.resolve()
    return whole.relative_to(folder).as_posix() if whole.is_relative_to(folder) else whole.as_posix()


def _flow(value: Any) -> str:
    """A value as YAML on one line, in quotes where it needs them."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=sys.maxsize, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")
