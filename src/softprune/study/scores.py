"""Rows of a study's table: what a setting scores on each task, over seeds, and by how much it differs from another.

The statistics are those of comparisons (`compare.statistics`): means over seeds, intervals by bootstrap over the
examples of `report`, differences paired over examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from softprune.compare.statistics import Scored, difference, spread
from softprune.study.bench import Bench
from softprune.study.findings import Cell, Entry, Table
from softprune.study.made import Made
from softprune.tasks import load_task

Runs = Mapping[tuple[str, int], Made]
"""By task and seed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a setting reached on one task.

    Attributes:
        values: the metric on `report` of each seed.
        scored: the counts of every example, of each seed.
    """

    values: tuple[float, ...]
    scored: tuple[Scored | None, ...]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return fmean(self.values)


Row = Mapping[str, Outcome | None]
"""By task; None where it wasn't measured."""


def row_of(bench: Bench, runs: Runs, name: str) -> dict[str, Outcome]:
    """One result of all runs, by task."""
    return {task: outcome_of([runs[task, seed] for seed in bench.seeds], name) for task in bench.tasks}


def outcome_of(runs: Sequence[Made], name: str) -> Outcome:
    """One result of the runs of a task."""
    return Outcome(tuple(made.value(name) for made in runs), tuple(made.scored(name) for made in runs))


def chances(bench: Bench, runs: Runs) -> dict[str, bool]:
    """By task, whether any seed's tuned prompt isn't shown to be above the constant answer."""
    return {task: not all(runs[task, seed].interpretable for seed in bench.seeds) for task in bench.tasks}


def score_cell(bench: Bench, task: str, outcome: Outcome | None, chance: bool = False) -> Cell:
    """The mean over seeds with its interval."""
    if outcome is None:
        return Cell(None)
    metric = load_task(task).metric
    seed, resamples = bench.study.seed, _resamples(bench)
    found = spread(outcome.values, outcome.scored, metric.score, seed=seed, resamples=resamples)
    low, high = (None, None) if found.interval is None else (found.interval.low, found.interval.high)
    return Cell(found.mean, low, high, chance=chance)


def difference_cell(
    bench: Bench, task: str, ours: Outcome | None, theirs: Outcome | None, chance: bool = False
) -> Cell:
    """One setting minus another, in points, paired over the examples."""
    if ours is None or theirs is None:
        return Cell(None, unit="points")
    metric = load_task(task).metric
    found = difference(ours.scored, theirs.scored, metric.score, seed=bench.study.seed, resamples=_resamples(bench))
    if found is None:
        return Cell(ours.mean - theirs.mean, unit="points", chance=chance)
    return Cell(found.value, found.low, found.high, unit="points", chance=chance)


def score_table(
    bench: Bench,
    name: str,
    title: str,
    rows: Mapping[str, Row],
    chance: Mapping[str, bool],
    *,
    note: str = "",
) -> Table:
    """Settings by tasks; the mean over the tasks behind them where there are several.

    Args:
        bench: of the study.
        name, title, note: the table's.
        rows: by label.
        chance: by task, as `chances` tells.
    """
    several = len(bench.tasks) > 1
    cells: list[tuple[Entry, ...]] = []
    for label, row in rows.items():
        line: list[Entry] = [label, *(score_cell(bench, t, row[t], chance[t]) for t in bench.tasks)]
        if several:
            line.append(_mean_cell([row[task] for task in bench.tasks], any(chance.values())))
        cells.append(tuple(line))
    columns = ("%", *bench.tasks, *(("mean",) if several else ()))
    return Table(name, title, columns, tuple(cells), note or _note(bench))


def difference_table(
    bench: Bench,
    name: str,
    title: str,
    rows: Mapping[str, Row],
    reference: str,
    chance: Mapping[str, bool],
    *,
    note: str = "",
) -> Table:
    """The same less one of the rows, in points."""
    others = {label: row for label, row in rows.items() if label != reference}
    cells: tuple[tuple[Entry, ...], ...] = tuple(
        (label, *(difference_cell(bench, t, row[t], rows[reference][t], chance[t]) for t in bench.tasks))
        for label, row in others.items()
    )
    columns = (f"points above {reference}", *bench.tasks)
    return Table(name, title, columns, cells, note or "Paired over the examples of report, means over seeds.")


def _mean_cell(outcomes: Sequence[Outcome | None], chance: bool) -> Cell:
    """Over the tasks; not measured where one of them isn't."""
    means = [outcome.mean for outcome in outcomes if outcome is not None]
    return Cell(fmean(means), chance=chance) if len(means) == len(outcomes) else Cell(None)


def _note(bench: Bench) -> str:
    count = len(bench.seeds)
    return (
        f"Mean over {count} {'seed' if count == 1 else 'seeds'}; 95% interval by bootstrap over the examples of report."
    )


def _resamples(bench: Bench) -> int:
    return bench.spec(bench.tasks[0], bench.study.seed).recipe.selection.resamples
