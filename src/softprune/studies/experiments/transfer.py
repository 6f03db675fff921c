"""Every task's prompts on every task, and whether alike prompts transfer better (the Bloomz study's third part).

A prompt is asked with the target's template and answers, untrained there. Its gain is what it scores above no prompt.
Random prompts show what any prompt of that length does. Prompts resemble each other also because they began alike, so
the gain is correlated with the starts' likeness, too, and with that of what training changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from math import factorial
from pathlib import Path
from statistics import fmean
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from softprune.data import load_task
from softprune.errors import SoftpruneError
from softprune.interpret.alignment import align
from softprune.statistics.bootstrap import LEVEL
from softprune.statistics.correlation import Correlation, mantel
from softprune.studies.findings import Cell, Entry, Figure, Findings, Table, shown
from softprune.studies.prompt_scoring import open_set
from softprune.studies.proportions import wilson
from softprune.studies.run_result import FinishedRun
from softprune.studies.score_rows import Outcome, Runs, chances, difference_cell, score_cell
from softprune.studies.study_context import StudyContext
from softprune.studies.transfer_scores import (
    BASELINES,
    NONE,
    NORMS,
    WORDS,
    collect_prompts,
    load_answers,
    score_prompts_on,
)
from softprune.studies.verdicts import (
    ABOVE,
    BELOW,
    corrected,
    interval_note,
    only_cells,
    paired_note,
    tally,
    verdict,
)

Floats: TypeAlias = npt.NDArray[np.float64]
Pair: TypeAlias = "tuple[str, str]"
"""A source (or a baseline), and the task that its prompts are asked on."""
Reached: TypeAlias = "Mapping[Pair, Outcome]"
Gains: TypeAlias = "Mapping[Pair, Cell]"

STUDY: Final = 0.9
"""The share of transfers that improved over no prompt in the study."""
PARTS: Final = {"initial": "starts", "change": "what training changed", "tuned": "tuned prompts"}
ALIKE: Final = {
    "frobenius": ("distance in order", -1),
    "aligned": ("distance, tokens aligned", -1),
    "cosine": ("cosine in order", 1),
    "mean_cosine": ("cosine of mean vectors", 1),
}
"""How alike two prompts are: by field of an `Alignment` its name, and the sign under which more is more alike."""


@dataclass(frozen=True, slots=True)
class Tie:
    """How the likeness of two tasks' prompts goes with the gain of transfers between them.

    Attributes:
        part: of which prompts, as in `PARTS`.
        measure: of likeness, as in `ALIKE`.
        found: the correlation; None where it couldn't be measured.
    """

    part: str
    measure: str
    found: Correlation | None


def conduct(study: StudyContext) -> Findings:
    """The runs, every prompt on every task, the gains, and how they go with likeness.

    Raises:
        SoftpruneError: for a single task.
    """
    if len(study.tasks) < 2:
        raise SoftpruneError("two tasks at least, to transfer between", f"{len(study.tasks)}", "name more: --tasks a,b")
    runs = study.grid()
    reached = {pair: outcome for task in study.tasks for pair, outcome in _asked_on(study, runs, task).items()}
    starred = chances(study, runs)
    gains = {
        (who, task): difference_cell(study, task, outcome, reached[NONE, task], starred[task])
        for (who, task), outcome in reached.items()
        if who != NONE
    }
    gains = dict(zip(gains, only_cells(corrected(list(gains.values()))), strict=True))
    pairs = list(permutations(study.tasks, 2))
    alike = likeness(study, runs)
    ties = correlations(study, alike, gains)
    shares = _shares(study, reached, pairs)
    tables = (_matrix(study, reached, starred), _gains(study, gains), shares, _ties(ties, len(study.tasks)))
    figures = (_heatmap(study, gains), _scatter(study, alike["tuned"], gains, pairs))
    return Findings(tables, figures, tuple(_sentences(study, reached, gains, ties, pairs)))


def _asked_on(study: StudyContext, runs: Runs, task: str) -> dict[Pair, Outcome]:
    """What every prompt scores on the task's `report`."""

    def compute() -> dict[str, Any]:
        target = open_set(study.spec(task, study.config.seed).recipe, "report")
        return score_prompts_on(target, collect_prompts(runs, target.backbone))

    score = load_task(task).metric.score
    answers = load_answers(study.once(f"on-{Path(task).stem}", compute))
    values = {who: tuple(float(score(each.counts_NC.sum(0))) for each in seeds) for who, seeds in answers.items()}
    return {(who, task): Outcome(values[who], tuple(seeds), trained=who != NONE) for who, seeds in answers.items()}


