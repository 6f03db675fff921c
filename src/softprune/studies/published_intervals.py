"""Accuracies that a source prints without an interval: the interval that follows from its number of examples.

Options of the study that are read here:

examples: by the name of a row of the first published table, how many examples its accuracies are of.
constant: by the same names, how many of them the best constant answer gets right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from softprune.config import Published
from softprune.studies.findings import Cell, Entry, Table


def wilson_interval(right: int, examples: int) -> tuple[float, float]:
    """The 95% interval of a proportion, of `right` among `examples`, by Wilson's score (1927)."""
    from scipy.stats import binomtest  # takes seconds to import

    interval = binomtest(right, examples).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def count_right(printed: str, examples: int) -> int | None:
    """How many right answers of some examples an accuracy in percent stands for; None where no number rounds to it."""
    text = printed.strip().rstrip("%")
    unit = 10.0 ** -len(text.partition(".")[2])  # its decimals say how far it was rounded, or cut off
    right = round(float(text) / 100 * examples)
    return right if abs(100 * right / examples - float(text)) < unit else None


def published_intervals(published: Sequence[Published], options: Mapping[str, Any]) -> tuple[list[Table], list[str]]:
    """Accuracies of the first published table with their 95% intervals, beside the constant answer's; and in words."""
    examples: Mapping[str, int] = options.get("examples") or {}
    if not examples or not published:
        return [], []
    constant: Mapping[str, int] = options.get("constant") or {}
    columns = [place for place, head in enumerate(published[0].columns) if place and head.startswith("accuracy")]
    heads = [published[0].columns[place] for place in columns]
    rows: list[list[Entry]] = []
    sentences: list[str] = []
    for row in published[0].rows:
        if row[0] not in examples:
            continue
        count, floor = examples[row[0]], constant.get(row[0])
        cells = [_accuracy_cell(row[place], count) for place in columns]
        rows.append([row[0], f"{count:,}", Cell(None if floor is None else floor / count), *cells])
        if floor is not None:
            share = floor / count
            each = ", ".join(f"{head} {_compare(cell, share)}" for head, cell in zip(heads, cells, strict=True))
            sizes = f"{count:,} examples, the constant answer {_percent(share)}"
            sentences.append(f"The source's {row[0]}, {sizes}: {each}.")
    note = (
        "95% intervals by Wilson's score from the printed accuracies; the source prints none. "
        "They hold for these very trained prompts, not for others trained with other seeds, and "
        "make no allowance for choosing the best of several candidates on the same examples."
    )
    head = ("%", "examples", "constant", *heads)
    return [Table("source-intervals", "Intervals of the source's accuracies", head, rows, note)], sentences


def _accuracy_cell(printed: str, examples: int) -> Entry:
    """An accuracy with its interval; as it is printed where it is no number, or none of so many examples."""
    try:
        right = count_right(printed, examples)
    except ValueError:
        return printed
    if right is None:
        return f"{printed} (no number of {examples} rounds to it)"
    return Cell(right / examples, *wilson_interval(right, examples), note=f"({right} right)")


def _compare(cell: Entry, constant: float) -> str:
    """An accuracy against the constant answer's."""
    if isinstance(cell, str) or cell.value is None or cell.low is None or cell.high is None:
        return str(cell)
    interval = f"{_percent(cell.value)} ({_percent(cell.low)} to {_percent(cell.high)})"
    if cell.value == constant:
        return f"{interval}: as many right as the constant answer"
    if cell.low > constant:
        return f"{interval}: its interval lies above it"
    return f"{interval}: {'its interval lies below it' if cell.high < constant else 'not shown to be above it'}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"
