"""Tickets of one task that answer together: what the ensemble scores, and what it costs in one batch.

Every seed's winner was chosen and trained apart. Together they answer by the mean of their probabilities
(Lakshminarayanan et al. 2017, section 2.4); the geometric mean and votes are shown beside it, and the same of the
unpruned controls, which separates what is due to several prompts from what is due to pruning.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from statistics import fmean, median
from typing import Any, Final, TypeAlias

import torch

from softprune.data import load_task
from softprune.errors import SoftpruneError
from softprune.prompts.ensemble import GEOMETRIC, MEAN, VOTE, combine_scores
from softprune.statistics.methods_over_seeds import Outcome
from softprune.studies.findings import Cell, Entry, Findings, Table, bars
from softprune.studies.prompt_scoring import OpenSet, open_set
from softprune.studies.run_result import FinishedRun, Line, collect_outcome, score_answers
from softprune.studies.score_rows import Row, Runs, chances, collect_row, difference_sentences, pair_table, score_table
from softprune.studies.study_context import StudyContext
from softprune.training.scoring import ScoredSet, score_each

TICKETS: Final = "one ticket, mean of seeds"
BEST: Final = "the ticket that is best on select"
CONTROLS: Final = "one unpruned, mean of seeds"
TOGETHER, WHOLE = "tickets together", "unpruned prompts together"
_WAYS: Final = {TOGETHER: MEAN, f"{TOGETHER}, geometric mean": GEOMETRIC, f"{TOGETHER}, votes": VOTE}
# What the prompts of an ensemble are called, and which result of a run they are.
_RESULTS: Final = {"tickets": "winner", "unpruned prompts": "control"}
# By prompts and task, what each seed's prompt answered to the same examples.
Answers: TypeAlias = "Mapping[tuple[str, str], Sequence[Sequence[Line]]]"


def conduct(study: StudyContext) -> Findings:
    """Runs of all seeds, their ensembles, and the time of both ways to ask them."""
    if len(study.seeds) < 2:
        raise SoftpruneError("at least two seeds, to have several tickets", str(len(study.seeds)), "raise --seeds")
    runs = study.grid()
    at_chance, answers = chances(study, runs), _read_answers(study, runs)
    best, times = {}, {}
    for task in study.tasks:
        best[task] = best_on_select([runs[task, seed] for seed in study.seeds])
        times[task] = study.once(f"times-{task}", partial(_measure_times, study, runs, task))
    rows = {TICKETS: collect_row(study, runs, "winner", at_chance), BEST: Row(best, at_chance)}
    for label, how in _WAYS.items():
        rows[label] = _ensemble_row(study, answers, "tickets", how, at_chance)
    rows[CONTROLS] = collect_row(study, runs, "control", at_chance)
    rows[WHOLE] = _ensemble_row(study, answers, "unpruned prompts", MEAN, at_chance)
    compared = ((TOGETHER, TICKETS), (TOGETHER, BEST), (WHOLE, CONTROLS), (TOGETHER, WHOLE))
    pairs = {f"{ours} - {theirs}": (ours, theirs) for ours, theirs in compared}
    note = (
        "Paired over the examples of report; a row of several seeds is their mean. All seeds make one ensemble, and "
        "one ensemble says nothing about others: intervals cover other examples, for these very prompts; no verdict."
    )
    differences = pair_table(study, "differences", "What answering together brings", rows, pairs, note=note)
    scores = score_table(study, "scores", "Alone and together", rows)
    sentences = difference_sentences(differences)
    for task, by_kind in times.items():
        ratios = {kind: by_kind[kind]["together"] / by_kind[kind]["apart"] for kind in _RESULTS}
        shares = " and ".join(f"{ratio:.2f} of the time for {kind}" for kind, ratio in ratios.items())
        sentences.append(f"On {task}, one batch took {shares}, against one after the other.")
    tables = [scores, differences, _agreement_table(study, answers), _cost_table(study, runs, times)]
    return Findings(tables, [bars(scores, "alone-together", "Alone and together", study.tasks)], sentences)


def best_on_select(runs: Sequence[FinishedRun]) -> Outcome:
    """The winner of the run that is best on its own `select`; of equals the smaller, then the lower seed."""
    best = min(runs, key=lambda run: (-(run.ticket.info.select or 0.0), run.ticket.info.parameters, run.seed))
    return collect_outcome([best], "winner")


def _read_answers(study: StudyContext, runs: Runs) -> Answers:
    answers = {}
    for (kind, result), task in product(_RESULTS.items(), study.tasks):
        parts = [runs[task, seed].answers(result) for seed in study.seeds]
        # Only answers to one question can be put together.
        if len({tuple(line["id"] for line in part) for part in parts}) > 1:
            do = "leave task.report_seed to the study"
            raise SoftpruneError("runs that report on the same examples", f"others by seed for {task}", do)
        for part in parts:
            if not all("scores" in line for line in part):
                raise SoftpruneError("tasks whose answers are scored, for ensembles", task, "leave it out")
        answers[kind, task] = parts
    return answers


def _ensemble_row(study: StudyContext, answers: Answers, kind: str, how: str, at_chance: Mapping[str, bool]) -> Row:
    """By task the one outcome of all seeds together."""
    outcomes = {}
    for task in study.tasks:
        outcomes[task] = score_answers([answer_together(answers[kind, task], how)], load_task(task).metric)
    return Row(outcomes, at_chance)


def answer_together(parts: Sequence[Sequence[Line]], how: str) -> list[Line]:
    """What several prompts answer together, from each one's lines in one order; `how` is one of `COMBINE`."""
    joined: list[Line] = []
    for lines in zip(*parts, strict=True):
        scores_KA = torch.tensor([line["scores"] for line in lines])
        joined.append({**lines[0], "predicted": combine_scores(scores_KA, how)[0]})
    return joined