def likeness(study: StudyContext, runs: Runs) -> dict[str, dict[str, Floats]]:
    """By part and measure, how alike two tasks' prompts are, `[T, T]`: the mean over all pairs of their seeds."""

    def vectors(made: FinishedRun, part: str) -> Any:
        return made.prompt("tuned") - made.prompt("initial") if part == "change" else made.prompt(part)

    def between(part: str, first: str, second: str) -> dict[str, float]:
        found = [
            align(vectors(runs[first, a], part), vectors(runs[second, b], part))
            for a, b in product(study.seeds, study.seeds)
        ]
        return {name: _mean([getattr(each, name) for each in found]) for name in ALIKE}

    tasks = study.tasks
    made: dict[str, dict[str, Floats]] = {}
    for part in PARTS:
        made[part] = {name: np.full((len(tasks), len(tasks)), np.nan) for name in ALIKE}
        for i, j in permutations(range(len(tasks)), 2):
            if i < j:
                for name, value in between(part, tasks[i], tasks[j]).items():
                    made[part][name][i, j] = made[part][name][j, i] = value
    return made


def _mean(values: Sequence[float | None]) -> float:
    """NaN where one couldn't be measured."""
    real = [value for value in values if value is not None]
    return fmean(real) if len(real) == len(values) else float("nan")


def correlations(study: StudyContext, alike: Mapping[str, Mapping[str, Floats]], gains: Gains) -> list[Tie]:
    """Likeness against the gain over no prompt, over all ordered pairs of tasks; more is more alike."""
    tasks = study.tasks
    gain_TT = np.array([[_number(gains[a, b]) if a != b else np.nan for b in tasks] for a in tasks])
    return [
        Tie(part, name, mantel(sign * alike[part][name], gain_TT, seed=study.config.seed))
        for part in PARTS
        for name, (_, sign) in ALIKE.items()
    ]


def _number(cell: Cell) -> float:
    return float("nan") if cell.value is None else cell.value


def _named(task: str) -> str:
    return task if task in BASELINES else Path(task).stem


def _matrix(study: StudyContext, reached: Reached, starred: Mapping[str, bool]) -> Table:
    rows: tuple[tuple[Entry, ...], ...] = tuple(
        (_named(who), *(_or_none(reached.get((who, t)), study, t, starred[t]) for t in study.tasks))
        for who in (*BASELINES, *study.tasks)
    )
    note = (
        f"Rows: the task whose prompts are asked, {len(study.seeds)} a row; columns: the task they are asked on. "
        f"Random words: sampled vocabulary. {interval_note(len(study.seeds))} Nothing was "
        "chosen here."
    )
    return Table("matrix", "Prompts on tasks", ("% of", *map(_named, study.tasks)), rows, note)


def _or_none(outcome: Outcome | None, study: StudyContext, task: str, starred: bool) -> Cell:
    return Cell(None) if outcome is None else score_cell(study, task, outcome, starred)


def _gains(study: StudyContext, gains: Gains) -> Table:
    rows: tuple[tuple[Entry, ...], ...] = tuple(
        (_named(who), *(gains.get((who, task), Cell(None)) for task in study.tasks))
        for who in (*BASELINES[1:], *study.tasks)
    )
    return Table(
        "gains",
        "Gain over no prompt",
        ("points", *map(_named, study.tasks)),
        rows,
        paired_note(len(study.seeds)),
    )


