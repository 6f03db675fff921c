"""One prompt on the union of tasks, against a prompt for each.

With n tasks and prompts of P tokens: a prompt for each has P tokens a task and nP in all. One prompt of P tokens is as
long for a task, one of nP tokens has as many numbers in all. Each trains on the same examples and as many passes over
them, so one prompt makes n times the steps; all are reported on the same examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from statistics import fmean
from typing import Any, Final

from softprune.config.comparison_schema import merge, nested
from softprune.data import load_task
from softprune.errors import SoftpruneError
from softprune.studies.charts import bars
from softprune.studies.example_answers import read_answers, scored_lines
from softprune.studies.findings import Cell, Entry, Findings, Table
from softprune.studies.run_cache import Spec, make_spec
from softprune.studies.run_result import FinishedRun
from softprune.studies.score_rows import (
    Outcome,
    Row,
    Runs,
    chances,
    collect_row,
    difference_cell,
    score_cell,
    score_table,
)
from softprune.studies.study_context import StudyContext
from softprune.studies.verdicts import corrected_rows, paired_note, said

EACH, ONE, LONG = "a prompt a task", "one prompt for all", "one prompt for all, as many numbers in all"
STAGES: Final = {"tuned": "tuned", "control": "control", "winner": "XPrompt"}


def conduct(study: StudyContext) -> Findings:
    """Runs of each task and of their union, and what one prompt gains or loses on each task.

    Raises:
        SoftpruneError: with a single task, or tasks that can't be joined.
    """
    if len(study.tasks) < 2:
        raise SoftpruneError("at least two tasks, to join them", ", ".join(study.tasks), "name more as --tasks")
    tokens = study.spec(study.tasks[0], study.config.seed).recipe.prompt.tokens
    more = {"kind": "tune", "prompt": {"tokens": len(study.tasks) * tokens}}
    alone = [study.spec(task, seed) for task in study.tasks for seed in study.seeds]
    one = [union_spec(study, seed, {}) for seed in study.seeds]
    long = [union_spec(study, seed, more) for seed in study.seeds]
    made = study.make([*alone, *one, *long])
    runs: Runs = {(each.task, each.seed): each for each in made[: len(alone)]}
    joined, longer = made[len(alone) : len(alone) + len(one)], made[len(alone) + len(one) :]
    shared = union_row(study, joined, "tuned")
    starred = chances(study, runs)
    starred |= {task: True for task in study.tasks if at_chance(study, runs, task, shared[task])}
    rows: dict[str, Row] = {f"{EACH}, {label}": collect_row(study, runs, row) for row, label in STAGES.items()}
    rows |= {f"{ONE}, {label}": union_row(study, joined, row) for row, label in STAGES.items()}
    rows[LONG] = union_row(study, longer, "tuned")
    pairs = [
        *((f"{ONE}, {label}", f"{EACH}, {label}") for label in STAGES.values()),
        (LONG, f"{EACH}, tuned"),
        (LONG, f"{ONE}, tuned"),
        *((f"{name}, XPrompt", f"{name}, control") for name in (ONE, EACH)),
    ]
    differences = corrected_rows(
        {
            f"({a}) - ({b})": [difference_cell(study, t, rows[a][t], rows[b][t], starred[t]) for t in study.tasks]
            for a, b in pairs
        }
    )
    cells: tuple[tuple[Entry, ...], ...] = tuple((name, *found) for name, found in differences.items())
    note = (
        f"{paired_note(len(study.seeds))} One prompt for all makes as many passes over all tasks' "
        f"examples, which are {len(study.tasks)} times as many steps as one task's prompt makes. All have one "
        "recipe: no learning rate was chosen for the longer prompt or the larger set."
    )
    scores = score_table(study, "scores", "A prompt for each task, and one for all", rows, starred)
    tables = (
        scores,
        Table("differences", "What sharing a prompt changes", ("points", *study.tasks), cells, note),
        _sizes(study, runs, joined, longer),
    )
    told = [f"{name}: {'; '.join(map(said, study.tasks, found))}." for name, found in differences.items()]
    figure = bars(scores, "each-and-all", "A prompt for each task, and one for all", study.tasks)
    return Findings(tables, (figure,), tuple(told))


def union_spec(study: StudyContext, seed: int, keys: Mapping[str, Any]) -> Spec:
    """The run on all tasks: of each as many examples as in its own run, which is n times as many in all.

    These numbers win over what the user changed, since they follow from it.
    """
    alone, count = study.spec(study.tasks[0], seed).recipe.task, len(study.tasks)
    sizes = {name: getattr(alone, name) for name in ("shots", "limit_report")}
    whole = {"task": {name: None if size is None else count * size for name, size in sizes.items()}}
    change: dict[str, Any] = nested(deepcopy(dict(study.config.change)))
    for each in (whole, keys):
        merge(change, nested(deepcopy(dict(each))))
    config = study.config.model_copy(update={"change": change})
    return make_spec(config, study.root, "+".join(study.tasks), seed, {})


def at_chance(study: StudyContext, runs: Runs, task: str, outcome: Outcome) -> bool:
    """Whether a prompt's interval on a task isn't above the constant answer that runs of the task report."""
    low = score_cell(study, task, outcome).low
    return low is None or low <= max(runs[task, seed].value("constant") for seed in study.seeds)


def union_row(study: StudyContext, runs: Sequence[FinishedRun], row: str) -> dict[str, Outcome]:
    """One result of the runs on all tasks, by task."""
    found: dict[str, Outcome] = {}
    for name in study.tasks:
        task = load_task(name)
        scored = [scored_lines(read_answers(made, row, task.id), task.metric) for made in runs]
        values = tuple(float(task.metric.score(each.counts_NC.sum(axis=0))) for each in scored)
        found[name] = Outcome(values, tuple(scored))
    return found


def _sizes(study: StudyContext, runs: Runs, joined: Sequence[FinishedRun], longer: Sequence[FinishedRun]) -> Table:
    """How many numbers each way stores, and how many of them a task's inputs are read with."""

    def line(label: str, prompts: int, stored: float) -> tuple[Entry, ...]:
        read = stored / prompts
        return (label, Cell(prompts, unit="count"), Cell(stored, unit="count"), Cell(read, unit="count"))

    count, whole = len(study.tasks), joined[0].prompt("tuned").numel()
    tickets = fmean(sum(runs[t, s].ticket.info.parameters for t in study.tasks) for s in study.seeds)
    rows = (
        line(f"{EACH}, tuned or control", count, count * whole),
        line(f"{EACH}, XPrompt", count, tickets),
        line(f"{ONE}, tuned or control", 1, whole),
        line(f"{ONE}, XPrompt", 1, fmean(made.ticket.info.parameters for made in joined)),
        line(LONG, 1, longer[0].prompt("tuned").numel()),
    )
    columns = ("", "prompts", "numbers in all", "numbers a task is read with")
    return Table(
        "sizes", "What is stored", columns, rows, "Means over seeds; of several tickets the mean of the tasks."
    )
