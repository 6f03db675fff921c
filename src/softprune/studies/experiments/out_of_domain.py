"""Prompts that were trained on one task, read on another with the same answers; the other's template and verbalizer.

Four prompts of every run: tuned, control (the whole one, trained twice), the winner, and a random mask of its size,
retrained as the winner was. Whether pruning changes how a prompt carries over is read from winner less control out of
domain, less the same in domain: what pruning does anywhere cancels out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from math import hypot
from statistics import NormalDist
from typing import Final, TypeAlias

from softprune.data import load_task
from softprune.errors import SoftpruneError
from softprune.prompts.soft_prompts import read_one
from softprune.pruning.masks import random_mask
from softprune.statistics.methods_over_seeds import Outcome
from softprune.studies.experiments.reversed import under_mask
from softprune.studies.findings import Cell, Findings, Table, bars
from softprune.studies.prompt_scoring import PromptScores, prompt_outcome, score_on
from softprune.studies.run_result import collect_outcome
from softprune.studies.score_rows import Row, Runs, difference_sentences, pair_table, score_cell, score_table
from softprune.studies.study_context import StudyContext
from softprune.studies.verdicts import correct_family, describe_difference, interval_note, only_cells
from softprune.types import PromptState

TUNED, CONTROL, WINNER, RANDOM = "tuned", "control", "winning ticket", "random mask, retrained"
NOTHING: Final = "no prompt"
PROMPTS: Final = (TUNED, CONTROL, WINNER, RANDOM)
_COMPARED: Final = ((WINNER, CONTROL), (WINNER, RANDOM), (CONTROL, TUNED), (TUNED, NOTHING))
_DRAWN: Final = 104_729  # added to a run's seed for the random mask: another draw than the run's own
Z: Final = 1.959963984540054  # of 95%: the normal distribution's 97.5% point

Pair: TypeAlias = "tuple[str, str]"  # trained on, read on


def conduct(study: StudyContext) -> Findings:
    """Runs of all tasks, their prompts on every other task, and what pruning changed in both domains."""
    check_answers(study.tasks)
    runs = study.grid()
    specs = {}
    for key, run in runs.items():
        specs[key] = study.spec(*key, under_mask(study, run, "random", random_mask(run.mask, run.seed + _DRAWN)))
    masked = study.make(specs)
    heads: dict[Pair, str] = {(task, task): f"{task}, in domain" for task in study.tasks}
    heads |= {pair: f"{pair[0]} on {pair[1]}" for pair in permutations(study.tasks, 2)}
    outcomes: dict[str, dict[Pair, Outcome]] = {name: {} for name in (*PROMPTS, NOTHING)}
    at_chance: dict[Pair, bool] = {}
    for pair in heads:  # in domain, too: so that both are scored in the same way
        scores = [_score_prompts(study, runs, masked, pair, seed) for seed in study.seeds]
        for name in PROMPTS:
            outcomes[name][pair] = prompt_outcome([each[name] for each in scores])
        outcomes[NOTHING][pair] = collect_outcome([runs[pair[1], seed] for seed in study.seeds], "zero_shot")
        at_chance[pair] = _is_at_chance(study, runs, pair, outcomes[TUNED][pair])
    rows = {name: Row(outcomes[name], at_chance) for name in PROMPTS}
    rows[NOTHING] = Row(outcomes[NOTHING], dict.fromkeys(heads, False))  # there is no prompt that could be at chance
    note = (
        "Means over seeds. A star: the tuned prompt isn't shown to be above the best constant answer there. "
        f"{interval_note(len(study.seeds))}"
    )
    title = "In and out of domain"
    scores_table = score_table(study, "scores", title, rows, heads=heads, note=note)
    pairs = {f"{ours} - {theirs}": (ours, theirs) for ours, theirs in _COMPARED}
    differences = pair_table(study, "differences", "What pruning changes", rows, pairs, heads=heads)
    carried = _carried_table(differences, heads)
    sentences = difference_sentences(differences, [f"{WINNER} - {CONTROL}", f"{TUNED} - {NOTHING}"])
    for label, *cells in carried.rows:
        each = map(describe_difference, carried.columns[1:], only_cells(cells))
        sentences.append(f"{label}, out of domain less in domain: {'; '.join(each)}.")
    figure = bars(scores_table, "domains", title, list(heads.values()))
    return Findings([scores_table, differences, carried], [figure], sentences)


def check_answers(tasks: Sequence[str]) -> None:
    """Hold tasks to have the same answers, in whatever order and template."""
    if len(tasks) < 2:
        raise SoftpruneError("at least two tasks with the same answers", ", ".join(tasks), "name another as --tasks")
    answers = {task: load_task(task).definition.fixed_answers for task in tasks}
    if None in answers.values() or len({frozenset(each or ()) for each in answers.values()}) > 1:
        found = "; ".join(f"{task}: {', '.join(each or ('by example',))}" for task, each in answers.items())
        raise SoftpruneError("tasks with the same answers, such as imdb,sentence_polarity", found, "correct --tasks")


def _score_prompts(study: StudyContext, runs: Runs, masked: Runs, pair: Pair, seed: int) -> PromptScores:
    """The four prompts of a run on the report set of a task, as the target's own run reads it."""
    source, target = pair
    run, random = runs[source, seed], masked[source, seed]
    prompts = {
        TUNED: [run.prompt("tuned")],
        CONTROL: [run.prompt("control")],
        WINNER: [run.ticket.prompt()],
        RANDOM: [read_one(PromptState(random.prompt("tuned"), random.mask), run.ticket.info.removal)],
    }
    work = f"{run.path.name} on {runs[target, seed].path.name}"
    return score_on(study, work, study.spec(target, seed), "report", lambda _: prompts)


def _is_at_chance(study: StudyContext, runs: Runs, pair: Pair, tuned: Outcome) -> bool:
    """Whether any seed's tuned prompt isn't shown to be above the constant answer on the task that it is read on."""
    source, target = pair
    if source == target:
        return not all(runs[source, seed].is_above_constant() for seed in study.seeds)
    for value, scored, seed in zip(tuned.values, tuned.scored, study.seeds, strict=True):
        low = score_cell(study, target, Outcome((value,), (scored,))).low
        if low is None or low <= runs[target, seed].value("constant"):
            return True
    return False


def _carried_table(differences: Table, heads: dict[Pair, str]) -> Table:
    """Every difference out of domain less the same in domain; one family of tests."""
    away = [pair for pair in heads if pair[0] != pair[1]]
    cells: dict[tuple[str, Pair], Cell] = {}
    for label, *entries in differences.rows:
        by_pair = dict(zip(heads, only_cells(entries), strict=True))
        for pair in away:
            cells[str(label), pair] = apart(by_pair[pair], by_pair[pair[0], pair[0]])
    corrected = correct_family(cells)
    rows = [(label, *(corrected[str(label), pair] for pair in away)) for label, *_ in differences.rows]
    note = (
        "Two sets of examples, so not paired: the interval is put together from both (Zou and Donner 2008). Above 0: "
        "it costs less, or gives more, out of domain than in domain."
    )
    head = ("points", *(heads[pair] for pair in away))
    return Table("carried", "The same, out of domain less in domain", head, rows, note)


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
    seeds, p = None, None
    if out.seeds is not None and home.seeds is not None:
        seeds = min(out.seeds, home.seeds)
    if high > low:  # almost symmetric, so the p of a normal distribution fits it
        p = 2 * NormalDist().cdf(-abs(value) / ((high - low) / (2 * Z)))
    return Cell(value, low, high, unit="points", chance=chance, seeds=seeds, p=p)
