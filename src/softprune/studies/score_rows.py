"""Rows of a study's tables: what a setting scores on each task, over seeds, and by how much it differs from another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean
from typing import Any, TypeAlias

from softprune.data import load_task
from softprune.statistics.methods_over_seeds import Outcome, difference, spread
from softprune.studies.findings import Cell, Entry, Table
from softprune.studies.run_result import FinishedRun, collect_outcome
from softprune.studies.study_context import StudyContext
from softprune.studies.verdicts import CHOSEN_HERE, correct_family, describe_difference, interval_note, paired_note

Runs = Mapping[tuple[str, int], FinishedRun]  # by task and seed
# A task; or the task that a prompt was trained on and the task that it is asked on.
Place: TypeAlias = "str | tuple[str, str]"
Heads: TypeAlias = "Mapping[Any, str]"  # a table's columns: by place, its head


@dataclass(frozen=True, slots=True)
class Row:
    """What a setting reached, by place."""

    outcomes: Mapping[Any, Outcome | None]  # None where it wasn't measured
    at_chance: Mapping[Any, bool]  # whether the unpruned prompt behind it isn't shown to be above the constant answer
    missing: str = ""  # in every cell of a setting that has no outcomes at all


def collect_row(study: StudyContext, runs: Runs, name: str, at_chance: Mapping[str, bool] | None = None) -> Row:
    """One result of all runs, such as `winner`, by task; a task isn't measured where a seed has no run."""
    outcomes: dict[str, Outcome | None] = {}
    for task in study.tasks:
        own = [runs[task, seed] for seed in study.seeds if (task, seed) in runs]
        outcomes[task] = collect_outcome(own, name) if len(own) == len(study.seeds) else None
    return Row(outcomes, chances(study, runs) if at_chance is None else at_chance)


def chances(study: StudyContext, runs: Runs, result: str = "tuned") -> dict[str, bool]:
    """By task, whether a result of any seed, its tuned prompt's, isn't shown to be above the constant answer."""
    at_chance = {}
    for task in study.tasks:
        at_chance[task] = not all(runs[task, seed].is_above_constant(result) for seed in study.seeds)
    return at_chance


def score_cell(study: StudyContext, task: str, outcome: Outcome | None, chance: bool = False) -> Cell:
    """The mean over seeds with its interval."""
    if outcome is None:
        return Cell(None)
    score = load_task(task).metric.score
    over_seeds = spread(outcome, score, seed=study.config.seed, resamples=study.resamples)
    if over_seeds.interval is None:
        return Cell(over_seeds.mean, chance=chance)
    return Cell(over_seeds.mean, over_seeds.interval.low, over_seeds.interval.high, chance=chance)


def difference_cell(
    study: StudyContext, task: str, ours: Outcome | None, theirs: Outcome | None, chance: bool = False
) -> Cell:
    """One setting minus another, in points, paired over seeds and examples."""
    if ours is None or theirs is None:
        return Cell(None, unit="points")
    score = load_task(task).metric.score
    less = difference(ours, theirs, score, seed=study.config.seed, resamples=study.resamples)
    if less is None:
        return Cell(ours.mean - theirs.mean, unit="points", chance=chance)
    return Cell(less.value, less.low, less.high, "points", chance, seeds=less.seeds, p=less.p)


def score_table(
    study: StudyContext,
    name: str,
    title: str,
    rows: Mapping[str, Row],
    *,
    heads: Heads | None = None,
    note: str = "",
    more: str = "",
) -> Table:
    """Settings by tasks, their rows by label; the mean over the tasks behind them where there are several.

    Where `heads` are other columns than the study's tasks, there is no mean. `note` is in place of the usual note,
    `more` behind it.
    """
    columns: Heads = heads or {task: task for task in study.tasks}
    with_mean = heads is None and len(study.tasks) > 1
    lines: list[list[Entry]] = []
    for label, row in rows.items():
        line: list[Entry] = [label]
        for place in columns:
            chance = not row.missing and row.at_chance[place]
            line.append(row.missing or score_cell(study, _target(place), row.outcomes[place], chance))
        if with_mean:
            line.append(mean_cell(row))
        lines.append(line)
    head = ["%", *columns.values()]
    if with_mean:
        head.append("mean")
    seeds = len(study.seeds)
    usual = f"Mean over {seeds} seed{'s' * (seeds != 1)}. {interval_note(seeds)}"
    return Table(name, title, tuple(head), lines, note or " ".join(filter(None, (usual, more))))


def mean_cell(row: Row) -> Entry:
    """The mean over tasks, without an interval; not measured where one of them isn't."""
    if row.missing:
        return row.missing
    means = [outcome.mean for outcome in row.outcomes.values() if outcome is not None]
    if len(means) < len(row.outcomes):
        return Cell(None)
    return Cell(fmean(means), chance=any(row.at_chance.values()))


def pair_table(
    study: StudyContext,
    name: str,
    title: str,
    rows: Mapping[str, Row],
    pairs: Mapping[str, tuple[str, str]],
    *,
    heads: Heads | None = None,
    unit: str = "points",
    note: str = "",
    more: str = "",
) -> Table:
    """Some rows less others, in points, paired over seeds and examples; all differences are one family of tests.

    `pairs` has the labels of both rows by that of their difference, `unit` is the head of the labels; `heads`, `note`
    and `more` as of `score_table`.
    """
    columns: Heads = heads or {task: task for task in study.tasks}
    cells: dict[Any, Entry] = {}
    for (label, names), place in product(pairs.items(), columns):
        ours, theirs = (rows[name] for name in names)
        cells[label, place] = ours.missing or theirs.missing
        if not cells[label, place]:
            chance = ours.at_chance[place] or theirs.at_chance[place]
            outcomes = ours.outcomes[place], theirs.outcomes[place]
            cells[label, place] = difference_cell(study, _target(place), *outcomes, chance)
    corrected = correct_family(cells)
    lines = [(label, *(corrected[label, place] for place in columns)) for label in pairs]
    chosen = f"{CHOSEN_HERE.capitalize()}." if study.chosen_on_report else ""
    usual = " ".join(filter(None, (paired_note(len(study.seeds)), more, chosen)))
    return Table(name, title, (unit, *columns.values()), lines, note or usual)


def difference_table(study: StudyContext, name: str, title: str, rows: Mapping[str, Row], reference: str) -> Table:
    """All rows less one of them, in points."""
    pairs = {label: (label, reference) for label in rows if label != reference}
    return pair_table(study, name, title, rows, pairs, unit=f"points above {reference}")


def difference_sentences(table: Table, labels: Sequence[str] | None = None) -> list[str]:
    """What a table of differences shows, a sentence for each row, or each of some rows."""
    lines = []
    for label, *cells in table.rows:
        if labels is None or label in labels:
            named = zip(table.columns[1:], cells, strict=True)
            each = [describe_difference(head, cell) for head, cell in named if isinstance(cell, Cell)]
            lines.append(f"{label}: {'; '.join(each)}.")
    return lines


def _target(place: Place) -> str:
    """The task that is scored."""
    return place if isinstance(place, str) else place[1]
