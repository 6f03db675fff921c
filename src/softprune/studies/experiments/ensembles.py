"""Tickets of one task that answer together: what the ensemble scores, and what it costs in one batch.

Every seed's winner was chosen and trained apart. Together they answer by the mean of their probabilities
(Lakshminarayanan et al. 2017, section 2.4); the geometric mean and votes stand beside it, and the same of the unpruned
controls, so that what is due to several prompts is told from what is due to pruning.
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
from softprune.statistics.methods_over_seeds import Scored
from softprune.studies.charts import bars
from softprune.studies.example_answers import Line, agreement, lines_of, scored_lines
from softprune.studies.findings import Cell, Entry, Findings, Table
from softprune.studies.prompt_scoring import OpenSet, open_set
from softprune.studies.run_result import Made
from softprune.studies.score_rows import Outcome, Row, Runs, chances, difference_cell, row_of, score_table
from softprune.studies.study_context import Bench
from softprune.studies.verdicts import corrected_rows, said
from softprune.training.scoring import ScoredSet, score_each

TICKETS, BEST, CONTROLS = (
    "one ticket, mean of seeds",
    "the ticket that is best on select",
    "one unpruned, mean of seeds",
)
WHOLE: Final = "unpruned prompts together"
ROWS: Final = {"winner": "tickets together", "control": WHOLE}
_WAYS: Final = {MEAN: "", "geometric": ", geometric mean", "vote": ", votes"}


def conduct(bench: Bench) -> Findings:
    """Runs of all seeds, their ensembles, and the time of both ways to ask them.

    Raises:
        SoftpruneError: with a single seed.
    """
    if len(bench.seeds) < 2:
        raise SoftpruneError("at least two seeds, to have several tickets", str(len(bench.seeds)), "raise --seeds")
    runs = bench.grid()
    starred = chances(bench, runs)
    rows: dict[str, Row] = {
        TICKETS: row_of(bench, runs, "winner"),
        BEST: {task: best_of([runs[task, seed] for seed in bench.seeds]) for task in bench.tasks},
        **{f"{ROWS['winner']}{_WAYS[how]}": _together(bench, runs, "winner", how) for how in COMBINE},
        CONTROLS: row_of(bench, runs, "control"),
        WHOLE: _together(bench, runs, "control", MEAN),
    }
    together = ROWS["winner"]
    pairs = {
        f"{together} - {TICKETS}": (together, TICKETS),
        f"{together} - {BEST}": (together, BEST),
        f"{WHOLE} - {CONTROLS}": (WHOLE, CONTROLS),
        f"{together} - {WHOLE}": (together, WHOLE),
    }
    differences = corrected_rows(
        {
            name: [difference_cell(bench, task, rows[a][task], rows[b][task], starred[task]) for task in bench.tasks]
            for name, (a, b) in pairs.items()
        }
    )
    note = (
        "Paired over the examples of report; a row of several seeds is their mean. All seeds make one ensemble, and "
        "one ensemble says nothing about others: intervals cover other examples, for these very prompts; no verdict."
    )
    cells: tuple[tuple[Entry, ...], ...] = tuple((name, *found) for name, found in differences.items())
    times = {task: bench.once(f"times-{task}", partial(_times, bench, runs, task)) for task in bench.tasks}
    scores = score_table(bench, "scores", "Alone and together", rows, starred)
    tables = (
        scores,
        Table("differences", "What answering together brings", ("points", *bench.tasks), cells, note),
        _apart(bench, runs),
        _cost(bench, runs, times),
    )
    told = [f"{name}: {'; '.join(map(said, bench.tasks, found))}." for name, found in differences.items()]
    figure = bars(scores, "alone-together", "Alone and together", bench.tasks)
    return Findings(tables, (figure,), (*told, *_told(times)))


def best_of(runs: Sequence[Made]) -> Outcome:
    """The winner of the run that is best on its own `select`; of equals the smaller, then the lower seed."""
    best = min(runs, key=lambda made: (-(made.ticket.info.select or 0.0), made.ticket.info.parameters, made.seed))
    return Outcome((best.value("winner"),), (best.scored("winner"),))


def ensemble_of(parts: Sequence[Sequence[Line]], how: str) -> list[Line]:
    """What several prompts answered together, from what each answered.

    Args:
        parts: of each prompt, its line of each example, in one order.
        how: one of `COMBINE`.
    """
    made: list[Line] = []
    for lines in zip(*parts, strict=True):
        scores_KA = torch.tensor([line["scores"] for line in lines])
        made.append({**lines[0], "predicted": combine_scores(scores_KA, how).answer})
    return made


def _together(bench: Bench, runs: Runs, row: str, how: str) -> dict[str, Outcome]:
    """By task, the one outcome of all seeds."""
    found: dict[str, Outcome] = {}
    for task in bench.tasks:
        metric = load_task(task).metric
        scored: Scored = scored_lines(ensemble_of(_lines(bench, runs, task, row), how), metric)
        found[task] = Outcome((float(metric.score(scored.counts_NC.sum(axis=0))),), (scored,))
    return found


def _lines(bench: Bench, runs: Runs, task: str, row: str) -> list[list[Line]]:
    """What the prompts of all seeds answered, to the same examples.

    Raises:
        SoftpruneError: where they were other examples, or answers weren't scored.
    """
    parts = [lines_of(runs[task, seed], row) for seed in bench.seeds]
    if len({tuple(line["id"] for line in part) for part in parts}) > 1:
        do = "leave task.report_seed to the study"
        raise SoftpruneError("runs that report on the same examples", f"others by seed for {task}", do)
    if not all("scores" in line for part in parts for line in part):
        raise SoftpruneError("tasks whose answers are scored, for ensembles", task, "leave it out")
    return parts


def _apart(bench: Bench, runs: Runs) -> Table:
    """How far the prompts differ: where all agree, nothing can be won."""
    rows: list[tuple[Entry, ...]] = []
    for name, label in (("winner", "tickets"), ("control", "unpruned prompts")):
        parts = {task: _lines(bench, runs, task, name) for task in bench.tasks}
        rows.append((f"{label}: all give the same answer", *(Cell(agreement(parts[t])) for t in bench.tasks)))
        rows.append((f"{label}: at least one is right", *(Cell(_any_right(parts[t])) for t in bench.tasks)))
    note = "Of the examples of report. The second row of each: what choosing would reach that knows the right answer."
    return Table("agreement", "How often the prompts agree", ("%", *bench.tasks), tuple(rows), note)


def _any_right(parts: Sequence[Sequence[Line]]) -> float:
    return fmean(any(line["predicted"] == line["gold"] for line in lines) for lines in zip(*parts, strict=True))


def _times(bench: Bench, runs: Runs, task: str) -> dict[str, Any]:
    """Seconds for all tickets in shared calls and one after the other, and for whole prompts likewise.

    The two ways alternate, after one call of each that isn't counted; medians.
    """
    opened = open_set(bench.spec(task, bench.study.seed).recipe)
    first = int(bench.options.get("timed", 64))
    some = ScoredSet(opened.data.examples[:first], opened.data.encoded[:first])
    made = [runs[task, seed] for seed in bench.seeds]
    kinds = {
        "tickets": [each.ticket.prompt() for each in made],
        "unpruned prompts": [each.prompt("control") for each in made],
    }
    return {
        "examples": len(some),
        **{
            kind: _timed(opened, some, prompts, int(bench.options.get("repeats", 5))) for kind, prompts in kinds.items()
        },
    }


def _timed(opened: OpenSet, data: ScoredSet, prompts: Sequence[torch.Tensor], repeats: int) -> dict[str, Any]:
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
    return {name: median(found) for name, found in seconds.items()} | {"lengths": [len(prompt) for prompt in read]}


def _cost(bench: Bench, runs: Runs, times: Mapping[str, Mapping[str, Any]]) -> Table:
    """What an ensemble takes: numbers that are stored, and time."""
    rows: list[tuple[Entry, ...]] = []
    for kind in ("tickets", "unpruned prompts"):
        found = {task: times[task][kind] for task in bench.tasks}
        rows += [
            (
                f"{kind}: numbers stored",
                *(Cell(_stored(bench, runs, task, kind), unit="count") for task in bench.tasks),
            ),
            (f"{kind}: lengths", *(", ".join(map(str, found[task]["lengths"])) for task in bench.tasks)),
            (f"{kind}: one batch / one after the other", *(_ratio(found[t], "together", "apart") for t in bench.tasks)),
            (f"{kind}: one batch / one prompt", *(_ratio(found[t], "together", "one") for t in bench.tasks)),
        ]
    count = next(iter(times.values()))["examples"]
    note = (
        f"Time ratios of medians on {count} examples, alternating, on this machine at that time; no interval. "
        "Prompts of different lengths never share a call."
    )
    return Table("cost", f"What {len(bench.seeds)} prompts cost", ("", *bench.tasks), tuple(rows), note)


def _stored(bench: Bench, runs: Runs, task: str, kind: str) -> int:
    made = [runs[task, seed] for seed in bench.seeds]
    if kind == "tickets":
        return sum(each.ticket.info.parameters for each in made)
    return sum(each.prompt("control").numel() for each in made)


def _ratio(times: Mapping[str, Any], a: str, b: str) -> Cell:
    return Cell(times[a] / times[b], unit="number")


def _told(times: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The time in words."""
    parts = []
    for task, found in times.items():
        ratios = {kind: found[kind]["together"] / found[kind]["apart"] for kind in ("tickets", "unpruned prompts")}
        told = " and ".join(f"{ratio:.2f} of the time for {kind}" for kind, ratio in ratios.items())
        parts.append(f"On {task}, one batch took {told}, against one after the other.")
    return parts