def agreement(parts: Sequence[Sequence[Line]]) -> float:
    """The share of examples to which all prompts give the same answer."""
    return fmean(len({line["predicted"] for line in lines}) == 1 for lines in zip(*parts, strict=True))


def _agreement_table(study: StudyContext, answers: Answers) -> Table:
    """How far the prompts differ: where all agree, nothing can be won."""
    by_task: dict[str, dict[str, Entry]] = {task: {} for task in study.tasks}
    for (kind, task), parts in answers.items():
        is_right = [[line["predicted"] == line["gold"] for line in part] for part in parts]
        by_task[task][f"{kind}: all give the same answer"] = Cell(agreement(parts))
        by_task[task][f"{kind}: at least one is right"] = Cell(fmean(map(any, zip(*is_right, strict=True))))
    note = "Of the examples of report. The second row of each: what choosing would reach that knows the right answer."
    return Table.from_columns("agreement", "How often the prompts agree", "%", by_task, note)


def _measure_times(study: StudyContext, runs: Runs, task: str) -> dict[str, Any]:
    """Seconds for all tickets in shared calls and one after the other, and for whole prompts likewise."""
    opened = open_set(study.spec(task, study.config.seed).recipe)
    first, repeats = int(study.options.get("timed", 64)), int(study.options.get("repeats", 5))
    some = ScoredSet(opened.data.examples[:first], opened.data.encoded[:first])
    own = [runs[task, seed] for seed in study.seeds]
    return {
        "examples": len(some),
        "tickets": _time_prompts(opened, some, [run.ticket.prompt() for run in own], repeats),
        "unpruned prompts": _time_prompts(opened, some, [run.prompt("control") for run in own], repeats),
    }


def _time_prompts(opened: OpenSet, data: ScoredSet, prompts: Sequence[torch.Tensor], repeats: int) -> dict[str, Any]:
    backbone = opened.backbone
    read = [prompt_QH.to(backbone.device, backbone.prompt_dtype) for prompt_QH in prompts]
    ways: dict[str, Callable[[], object]] = {
        "together": lambda: score_each(backbone, read, data, opened.scoring),
        "apart": lambda: [score_each(backbone, [prompt], data, opened.scoring) for prompt in read],
        "one": lambda: score_each(backbone, read[:1], data, opened.scoring),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, ask in ways.items():  # in turn, so that a machine which slows down slows all of them
            begun = time.perf_counter()
            ask()
            if repeat:  # the first call of each warms up
                seconds[name].append(time.perf_counter() - begun)
    return {name: median(each) for name, each in seconds.items()} | {"lengths": [len(prompt) for prompt in read]}


def _cost_table(study: StudyContext, runs: Runs, times: Mapping[str, Mapping[str, Any]]) -> Table:
    """What an ensemble takes: numbers that are stored, and time."""
    by_task: dict[str, dict[str, Entry]] = {}
    for task in study.tasks:
        by_task[task] = {}
        own = [runs[task, seed] for seed in study.seeds]
        stored = {
            "tickets": sum(run.ticket.info.parameters for run in own),
            "unpruned prompts": sum(run.prompt("control").numel() for run in own),
        }
        for kind in _RESULTS:
            each = times[task][kind]
            by_task[task] |= {
                f"{kind}: numbers stored": Cell(stored[kind], unit="count"),
                f"{kind}: lengths": ", ".join(map(str, each["lengths"])),
                f"{kind}: one batch / one after the other": Cell(each["together"] / each["apart"], unit="number"),
                f"{kind}: one batch / one prompt": Cell(each["together"] / each["one"], unit="number"),
            }
    count = next(iter(times.values()))["examples"]
    note = (
        f"Time ratios of medians on {count} examples, alternating, on this machine at that time; no interval. "
        "Prompts of different lengths never share a call."
    )
    return Table.from_columns("cost", f"What {len(study.seeds)} prompts cost", "", by_task, note)
