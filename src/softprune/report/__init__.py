"""What a run folder says, for people: one self-contained page, its figures, and the comparison table.

Reads files only, so a report can be made again on any machine, without the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["comparison_table", "explain_comparisons", "write_report"]


def write_report(run_folder: str | Path, others: Sequence[str | Path] = ()) -> Path:
    """Write `report/index.html` and `report/figures/` into a run folder; returns the page.

    It shows the results of the runs in `others` beside its own.

    Raises:
        SoftpruneError: when a folder holds no readable run, or matplotlib, jinja2 or plotly isn't installed.
    """
    # Imported here, so that the command line's table needs neither matplotlib nor jinja2.
    from softprune.report.page import write

    return write(Path(run_folder), [Path(other) for other in others])


def comparison_table(run_folder: str | Path) -> Table:
    """The comparison table of a run folder, for a terminal.

    Raises:
        SoftpruneError: when the folder holds no readable run.
    """
    from softprune.report.run_reader import read_run
    from softprune.report.table import rich_table

    return rich_table(read_run(Path(run_folder)))


def explain_comparisons(run_folder: str | Path, others: Sequence[str | Path]) -> list[str]:
    """A line for each run that a run's page shows beside it, with the reason where scores can't be compared.

    Raises:
        SoftpruneError: when a folder holds no readable run.
    """
    from softprune.report import formatting
    from softprune.report.run_comparison import why_not
    from softprune.report.run_reader import read_run

    run = read_run(Path(run_folder))
    lines = []
    for other in others:
        reason = why_not(run, read_run(Path(other)))
        suffix = f" (not comparable: {reason})" if reason else ""
        lines.append(f"beside it: {formatting.printable(other)}{suffix}")
    return lines