def share(better: Sequence[bool]) -> Cell:
    """The share of transfers that are better, with Wilson's interval: a bootstrap's has no width where all are."""
    return Cell(fmean(map(float, better)), *wilson(sum(better), len(better)))


def _shares(study: StudyContext, reached: Reached, pairs: Sequence[Pair]) -> Table:
    """How many transfers to other tasks beat each baseline; and how many random prompts beat none."""
    rows: list[tuple[Entry, ...]] = []

    def add(label: str, asked: Sequence[Pair], baseline: str) -> None:
        cells = only_cells(
            corrected([difference_cell(study, t, reached[who, t], reached[baseline, t]) for who, t in asked])
        )
        means = [reached[who, t].mean > reached[baseline, t].mean for who, t in asked]
        single = [value > reached[baseline, t].mean for who, t in asked for value in reached[who, t].values]
        rows.append((label, share(means), share(single), tally(cells)))

    for baseline in (NONE, WORDS, NORMS):
        add(f"other tasks' prompts over {baseline}", pairs, baseline)
    for who in (WORDS, NORMS):
        add(f"{who} over {NONE}", [(who, task) for task in study.tasks], NONE)
    add(f"its own task's prompts over {NONE}", [(task, task) for task in study.tasks], NONE)
    note = (
        f"{len(pairs)} pairs of {len(study.tasks)} tasks share sources and targets, so that intervals, Wilson's, which "
        "take pairs as independent, are too narrow. The last column has the pairs whose own interval lies above or "
        f"below 0, corrected for their number. {interval_note(len(study.seeds))}"
    )
    columns = ("%", "of pairs, means over seeds", "of single prompts", "pairs by their own interval")
    return Table("shares", "Transfers that improve", columns, tuple(rows), note)


def _ties(ties: Sequence[Tie], count: int) -> Table:
    rows: list[tuple[Entry, ...]] = []
    for tie in ties:
        label = f"{PARTS[tie.part]}: {ALIKE[tie.measure][0]}"
        if tie.found is None:
            rows.append((label, Cell(None), Cell(None), Cell(None)))
            continue
        found = tie.found
        value = Cell(found.value, found.low, found.high, "number")
        rows.append((label, value, Cell(found.p, unit="number"), Cell(found.n, unit="count")))
    note = (
        "Spearman over ordered pairs of different tasks; distances with their sign turned, so that above 0 says: the "
        "more alike, the more gain. Intervals resample tasks; p permutes tasks (Mantel). "
        f"{count} tasks have {factorial(count):,} orders, so p can't be below {1 / factorial(count):.2g}. "
        f"{len(ties)} looks at one question, not corrected."
    )
    return Table(
        "likeness", "Likeness of prompts and gain", ("likeness of", "Spearman", "p", "pairs"), tuple(rows), note
    )


def _heatmap(study: StudyContext, gains: Gains) -> Figure:
    rows = [who for who in (*BASELINES[1:], *study.tasks) if any((who, task) in gains for task in study.tasks)]
    values = [[_shown(gains.get((who, task))) for task in study.tasks] for who in rows]
    texts = [["" if value is None else f"{value:+.1f}" for value in row] for row in values]
    trace = {
        "type": "heatmap",
        "x": [_named(task) for task in study.tasks],
        "y": [_named(who) for who in rows],
        "z": values,
        "text": texts,
        "texttemplate": "%{text}",
        "colorbar": {"title": {"text": "points"}},
        "zmid": 0,
    }
    caption = (
        "A square for each prompt (row) and the task it is asked on (column): points above no prompt, written in it. "
        "The table of gains has the same numbers with their intervals."
    )
    axes = {"xaxis": {"title": {"text": "asked on"}}, "yaxis": {"autorange": "reversed"}}
    return Figure("matrix", "Gain over no prompt", caption, (trace,), axes)


