"""Prompts that were trained on one task, read on another with the same answers; the other's template and verbalizer.

Four prompts of every run: tuned, control (the whole one, trained twice), the winner, and a random mask of its size,
retrained as the winner was. Whether pruning changes how a prompt carries over is told by winner less control out of
domain, less the same in domain: what pruning does anywhere cancels out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import permutations
from math import hypot
from statistics import NormalDist
from typing import Any, Final, TypeAlias

import numpy as np
import torch

from softprune.data import load_task
from softprune.errors import SoftpruneError
from softprune.prompts.soft_prompts import read_one
from softprune.pruning.masks import random_mask
from softprune.statistics.methods_over_seeds import Scored
from softprune.studies.charts import bars
from softprune.studies.experiments.reversed import under_mask
from softprune.studies.findings import Cell, Entry, Findings, Table
from softprune.studies.prompt_scoring import open_set
from softprune.studies.proportions import Z
from softprune.studies.run_result import FinishedRun
from softprune.studies.score_rows import Outcome, Runs, collect_outcome, difference_cell, score_cell
from softprune.studies.study_context import StudyContext
from softprune.studies.verdicts import corrected, corrected_rows, interval_note, only_cells, paired_note, said
from softprune.types import PromptState

TUNED, CONTROL, WINNER, RANDOM = "tuned", "control", "winning ticket", "random mask, retrained"
NOTHING: Final = "no prompt"
PROMPTS: Final = (TUNED, CONTROL, WINNER, RANDOM)
_DRAWN: Final = 104_729
"""Added to a run's seed for the random mask: another draw than the run's own."""

Pair: TypeAlias = "tuple[str, str]"
"""Trained on, read on."""


def conduct(study: StudyContext) -> Findings:
    """Runs of all tasks, their prompts on every other task, and what pruning changed in both domains.

    Raises:
        SoftpruneError: with a single task, or tasks of other answers.
    """
    check_answers(study.tasks)
    runs = study.grid()
    masked = _retrained(study, runs)
    outcomes: dict[Pair, dict[str, Outcome]] = {}
    for pair in ((source, target) for source in study.tasks for target in study.tasks):
        outcomes[pair] = {name: _outcome(study, runs, masked, pair, name) for name in PROMPTS}
        outcomes[pair][NOTHING] = collect_outcome([runs[pair[1], seed] for seed in study.seeds], "zero_shot")
    pairs = [(task, task) for task in study.tasks] + list(permutations(study.tasks, 2))
    starred = {pair: _at_chance(study, runs, pair, outcomes[pair][TUNED]) for pair in pairs}
    rows: list[tuple[Entry, ...]] = [
        (name, *(score_cell(study, p[1], outcomes[p][name], starred[p] and name != NOTHING) for p in pairs))
        for name in (*PROMPTS, NOTHING)
    ]
    changed = {
        f"{a} - {b}": [difference_cell(study, p[1], outcomes[p][a], outcomes[p][b], starred[p]) for p in pairs]
        for a, b in ((WINNER, CONTROL), (WINNER, RANDOM), (CONTROL, TUNED), (TUNED, NOTHING))
    }
    less = {name: dict(zip(pairs, cells, strict=True)) for name, cells in corrected_rows(changed).items()}
    away = pairs[len(study.tasks) :]
    heads = tuple(f"{source}, in domain" if source == target else f"{source} on {target}" for source, target in pairs)
    out = heads[len(study.tasks) :]
    carried = {
        (name, pair): apart(found[pair], found[pair[0], pair[0]]) for name, found in less.items() for pair in away
    }
    carried = dict(zip(carried, only_cells(corrected(list(carried.values()))), strict=True))
    note = f"{_NOTE} {interval_note(len(study.seeds))}"
    scores = Table("scores", "In and out of domain", ("%", *heads), tuple(rows), note)
    tables = (
        scores,
        Table(
            "differences",
            "What pruning changes",
            ("points", *heads),
            _lines(less, pairs),
            paired_note(len(study.seeds)),
        ),
        Table(
            "carried",
            "The same, out of domain less in domain",
            ("points", *out),
            tuple((name, *(carried[name, pair] for pair in away)) for name in less),
            _APART,
        ),
    )
    figure = bars(scores, "domains", "In and out of domain", heads)
    return Findings(tables, (figure,), _sentences(less, carried, dict(zip(pairs, heads, strict=True))))


_NOTE = "Means over seeds. A star: the tuned prompt isn't shown to be above the best constant answer there."
_APART = (
    "Two sets of examples, so not paired: the interval is put together from both (Zou and Donner 2008). Above 0: "
    "it costs less, or gives more, out of domain than in domain."
)


def check_answers(tasks: Sequence[str]) -> None:
    """Hold tasks to have the same answers, in whatever order and template.

    Raises:
        SoftpruneError: for fewer than two, or where answers differ.
    """
    if len(tasks) < 2:
        raise SoftpruneError("at least two tasks with the same answers", ", ".join(tasks), "name another as --tasks")
    answers = {task: load_task(task).definition.fixed_answers for task in tasks}
    if len({None if each is None else frozenset(each) for each in answers.values()}) > 1 or None in answers.values():
        told = "; ".join(f"{task}: {', '.join(each or ('by example',))}" for task, each in answers.items())
        raise SoftpruneError("tasks with the same answers, such as imdb,sentence_polarity", told, "correct --tasks")


def apart(out: Cell, home: Cell) -> Cell:
    """One difference less another one on other examples, with the interval that both intervals make.

    With estimates d and limits (l, u) of each: d1 - d2 - sqrt((d1 - l1)^2 + (u2 - d2)^2) is the lower limit, the upper
    one likewise (Zou and Donner 2008, equation for a difference).
    """
    chance = out.chance or home.chance
    if out.value is None or home.value is None:
        return Cell(None, unit="points", chance=chance)
    value = out.value - home.value
    if out.low is None or out.high is None or home.low is None or home.high is None:
        return Cell(value, unit="points", chance=chance)
    low = value - hypot(out.value - out.low, home.high - home.value)
    high = value + hypot(out.high - out.value, home.value - home.low)
    seeds = None if out.seeds is None or home.seeds is None else min(out.seeds, home.seeds)
    # The interval is almost symmetric, so the p of a normal distribution fits it.
    p = 2 * NormalDist().cdf(-abs(value) / ((high - low) / (2 * Z))) if high > low else None
    return Cell(value, low, high, unit="points", chance=chance, seeds=seeds, p=p)


def _retrained(study: StudyContext, runs: Runs) -> Runs:
    """For every run, the tuned prompt retrained under a random mask of the winner's size, as the winner was."""
    specs = []
    for (task, seed), made in runs.items():
        keys = under_mask(study, made, "random", random_mask(made.mask, seed + _DRAWN))
        specs.append(study.spec(task, seed, keys))
    return {(made.task, made.seed): made for made in study.make(specs)}


