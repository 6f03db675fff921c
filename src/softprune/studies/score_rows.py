"""Rows of a study's table: what a setting scores on each task, over seeds, and by how much it differs from another.

The statistics are those of comparisons (`compare.statistics`): means over seeds, intervals that cover seeds and the
examples of `report` from 3 seeds on, differences paired over both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np

from softprune.data import load_task
from softprune.statistics.bootstrap import Score
from softprune.statistics.methods_over_seeds import Scored, difference, mean_score, same_examples, spread
from softprune.studies.findings import Cell, Entry, Table
from softprune.studies.run_result import FinishedRun
from softprune.studies.study_context import StudyContext
from softprune.studies.verdicts import corrected_table, interval_note, paired_note

Runs = Mapping[tuple[str, int], FinishedRun]
"""By task and seed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a setting reached on one task.

    Attributes:
        values: the metric on `report` of each seed.
        scored: the counts of every example, of each seed.
        draws: how many of them in turn belong to one seed, such as several random masks of one prompt.
        trained: whether seeds differ at all; the model without a prompt has none.
    """

    values: tuple[float, ...]
    scored: tuple[Scored | None, ...]
    draws: int = 1
    trained: bool = True

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return fmean(self.values)


Row = Mapping[str, Outcome | None]
"""By task; None where it wasn't measured."""


def collect_row(study: StudyContext, runs: Runs, name: str) -> dict[str, Outcome]:
    """One result of all runs, by task."""
    return {task: collect_outcome([runs[task, seed] for seed in study.seeds], name) for task in study.tasks}


def collect_outcome(runs: Sequence[FinishedRun], name: str) -> Outcome:
    """One result of the runs of a task."""
    return Outcome(tuple(made.value(name) for made in runs), tuple(made.scored(name) for made in runs))


def chances(study: StudyContext, runs: Runs) -> dict[str, bool]:
    """By task, whether any seed's tuned prompt isn't shown to be above the constant answer."""
    return {task: not all(runs[task, seed].interpretable for seed in study.seeds) for task in study.tasks}


def score_cell(study: StudyContext, task: str, outcome: Outcome | None, chance: bool = False) -> Cell:
    """The mean over seeds with its interval."""
    if outcome is None:
        return Cell(None)
    metric = load_task(task).metric
    score, (scored,) = by_seed(metric.score, outcome)
    values = [fmean(outcome.values[at : at + outcome.draws]) for at in range(0, len(outcome.values), outcome.draws)]
    found = spread(values, scored, score, seed=study.config.seed, resamples=_resamples(study))
    low, high = (None, None) if found.interval is None else (found.interval.low, found.interval.high)
    return Cell(found.mean, low, high, chance=chance)


def difference_cell(
    study: StudyContext, task: str, ours: Outcome | None, theirs: Outcome | None, chance: bool = False
) -> Cell:
    """One setting minus another, in points, paired over seeds and examples."""
    if ours is None or theirs is None:
        return Cell(None, unit="points")
    score, (a, b) = by_seed(load_task(task).metric.score, ours, theirs)
    settings: dict[str, Any] = {"seed": study.config.seed, "resamples": _resamples(study)}
    found = difference(a, b, score, untrained=not theirs.trained, **settings)
    if found is None:
        return Cell(ours.mean - theirs.mean, unit="points", chance=chance)
    return Cell(found.value, found.low, found.high, "points", chance, seeds=found.seeds, p=found.p)


def by_seed(score: Score, *outcomes: Outcome) -> tuple[Score, list[list[Scored | None]]]:
    """Outcomes with one array of counts for each seed, and the score that takes such arrays.

    Draws of one seed are no seeds: their counts stand side by side, `[N, draws * C]`, and the score is their mean. A
    side with fewer draws is repeated, so that one score serves all.
    """
    most = max(outcome.draws for outcome in outcomes)
    width = next((each.counts_NC.shape[1] for o in outcomes for each in o.scored if each is not None), 1)

    def joined(outcome: Outcome, at: int) -> Scored | None:
        draws = outcome.scored[at : at + outcome.draws]
        runs = same_examples(draws)
        if runs is None or most % outcome.draws:
            return None
        counts = np.concatenate([run.counts_NC for run in runs] * (most // outcome.draws), axis=1)
        return replace(runs[0], counts_NC=counts)

    found = [[joined(outcome, at) for at in range(0, len(outcome.scored), outcome.draws)] for outcome in outcomes]
    return partial(mean_score, width=width, score=score), found


def score_table(
    study: StudyContext,
    name: str,
    title: str,
    rows: Mapping[str, Row],
    chance: Mapping[str, bool],
    *,
    note: str = "",
) -> Table:
    """Settings by tasks; the mean over the tasks behind them where there are several.

    Args:
        study: of the study.
        name, title, note: the table's.
        rows: by label.
        chance: by task, as `chances` tells.
    """
    several = len(study.tasks) > 1
    cells: list[tuple[Entry, ...]] = []
    for label, row in rows.items():
        line: list[Entry] = [label, *(score_cell(study, t, row[t], chance[t]) for t in study.tasks)]
        if several:
            line.append(_mean_cell([row[task] for task in study.tasks], any(chance.values())))
        cells.append(tuple(line))
    columns = ("%", *study.tasks, *(("mean",) if several else ()))
    return Table(name, title, columns, tuple(cells), note or mean_note(len(study.seeds)))


def difference_table(
    study: StudyContext,
    name: str,
    title: str,
    rows: Mapping[str, Row],
    reference: str,
    chance: Mapping[str, bool],
    *,
    note: str = "",
) -> Table:
    """The same less one of the rows, in points."""
    found = corrected_table(
        {
            label: {t: difference_cell(study, t, row[t], rows[reference][t], chance[t]) for t in study.tasks}
            for label, row in rows.items()
            if label != reference
        }
    )
    cells: tuple[tuple[Entry, ...], ...] = tuple((label, *row.values()) for label, row in found.items())
    columns = (f"points above {reference}", *study.tasks)
    return Table(name, title, columns, cells, note or paired_note(len(study.seeds)))


def _mean_cell(outcomes: Sequence[Outcome | None], chance: bool) -> Cell:
    """Over the tasks; not measured where one of them isn't."""
    means = [outcome.mean for outcome in outcomes if outcome is not None]
    return Cell(fmean(means), chance=chance) if len(means) == len(outcomes) else Cell(None)


def mean_note(seeds: int) -> str:
    """The note under a table of means."""
    return f"Mean over {seeds} {'seed' if seeds == 1 else 'seeds'}. {interval_note(seeds)}"


def _resamples(study: StudyContext) -> int:
    return study.spec(study.tasks[0], study.config.seed).recipe.selection.resamples