def _shown(cell: Cell | None) -> float | None:
    return None if cell is None or cell.value is None else 100 * cell.value


def _scatter(study: StudyContext, alike: Mapping[str, Floats], gains: Gains, pairs: Sequence[Pair]) -> Figure:
    at = {task: place for place, task in enumerate(study.tasks)}
    x = [float(alike["frobenius"][at[a], at[b]]) for a, b in pairs]
    y = [_shown(gains[pair]) for pair in pairs]
    up, down = ([_side(gains[pair], side) for pair in pairs] for side in ("high", "low"))
    trace = {
        "type": "scatter",
        "mode": "markers+text",
        "x": x,
        "y": y,
        "text": [f"{_named(a)} on {_named(b)}" for a, b in pairs],
        "textposition": "top center",
        "error_y": {"type": "data", "symmetric": False, "array": up, "arrayminus": down},
        "showlegend": False,
    }
    caption = (
        "A point for each ordered pair of tasks: to the right, the distance of their tuned prompts (Frobenius norm, "
        "mean over seeds); upwards, what the one's prompts gain over no prompt on the other, with its 95% interval. "
        "If alike prompts transferred better, points would fall to the right."
    )
    layout = {"xaxis": {"title": {"text": "distance"}}, "yaxis": {"title": {"text": "gain (points)"}}}
    return Figure("likeness", "Distance of prompts and gain", caption, (trace,), layout)


def _side(cell: Cell, side: str) -> float | None:
    edge = getattr(cell, side)
    return None if edge is None or cell.value is None else 100 * abs(edge - cell.value)


def _sentences(
    study: StudyContext, reached: Reached, gains: Gains, ties: Sequence[Tie], pairs: Sequence[Pair]
) -> list[str]:
    cells = [gains[pair] for pair in pairs]
    better = [_number(cell) > 0 for cell in cells]
    over_words = [reached[a, b].mean > reached[WORDS, b].mean for a, b in pairs]
    words = sum(_number(gains[WORDS, task]) > 0 for task in study.tasks)
    shares = [shown(share(each)) for each in (better, over_words)]
    own = [gains[task, task] for task in study.tasks]
    agrees = "as in the study or more" if sum(better) >= STUDY * len(pairs) else "fewer than in the study"
    lines = [
        f"The study: {STUDY:.0%} of transfers improve over no prompt. Here {sum(better)} of {len(pairs)} pairs do, "
        f"{shares[0]}%: {agrees}; by their own intervals {tally(cells)}.",
        f"Other tasks' prompts beat random words on {sum(over_words)} of {len(pairs)} pairs, {shares[1]}%; random "
        f"words themselves beat no prompt on {words} of {len(study.tasks)} tasks. What random words do is no transfer.",
    ]
    lines.append(
        f"On their own tasks, prompts beat no prompt on {sum(_number(cell) > 0 for cell in own)} of {len(own)} "
        f"({tally(own)})."
    )
    return [*lines, *(_told(tie) for tie in ties if tie.measure in ("frobenius", "cosine"))]


def _told(tie: Tie) -> str:
    what = f"Likeness of {PARTS[tie.part]} ({ALIKE[tie.measure][0]}) and gain"
    if tie.found is None:
        return f"{what}: not measured."
    found = tie.found
    cell = Cell(found.value, found.low, found.high, "number")
    told = verdict(cell)
    way = {ABOVE: "alike ones transfer better", BELOW: "alike ones transfer worse"}.get(told, "no relation shown")
    if told in (ABOVE, BELOW) and (found.p is None or found.p >= 1 - LEVEL):
        way = "no relation shown: the interval leaves 0 out, but so much is not rare when tasks are shuffled"
    interval = "no interval" if found.low is None else f"{found.low:+.2f} to {found.high:+.2f}"
    p = "" if found.p is None else f", p = {found.p:.2f}"
    return f"{what}: Spearman {found.value:+.2f} ({interval}{p}) over {found.n} pairs of {found.tasks} tasks, {way}."
