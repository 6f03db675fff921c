"""What a number with its interval says, in words; nothing is concluded from a number alone."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from softprune.statistics.bootstrap import LEVEL, holm
from softprune.statistics.seeds import MIN_SEEDS
from softprune.studies.findings import Cell, Entry, format_entry

ABOVE, BELOW, NEITHER, UNMEASURED = "above", "below", "no difference shown", "not measured"
AT_CHANCE: Final = "not interpretable"
NO_VERDICT: Final = "no verdict"
CHOSEN_HERE: Final = "chosen on the examples that are reported: no significance claimed"

Key = TypeVar("Key", bound=Hashable)
AnyEntry = TypeVar("AnyEntry", Cell, "Cell | str")


def verdict(cell: Cell) -> str:
    """Whether a number's 95% interval lies above or below 0; else that no difference is shown.

    A difference of trained prompts takes at least 3 seeds, and 0 must be rejected after the correction for the other
    differences of its family, too.
    """
    if cell.value is None or cell.low is None or cell.high is None:
        return UNMEASURED
    if _few_seeds(cell):
        return f"{NO_VERDICT} ({cell.seeds} seed{'s' * (cell.seeds != 1)})"
    if cell.p_holm is not None and cell.p_holm >= 1 - LEVEL:
        return NEITHER
    if cell.low > 0:
        return ABOVE
    return BELOW if cell.high < 0 else NEITHER


def difference_verdict(cell: Cell) -> str:
    """The same of a difference, which says nothing where the unpruned prompt is at chance."""
    return AT_CHANCE if cell.chance else verdict(cell)


def _few_seeds(cell: Cell) -> bool:
    return cell.seeds is not None and cell.seeds < MIN_SEEDS


def correct_family(family: Mapping[Key, AnyEntry]) -> dict[Key, AnyEntry]:
    """Differences with Holm's p-values, where something may be concluded from them; they are one family of tests."""
    corrected, p_values = dict(family), {}
    for at, cell in family.items():
        if isinstance(cell, Cell) and cell.p is not None and not cell.chance and not _few_seeds(cell):
            p_values[at] = cell.p
    for at, p in zip(p_values, holm(list(p_values.values())), strict=True):
        cell = corrected[at]
        assert isinstance(cell, Cell)
        corrected[at] = replace(cell, p_holm=p)
    return corrected


def only_cells(entries: Iterable[Entry]) -> list[Cell]:
    """The numbers among them."""
    return [entry for entry in entries if isinstance(entry, Cell)]


def describe_difference(what: str, cell: Cell) -> str:
    """A difference as a sentence without its full stop: A less B on trec: +3.0 (+1.0 to +5.0) points, above."""
    unit = " points" if cell.unit == "points" else ""
    return f"{what}: {format_entry(cell)}{unit}, {difference_verdict(cell)}"


def tally(cells: Sequence[Cell]) -> str:
    """How many of several intervals lie above, below, and on neither side; what allows no verdict counts apart."""
    verdicts = [difference_verdict(cell) for cell in cells]
    words = {ABOVE: "above", BELOW: "below", NEITHER: "undecided"}
    words |= {each: each for each in sorted(set(verdicts) - set(words))}
    return ", ".join(f"{verdicts.count(each)} {word}" for each, word in words.items())


def interval_note(seeds: int) -> str:
    """What 95% intervals over so many seeds cover, as a sentence; each seed of a study is a run of its own."""
    if seeds >= MIN_SEEDS:
        return "95% intervals cover other runs (seeds) and other examples."
    return f"95% intervals cover other examples, for these very prompts; fewer than {MIN_SEEDS} seeds allow no verdict."


def paired_note(seeds: int) -> str:
    """The same under a table of differences."""
    holm_note = " Verdicts are corrected for all differences of the table (Holm)." if seeds >= MIN_SEEDS else ""
    return f"Paired over the examples of report, means over seeds. {interval_note(seeds)}{holm_note}"
