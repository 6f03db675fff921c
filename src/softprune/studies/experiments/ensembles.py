"""Tickets of one task that answer together: what the ensemble scores, and what it costs in one batch.

Every seed's winner was chosen and trained apart. Together they answer by the mean of their probabilities
(Lakshminarayanan et al. 2017, section 2.4); the geometric mean and votes stand beside it, and the same of the unpruned
controls, which separates what is due to several prompts from what is due to pruning.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import fmean, median
from typing import Any, Final

import torch

from softprune.data import load_task
from softprune.errors import SoftpruneError
from softprune.prompts.ensemble import COMBINE, MEAN, combine_scores
from softprune.statistics.methods_over_seeds import Outcome
from softprune.studies.figures import bars
from softprune.studies.findings import Cell, Entry, Findings, Table
from softprune.studies.prompt_scoring import OpenSet, open_set
from softprune.studies.run_result import FinishedRun, Line, score_lines
from softprune.studies.score_rows import Row, Runs, chances, collect_row, difference_sentences, pair_table, score_table
from softprune.studies.study_context import StudyContext
from softprune.training.scoring import ScoredSet, score_each

TICKETS, BEST, CONTROLS = (
    "one ticket, mean of seeds",
    "the ticket that is best on select",
    "one unpruned, mean of seeds",
)
TOGETHER, WHOLE = "tickets together", "unpruned prompts together"
_WAYS: Final = {MEAN: "", "geometric": ", geometric mean", "vote": ", votes"}
_RESULTS: Final = {"tickets": "winner", "unpruned prompts": "control"}
"""What the prompts of an ensemble are called, and which result of a run they are."""


def conduct(study: StudyContext) -> Findings:
    """Runs of all seeds, their ensembles, and the time of both ways to ask them.

    Raises:
        SoftpruneError: with a single seed.
    """
    if len(study.seeds) < 2:
        raise SoftpruneError("at least two seeds, to have several tickets", str(len(study.seeds)), "raise --seeds")
    runs = study.grid()
    at_chance = chances(study, runs)
    best = {task: best_on_select([runs[task, seed] for seed in study.seeds]) for task in study.tasks}
    rows = {
        TICKETS: collect_row(study, runs, "winner", at_chance),
        BEST: Row(best, at_chance),
        **{f"{TOGETHER}{_WAYS[how]}": _ensemble(study, runs, "winner", how, at_chance) for how in COMBINE},
        CONTROLS: collect_row(study, runs, "control", at_chance),
        WHOLE: _ensemble(study, runs, "control", MEAN, at_chance),
    }
    compared = ((TOGETHER, TICKETS), (TOGETHER, BEST), (WHOLE, CONTROLS), (TOGETHER, WHOLE))
    note = (
        "Paired over the examples of report; a row of several seeds is their mean. All seeds make one ensemble, and "
        "one ensemble says nothing about others: intervals cover other examples, for these very prompts; no verdict."
    )
    title = "What answering together brings"
    pairs = {f"{ours} - {theirs}": (ours, theirs) for ours, theirs in compared}
    differences = pair_table(study, "differences", title, rows, pairs, note=note)
    times = {task: study.once(f"times-{task}", partial(_measure_times, study, runs, task)) for task in study.tasks}
    scores = score_table(study, "scores", "Alone and together", rows)
    return Findings(
        [scores, differences, _agreement_table(study, runs), _cost_table(study, runs, times)],
        [bars(scores, "alone-together", "Alone and together", study.tasks)],
        [*difference_sentences(differences), *_time_sentences(times)],
    )


def best_on_select(runs: Sequence[FinishedRun]) -> Outcome:
    """The winner of the run that is best on its own `select`; of equals the smaller, then the lower seed."""
    best = min(runs, key=lambda run: (-(run.ticket.info.select or 0.0), run.ticket.info.parameters, run.seed))
    return Outcome((best.value("winner"),), (best.scored("winner"),))


def answer_together(parts: Sequence[Sequence[Line]], how: str) -> list[Line]:
    """What several prompts answered together, from what each answered.

    Args:
        parts: of each prompt, its line of each example, in one order.
        how: one of `COMBINE`.
    """
    joined: list[Line] = []
    for lines in zip(*parts, strict=True):
        scores_KA = torch.tensor([line["scores"] for line in lines])
        joined.append({**lines[0], "predicted": combine_scores(scores_KA, how).answer})
    return joined


def agreement(parts: Sequence[Sequence[Line]]) -> float:
    """The share of examples to which all prompts give the same answer."""
    return fmean(len({line["predicted"] for line in lines}) == 1 for lines in zip(*parts, strict=True))


def _ensemble(study: StudyContext, runs: Runs, result: str, how: str, at_chance: Mapping[str, bool]) -> Row:
    """The one outcome of all seeds, by task."""
    outcomes = {}
    for task in study.tasks:
        metric = load_task(task).metric
        scored = score_lines(answer_together(_read_parts(study, runs, task, result), how), metric)
        assert scored is not None
        outcomes[task] = Outcome((float(metric.score(scored.counts_NC.sum(axis=0))),), (scored,))
    return Row(outcomes, at_chance)


def _read_parts(study: StudyContext, runs: Runs, task: str, result: str) -> list[list[Line]]:
    """What the prompts of all seeds answered, to the same examples.

    Raises:
        SoftpruneError: where they were other examples, or answers weren't scored.
    """
    parts = [runs[task, seed].answers(result) for seed in study.seeds]
    if len({tuple(line["id"] for line in part) for part in parts}) > 1:
        do = "leave task.report_seed to the study"
        raise SoftpruneError("runs that report on the same examples", f"others by seed for {task}", do)
    for part in parts:
        if not all("scores" in line for line in part):
            raise SoftpruneError("tasks whose answers are scored, for ensembles", task, "leave it out")
    return parts


def _agreement_table(study: StudyContext, runs: Runs) -> Table:
    """How far the prompts differ: where all agree, nothing can be won."""
    rows: list[list[Entry]] = []
    for label, result in _RESULTS.items():
        parts = [_read_parts(study, runs, task, result) for task in study.tasks]
        rows.append([f"{label}: all give the same answer", *(Cell(agreement(each)) for each in parts)])
        rows.append([f"{label}: at least one is right", *(Cell(_any_right(each)) for each in parts)])
    note = "Of the examples of report. The second row of each: what choosing would reach that knows the right answer."
    return Table("agreement", "How often the prompts agree", ("%", *study.tasks), rows, note)


def _any_right(parts: Sequence[Sequence[Line]]) -> float:
    return fmean(any(line["predicted"] == line["gold"] for line in lines) for lines in zip(*parts, strict=True))


def _measure_times(study: StudyContext, runs: Runs, task: str) -> dict[str, Any]:
    """Seconds for all tickets in shared calls and one after the other, and for whole prompts likewise.

    The two ways alternate, after one call of each that isn't counted; medians.
    """
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
        for name, ask in ways.items():
            begun = time.perf_counter()
            ask()
            if repeat:
                seconds[name].append(time.perf_counter() - begun)
    return {name: median(each) for name, each in seconds.items()} | {"lengths": [len(prompt) for prompt in read]}


def _cost_table(study: StudyContext, runs: Runs, times: Mapping[str, Mapping[str, Any]]) -> Table:
    """What an ensemble takes: numbers that are stored, and time."""
    rows: list[list[Entry]] = []
    for kind in _RESULTS:
        by_task = [times[task][kind] for task in study.tasks]
        stored = [_count_stored(study, runs, task, kind) for task in study.tasks]
        rows += [
            [f"{kind}: numbers stored", *(Cell(count, unit="count") for count in stored)],
            [f"{kind}: lengths", *(", ".join(map(str, each["lengths"])) for each in by_task)],
            [f"{kind}: one batch / one after the other", *(_ratio(each, "together", "apart") for each in by_task)],
            [f"{kind}: one batch / one prompt", *(_ratio(each, "together", "one") for each in by_task)],
        ]
    count = next(iter(times.values()))["examples"]
    note = (
        f"Time ratios of medians on {count} examples, alternating, on this machine at that time; no interval. "
        "Prompts of different lengths never share a call."
    )
    return Table("cost", f"What {len(study.seeds)} prompts cost", ("", *study.tasks), rows, note)


def _count_stored(study: StudyContext, runs: Runs, task: str, kind: str) -> int:
    own = [runs[task, seed] for seed in study.seeds]
    if kind == "tickets":
        return sum(run.ticket.info.parameters for run in own)
    return sum(run.prompt("control").numel() for run in own)


def _ratio(times: Mapping[str, Any], a: str, b: str) -> Cell:
    return Cell(times[a] / times[b], unit="number")


def _time_sentences(times: Mapping[str, Mapping[str, Any]]) -> list[str]:
    sentences = []
    for task, by_kind in times.items():
        ratios = {kind: by_kind[kind]["together"] / by_kind[kind]["apart"] for kind in _RESULTS}
        shares = " and ".join(f"{ratio:.2f} of the time for {kind}" for kind, ratio in ratios.items())
        sentences.append(f"On {task}, one batch took {shares}, against one after the other.")
    return sentences
