"""One prompt on the union of tasks, against a prompt for each.

With n tasks and prompts of P tokens: a prompt for each has P tokens a task and nP in all. One prompt of P tokens is as
long for a task, one of nP tokens has as many numbers in all. Each trains on the same examples and as many passes over
them, so one prompt makes n times the steps; all are reported on the same examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import product
from statistics import fmean
from typing import Any, Final

from softprune.config.comparison_schema import merge, nested
from softprune.data import load_task
from softprune.errors import SoftpruneError
from softprune.statistics.methods_over_seeds import Outcome
from softprune.studies.findings import Cell, Entry, Findings, Table, bars
from softprune.studies.run_cache import Spec
from softprune.studies.run_result import FinishedRun, score_answers
from softprune.studies.score_rows import (
    Row,
    Runs,
    chances,
    collect_row,
    difference_sentences,
    pair_table,
    score_cell,
    score_table,
)
from softprune.studies.study_context import StudyContext

EACH, ONE, LONG = "a prompt a task", "one prompt for all", "one prompt for all, as many numbers in all"
STAGES: Final = {"tuned": "tuned", "control": "control", "winner": "XPrompt"}


def conduct(study: StudyContext) -> Findings:
    """Runs of each task and of their union, and what one prompt gains or loses on each task."""
    if len(study.tasks) < 2:
        raise SoftpruneError("at least two tasks, to join them", ", ".join(study.tasks), "name more as --tasks")
    tokens = study.recipe.prompt.tokens
    more = {"kind": "tune", "prompt": {"tokens": len(study.tasks) * tokens}}
    specs = {place: study.spec(*place) for place in study.tasks_and_seeds}
    for (name, keys), seed in product({ONE: {}, LONG: more}.items(), study.seeds):
        specs[name, seed] = union_spec(study, seed, keys)
    runs = study.make(specs)  # all at once
    joined, longer = ([runs[name, seed] for seed in study.seeds] for name in (ONE, LONG))
    at_chance = chances(study, runs)
    for task, outcome in union_outcomes(study, joined, "tuned").items():
        # Nor may one prompt for all be at chance on a task that a prompt of its own learns.
        low = score_cell(study, task, outcome).low
        constant = max(runs[task, seed].value("constant") for seed in study.seeds)
        at_chance[task] = at_chance[task] or low is None or low <= constant
    rows = {f"{EACH}, {label}": collect_row(study, runs, result, at_chance) for result, label in STAGES.items()}
    for result, label in STAGES.items():
        rows[f"{ONE}, {label}"] = Row(union_outcomes(study, joined, result), at_chance)
    rows[LONG] = Row(union_outcomes(study, longer, "tuned"), at_chance)
    compared = [
        *((f"{ONE}, {label}", f"{EACH}, {label}") for label in STAGES.values()),
        (LONG, f"{EACH}, tuned"),
        (LONG, f"{ONE}, tuned"),
        *((f"{name}, XPrompt", f"{name}, control") for name in (ONE, EACH)),
    ]
    pairs = {f"({ours}) - ({theirs})": (ours, theirs) for ours, theirs in compared}
    note = (
        f"One prompt for all makes as many passes over all tasks' examples, which are {len(study.tasks)} times as many "
        "steps as one task's prompt makes. All have one recipe: no learning rate was chosen for the longer prompt or "
        "the larger set."
    )
    title = "A prompt for each task, and one for all"
    scores = score_table(study, "scores", title, rows)
    differences = pair_table(study, "differences", "What sharing a prompt changes", rows, pairs, more=note)
    tables = [scores, differences, _size_table(study, runs, joined, longer)]
    return Findings(tables, [bars(scores, "each-and-all", title, study.tasks)], difference_sentences(differences))


def union_spec(study: StudyContext, seed: int, keys: Mapping[str, Any]) -> Spec:
    """The run on all tasks: of each as many examples as in its own run, which is n times as many in all.

    These numbers win over what the user changed, since they follow from it.
    """
    alone, count = study.spec(study.tasks[0], seed).recipe.task, len(study.tasks)
    sizes = {"shots": alone.shots, "limit_report": alone.limit_report}
    whole = {"task": {name: None if size is None else count * size for name, size in sizes.items()}}
    # In the study's own changes, which come last, since keys of a run would lose to what the user changed.
    change: dict[str, Any] = nested(deepcopy(dict(study.config.change)))
    for each in (whole, keys):
        merge(change, nested(deepcopy(dict(each))))
    config = study.config.model_copy(update={"change": change})
    return replace(study, config=config).spec("+".join(study.tasks), seed)


def union_outcomes(study: StudyContext, runs: Sequence[FinishedRun], result: str) -> dict[str, Outcome]:
    """One result of the runs on all tasks, by task."""
    outcomes: dict[str, Outcome] = {}
    for name in study.tasks:
        task = load_task(name)
        outcomes[name] = score_answers([run.answers(result, task.id) for run in runs], task.metric)
    return outcomes


def _size_table(study: StudyContext, runs: Runs, joined: Sequence[FinishedRun], longer: Sequence[FinishedRun]) -> Table:
    """How many numbers each way stores, and how many of them a task's inputs are read with."""
    count, whole = len(study.tasks), joined[0].prompt("tuned").numel()
    tickets = sum(runs[place].ticket.info.parameters for place in study.tasks_and_seeds) / len(study.seeds)
    stored: dict[str, tuple[int, float]] = {
        f"{EACH}, tuned or control": (count, count * whole),
        f"{EACH}, XPrompt": (count, tickets),
        f"{ONE}, tuned or control": (1, whole),
        f"{ONE}, XPrompt": (1, fmean(run.ticket.info.parameters for run in joined)),
        LONG: (1, longer[0].prompt("tuned").numel()),
    }
    rows: list[list[Entry]] = []
    for label, (prompts, numbers) in stored.items():
        rows.append([label, *(Cell(each, unit="count") for each in (prompts, numbers, numbers / prompts))])
    columns = ("", "prompts", "numbers in all", "numbers a task is read with")
    note = "Means over seeds; of several tickets the mean of the tasks."
    return Table("sizes", "What is stored", columns, rows, note)
