"""What a number with its interval says, in words; nothing is concluded from a number alone."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Final

from softprune.study.findings import Cell, shown

ABOVE, BELOW, NEITHER, UNTOLD = "above", "below", "no difference shown", "not measured"
AT_CHANCE: Final = "not interpretable"


def verdict(cell: Cell, than: float = 0.0) -> str:
    """Whether a number's 95% interval lies above or below another; else that no difference is shown."""
    if cell.value is None or cell.low is None or cell.high is None:
        return UNTOLD
    if cell.low > than:
        return ABOVE
    return BELOW if cell.high < than else NEITHER


def said(what: str, cell: Cell) -> str:
    """A difference as a sentence without its full stop: A less B on trec: +3.0 (+1.0 to +5.0) points, above."""
    told = AT_CHANCE if cell.chance else verdict(cell)
    return f"{what}: {shown(cell)}{' points' if cell.unit == 'points' else ''}, {told}"


def tally(cells: Sequence[Cell], than: float = 0.0) -> str:
    """How many of several intervals lie above, below, and on neither side; what isn't interpretable counts apart."""
    found = [AT_CHANCE if cell.chance else verdict(cell, than) for cell in cells]
    parts = [f"{found.count(ABOVE)} above", f"{found.count(BELOW)} below", f"{found.count(NEITHER)} undecided"]
    parts += [f"{found.count(each)} {each}" for each in (AT_CHANCE, UNTOLD) if each in found]
    return ", ".join(parts)


def mean_of(cells: Sequence[Cell]) -> float | None:
    """The mean of those that were measured."""
    values = [cell.value for cell in cells if cell.value is not None]
    return fmean(values) if values else None