def _outcome(study: StudyContext, runs: Runs, masked: Runs, pair: Pair, name: str) -> Outcome:
    """What a prompt of the one task reaches on the other, of each seed."""
    source, target = pair
    found = []
    for seed in study.seeds:
        made = runs[source, seed]
        work = f"{made.path.name} on {runs[target, seed].path.name}, {name}"
        found.append(study.once(work, partial(_read, study, made, masked[source, seed], target, name)))
    scored = tuple(
        Scored(np.asarray(each["counts"], np.float64), tuple(each["ids"]), tuple(each["groups"])) for each in found
    )
    return Outcome(tuple(each["value"] for each in found), scored)


def _read(study: StudyContext, made: FinishedRun, masked: FinishedRun, target: str, name: str) -> dict[str, Any]:
    """A prompt on the report set of a task, as the target's own run reads it."""
    opened = open_set(study.spec(target, made.seed).recipe)
    (scores,) = opened.scores([prompt_to_read(made, masked, name)])
    return {
        "value": opened.value(scores),
        "counts": opened.counts(scores).tolist(),
        "ids": list(opened.ids),
        "groups": list(opened.groups),
    }


def prompt_to_read(made: FinishedRun, masked: FinishedRun, name: str) -> torch.Tensor:
    """One of the four prompts as the model reads it, `[Q, H]`; what is pruned is gone, or zeros."""
    if name == WINNER:
        return made.ticket.prompt()
    if name == RANDOM:
        return read_one(PromptState(masked.prompt("tuned"), masked.mask), made.ticket.info.removal)
    return made.prompt({TUNED: "tuned", CONTROL: "control"}[name])


def _at_chance(study: StudyContext, runs: Runs, pair: Pair, tuned: Outcome) -> bool:
    """Whether any seed's tuned prompt isn't shown to be above the constant answer on the task that it is read on."""
    source, target = pair
    if source == target:
        return not all(runs[source, seed].interpretable for seed in study.seeds)
    for at, seed in enumerate(study.seeds):
        alone = Outcome((tuned.values[at],), (tuned.scored[at],))
        low = score_cell(study, target, alone).low
        if low is None or low <= runs[target, seed].value("constant"):
            return True
    return False


def _sentences(
    less: Mapping[str, Mapping[Pair, Cell]], carried: Mapping[tuple[str, Pair], Cell], heads: Mapping[Pair, str]
) -> tuple[str, ...]:
    """What pruning and what training changed in each domain, and whether it was more or less out of domain."""
    told = [
        f"{name}: {'; '.join(said(head, less[name][pair]) for pair, head in heads.items())}."
        for name in (f"{WINNER} - {CONTROL}", f"{TUNED} - {NOTHING}")
    ]
    for name in less:
        away = [said(heads[pair], cell) for (row, pair), cell in carried.items() if row == name]
        told.append(f"{name}, out of domain less in domain: {'; '.join(away)}.")
    return tuple(told)


def _lines(less: Mapping[str, Mapping[Pair, Cell]], pairs: Sequence[Pair]) -> tuple[tuple[Entry, ...], ...]:
    return tuple((name, *(found[pair] for pair in pairs)) for name, found in less.items())
