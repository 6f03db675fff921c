"""What a number with its interval says, in words; nothing is concluded from a number alone."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Final, TypeVar

from softprune.statistics.bootstrap import LEVEL, holm
from softprune.statistics.seeds import MIN_SEEDS
from softprune.studies.findings import Cell, Entry, shown

ABOVE, BELOW, NEITHER, UNTOLD = "above", "below", "no difference shown", "not measured"
AT_CHANCE: Final = "not interpretable"
NO_VERDICT: Final = "no verdict"

Key = TypeVar("Key", bound=Hashable)
Column = TypeVar("Column", bound=Hashable)


def verdict(cell: Cell, than: float = 0.0) -> str:
    """Whether a number's 95% interval lies above or below another; else that no difference is shown.

    A difference of trained prompts takes at least 3 seeds, and 0 must be rejected after the correction for the other
    differences of its family, too.
    """
    if cell.value is None or cell.low is None or cell.high is None:
        return UNTOLD
    if _few_seeds(cell):
        return f"{NO_VERDICT} ({cell.seeds} {'seed' if cell.seeds == 1 else 'seeds'})"
    if cell.p_holm is not None and than == 0.0 and cell.p_holm >= 1 - LEVEL:
        return NEITHER
    if cell.low > than:
        return ABOVE
    return BELOW if cell.high < than else NEITHER


def _few_seeds(cell: Cell) -> bool:
    return cell.seeds is not None and cell.seeds < MIN_SEEDS


def corrected(family: Sequence[Entry]) -> list[Entry]:
    """The same, with Holm's p-values of those from which something may be concluded; they are one family."""
    at = [i for i, cell in enumerate(family) if isinstance(cell, Cell) and _tested(cell)]
    cells = list(family)
    for i, p in zip(at, holm([_p(cells[i]) for i in at]), strict=True):
        cell = cells[i]
        assert isinstance(cell, Cell)
        cells[i] = replace(cell, p_holm=p)
    return cells


def _tested(cell: Cell) -> bool:
    return cell.p is not None and not cell.chance and not _few_seeds(cell)


def _p(entry: Entry) -> float:
    assert isinstance(entry, Cell)
    assert entry.p is not None
    return entry.p


def corrected_table(found: Mapping[Key, Mapping[Column, Entry]]) -> dict[Key, dict[Column, Entry]]:
    """The same of a table by rows and columns, all of whose differences are one family."""
    cells = iter(corrected([entry for row in found.values() for entry in row.values()]))
    return {name: {column: next(cells) for column in row} for name, row in found.items()}


def corrected_rows(found: Mapping[Key, Sequence[Cell]]) -> dict[Key, list[Cell]]:
    """The same of rows of differences."""
    table = corrected_table({name: dict(enumerate(row)) for name, row in found.items()})
    return {name: only_cells(row.values()) for name, row in table.items()}


def only_cells(entries: Iterable[Entry]) -> list[Cell]:
    """The numbers among them."""
    return [entry for entry in entries if isinstance(entry, Cell)]


def said(what: str, cell: Cell) -> str:
    """A difference as a sentence without its full stop: A less B on trec: +3.0 (+1.0 to +5.0) points, above."""
    told = AT_CHANCE if cell.chance else verdict(cell)
    return f"{what}: {shown(cell)}{' points' if cell.unit == 'points' else ''}, {told}"


def tally(cells: Sequence[Cell], than: float = 0.0) -> str:
    """How many of several intervals lie above, below, and on neither side; what allows no verdict counts apart."""
    found = [AT_CHANCE if cell.chance else verdict(cell, than) for cell in cells]
    parts = [f"{found.count(ABOVE)} above", f"{found.count(BELOW)} below", f"{found.count(NEITHER)} undecided"]
    others = sorted(set(found) - {ABOVE, BELOW, NEITHER})
    return ", ".join(parts + [f"{found.count(each)} {each}" for each in others])


def mean_of(cells: Sequence[Cell]) -> float | None:
    """The mean of those that were measured."""
    values = [cell.value for cell in cells if cell.value is not None]
    return fmean(values) if values else None


def interval_note(seeds: int) -> str:
    """What 95% intervals over so many seeds cover, as a sentence; each seed of a study is a run of its own."""
    if seeds >= MIN_SEEDS:
        return "95% intervals cover other runs (seeds) and other examples."
    return f"95% intervals cover other examples, for these very prompts; fewer than {MIN_SEEDS} seeds allow no verdict."


def paired_note(seeds: int) -> str:
    """The same under a table of differences."""
    holm_note = " Verdicts are corrected for all differences of the table (Holm)." if seeds >= MIN_SEEDS else ""
    return f"Paired over the examples of report, means over seeds. {interval_note(seeds)}{holm_note}"
