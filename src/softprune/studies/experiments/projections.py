"""Where prompts lie: maps, the way from their starts, and distances between seeds (the Bloomz study's second part).

Distances are measured in the prompts' own space, `P x H` numbers; a t-SNE map shows who is near whom, and its distances
stand beside them only since the study speaks of those. A prompt is as difficult as its task leaves it below a perfect
score: `1 - (tuned - constant) / (1 - constant)`, with the constant answer's score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from math import factorial
from pathlib import Path
from statistics import fmean
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from softprune.interpret.alignment import align
from softprune.interpret.projections import Projection, pca, prompt_points, token_points, tsne
from softprune.prompts.initialization import generator
from softprune.statistics.bootstrap import LEVEL
from softprune.statistics.correlation import RESAMPLES, coefficient, correlate
from softprune.studies.findings import Cell, Entry, Figure, Findings, Table
from softprune.studies.run_result import FinishedRun
from softprune.studies.score_rows import Runs, chances, collect_row, score_cell
from softprune.studies.study_context import StudyContext
from softprune.studies.verdicts import ABOVE, BELOW, NEITHER, verdict

At: TypeAlias = "tuple[str, int]"
"""A task and a seed."""
Prompts: TypeAlias = "Mapping[At, torch.Tensor]"
Floats: TypeAlias = npt.NDArray[np.float64]

START, END = "start", "tuned"
TUNED, STARTS, RANDOM = "tuned prompts", "their starts", "random steps as long"
ONE_SEED, OTHER_SEEDS = "different tasks, one seed", "different tasks and seeds"
_CIRCLE, _CROSS = "circle", "x"


def conduct(study: StudyContext) -> Findings:
    """The runs, their maps, how far each went, and how far apart they are."""
    runs = study.grid()
    sides = {
        name: {at: made.prompt(file) for at, made in runs.items()}
        for name, file in ((START, "initial"), (END, "tuned"))
    }
    went = {at: relative(sides[START][at], sides[END][at]) for at in runs}
    hard = {at: difficulty(made) for at, made in runs.items()}
    maps = {
        "prompts": study.once("map-prompts", lambda: _mapped(study, prompt_points(_both(sides))[0])),
        "tokens": study.once("map-tokens", lambda: _mapped(study, token_points(_both(sides))[0])),
    }
    apart = study.once("distances", lambda: _all_distances(study, sides, maps["prompts"]))
    ties = {
        "the tasks' means": _by_task(study, went, hard),
        "all runs, tasks resampled": clustered(went, hard, study.config.seed),
    }
    tables = (_divergence(study, runs, went, hard), _ties(ties, len(study.tasks), len(runs)), _distances(study, apart))
    figures = tuple(_figure(runs, what, method, maps[what]) for what in maps for method in ("pca", "tsne"))
    return Findings(tables, (*figures, _scatter(study, went, hard)), tuple(_sentences(study, ties, apart)))


def relative(start_PH: torch.Tensor, end_PH: torch.Tensor) -> float:
    """How far a prompt went, in lengths of its start (Frobenius norms)."""
    return float((end_PH.double() - start_PH.double()).norm() / start_PH.double().norm())


def difficulty(made: FinishedRun) -> float:
    """What a run's prompt leaves undone of what the constant answer does: 0 for a perfect score, 1 for the constant's.

    It is measured with the very prompt whose way it is held against: a training that failed counts as a hard task.
    """
    constant = made.value("constant")
    return 1.0 if constant == 1 else 1 - (made.value("tuned") - constant) / (1 - constant)


def _both(sides: Mapping[str, Prompts]) -> dict[str, torch.Tensor]:
    """Tuned prompts, then their starts, as the maps have them."""
    return {f"{side} {task} {seed}": p for side in (END, START) for (task, seed), p in sides[side].items()}


def _mapped(study: StudyContext, points: Floats) -> dict[str, Any]:
    flat, near = pca(points), tsne(points, study.config.seed)
    return {"pca": _document(flat), "tsne": _document(near)}


def _document(found: Projection) -> dict[str, Any]:
    return {"points": found.points_ND.tolist(), "explained": found.explained, "perplexity": found.perplexity}


def _by_task(study: StudyContext, went: Mapping[At, float], hard: Mapping[At, float]) -> Cell:
    """Over the tasks' means; their number is all that the interval knows of."""
    means = [[fmean(each[task, seed] for seed in study.seeds) for task in study.tasks] for each in (hard, went)]
    found = correlate(means[0], means[1], seed=study.config.seed)
    return Cell(None) if found is None else Cell(found.value, found.low, found.high, "number")


def clustered(went: Mapping[At, float], hard: Mapping[At, float], seed: int) -> Cell:
    """Over all runs, with an interval that resamples whole tasks: runs of one task say much the same."""
    tasks = sorted({task for task, _ in went})
    by_task = {task: [at for at in went if at[0] == task] for task in tasks}

    def over(chosen: Sequence[str]) -> float | None:
        places = [at for task in chosen for at in by_task[task]]
        return coefficient([hard[at] for at in places], [went[at] for at in places])

    value, drawn = over(tasks), np.random.default_rng(seed).integers(len(tasks), size=(RESAMPLES, len(tasks)))
    found = [each for row in drawn if (each := over([tasks[i] for i in row])) is not None]
    if value is None or 2 * len(found) < RESAMPLES:
        return Cell(value, unit="number")
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Cell(value, float(low), float(high), "number")


def _divergence(study: StudyContext, runs: Runs, went: Mapping[At, float], hard: Mapping[At, float]) -> Table:
    starred, tuned, constant = (
        chances(study, runs),
        collect_row(study, runs, "tuned"),
        collect_row(study, runs, "constant"),
    )
    rows: list[tuple[Entry, ...]] = []
    for task in study.tasks:
        moved = [went[task, seed] for seed in study.seeds]
        cells = (
            Cell(fmean(moved), unit="number", note=f"[{min(moved):.2f} to {max(moved):.2f}]"),
            Cell(fmean(hard[task, seed] for seed in study.seeds), unit="number"),
            score_cell(study, task, tuned[task], starred[task]),
            Cell(constant[task].mean),
            Cell(max(tuned[task].values) - min(tuned[task].values)),
        )
        rows.append((_named(task), *cells))
    columns = ("task", "moved", "difficulty", "tuned (%)", "constant (%)", "best less worst seed (%)")
    note = (
        f"Moved: Frobenius norm of end less start over that of the start, mean over {len(study.seeds)} seeds; in "
        "brackets the smallest and the largest. Difficulty: what the tuned prompt leaves undone of what the constant "
        "answer does; of the same prompt, so that a training which failed counts as a hard task."
    )
    return Table("divergence", "How far prompts went, and how hard their tasks are", columns, tuple(rows), note)


def _named(task: str) -> str:
    return Path(task).stem


def _ties(ties: Mapping[str, Cell], tasks: int, runs: int) -> Table:
    rows: tuple[tuple[Entry, ...], ...] = tuple(
        (label, cell, Cell(count, unit="count"))
        for (label, cell), count in zip(ties.items(), (tasks, runs), strict=True)
    )
    note = (
        f"Spearman of difficulty and movement: above 0, harder tasks' prompts go further. {tasks} tasks are {tasks} "
        "points, whatever the number of runs: their order alone can make any coefficient, and no interval over so few "
        "means much."
    )
    return Table("difficulty", "Do prompts of harder tasks go further?", ("over", "Spearman", "n"), rows, note)


def _all_distances(
    study: StudyContext, sides: Mapping[str, Prompts], maps: Mapping[str, Any]
) -> dict[str, dict[str, list[float]]]:
    """By measure and kind of pair, the distances."""
    order = list(sides[END])
    place = {at: n for n, at in enumerate(order)}
    steps = {at: _step(sides[START][at], sides[END][at], n) for n, at in enumerate(order)}

    def on(method: str) -> Callable[[At, At], float]:
        points = np.array(maps[method]["points"])
        return lambda a, b: float(np.linalg.norm(points[place[a]] - points[place[b]]))

    measures: dict[str, Callable[[At, At], float]] = {
        TUNED: lambda a, b: _frobenius(sides[END][a], sides[END][b]),
        "tuned prompts, tokens aligned": lambda a, b: align(sides[END][a], sides[END][b]).aligned,
        STARTS: lambda a, b: _frobenius(sides[START][a], sides[START][b]),
        RANDOM: lambda a, b: _frobenius(steps[a], steps[b]),
        "PCA map": on("pca"),
        "t-SNE map": on("tsne"),
    }
    found: dict[str, dict[str, list[float]]] = {name: {} for name in measures}
    for name, measure in measures.items():
        for a, b in combinations(order, 2):
            found[name].setdefault(_kind(a, b), []).append(measure(a, b))
    return found


def _kind(a: At, b: At) -> str:
    """Which prompts are compared: seeds of one task, by its name, or different tasks, whose fillers one seed shares."""
    if a[0] == b[0]:
        return a[0]
    return ONE_SEED if a[1] == b[1] else OTHER_SEEDS


def _step(start_PH: torch.Tensor, end_PH: torch.Tensor, seed: int) -> torch.Tensor:
    """The start after a step as long as training's, in a random direction."""
    drawn_PH = torch.randn(start_PH.shape, generator=generator(seed))
    stepped_PH: torch.Tensor = start_PH + drawn_PH / drawn_PH.norm() * (end_PH - start_PH).norm()
    return stepped_PH


def _frobenius(a_PH: torch.Tensor, b_PH: torch.Tensor) -> float:
    return float((b_PH.double() - a_PH.double()).norm())


def unevenness(distances: Sequence[float]) -> float | None:
    """Standard deviation over mean: 0 where all are equally far apart. None for fewer than two, or all of zero."""
    mean = fmean(distances) if distances else 0.0
    return None if len(distances) < 2 or mean == 0 else float(np.std(distances, ddof=1)) / mean


def _distances(study: StudyContext, apart: Mapping[str, Mapping[str, list[float]]]) -> Table:
    rows: list[tuple[Entry, ...]] = []
    for name, kinds in apart.items():
        cells = [_spread(kinds.get(task, [])) for task in study.tasks]
        others = (_spread(kinds.get(kind, [])) for kind in (ONE_SEED, OTHER_SEEDS))
        rows.append((name, *cells, *others, Cell(_ratio(study, kinds), unit="number")))
    note = (
        "Mean distance of two prompts, in brackets the standard deviation over the mean (0: equidistant). Ratio: "
        "prompts of different tasks and seeds over seeds of one task. Seeds of a task begin with the same instruction; "
        "the places behind it begin as other words, which prompts of one seed share whatever the task. Random steps: "
        "each start after a step as long as training's in a random direction; in so many dimensions such steps leave "
        "all equally far apart. Distances on a t-SNE map mean little."
    )
    columns = ("distance of", *map(_named, study.tasks), ONE_SEED, OTHER_SEEDS, "ratio")
    return Table("distances", "How far apart prompts are", columns, tuple(rows), note)


def _ratio(study: StudyContext, kinds: Mapping[str, list[float]]) -> float | None:
    """How many times further prompts of different tasks and seeds are apart than seeds of one task."""
    within = [each for task in study.tasks for each in kinds.get(task, [])]
    between = kinds.get(OTHER_SEEDS, [])
    return fmean(between) / fmean(within) if within and between and fmean(within) > 0 else None


def _spread(distances: Sequence[float]) -> Cell:
    uneven = unevenness(distances)
    if not distances:
        return Cell(None, unit="number")
    return Cell(fmean(distances), unit="number", note="" if uneven is None else f"[{uneven:.2f}]")


def _figure(runs: Runs, what: str, method: str, found: Mapping[str, Any]) -> Figure:
    """A map: a trace for each task, tuned prompts as circles, starts as crosses."""
    points = found[method]["points"]
    each = len(points) // (2 * len(runs))
    traces = []
    for task in dict.fromkeys(task for task, _ in runs):
        shown: list[list[float]] = []
        symbols: list[str] = []
        texts: list[str] = []
        for n, (side, at) in enumerate((side, at) for side in (END, START) for at in runs):
            if at[0] == task:
                shown += points[n * each : (n + 1) * each]
                symbols += [_CIRCLE if side == END else _CROSS] * each
                texts += [f"{side}, seed {at[1]}{f', token {p}' if each > 1 else ''}" for p in range(each)]
        x, y = ([point[axis] for point in shown] for axis in (0, 1))
        trace = {"type": "scatter", "mode": "markers", "name": _named(task), "x": x, "y": y, "text": texts}
        traces.append(trace | {"marker": {"symbol": symbols}})
    one = "prompt" if what == "prompts" else "token of a prompt"
    if method == "pca":
        shares = [f"{share:.0%}" for share in found[method]["explained"]]
        how, layout = f"PCA: the axes hold {' and '.join(shares)} of the variance.", _axes("first axis", "second axis")
    else:
        how = (
            f"t-SNE, perplexity {found[method]['perplexity']:.1f}, fitted to {len(points)} points: who is near whom; "
            "how far means little."
        )
        layout = _axes("", "")
    caption = f"A point for each {one}, a colour for each task; circles after training, crosses before. {how}"
    return Figure(
        f"{method}-{what}", f"{'PCA' if method == 'pca' else 't-SNE'} of {what}", caption, tuple(traces), layout
    )


def _axes(x: str, y: str) -> dict[str, Any]:
    return {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}


def _scatter(study: StudyContext, went: Mapping[At, float], hard: Mapping[At, float]) -> Figure:
    traces = tuple(
        {
            "type": "scatter",
            "mode": "markers",
            "name": _named(task),
            "x": [hard[task, seed] for seed in study.seeds],
            "y": [went[task, seed] for seed in study.seeds],
        }
        for task in study.tasks
    )
    caption = "A point for each run: to the right, how hard its task was for it; upwards, how far its prompt went."
    return Figure(
        "difficulty", "Difficulty and movement", caption, traces, _axes("difficulty", "moved, in lengths of the start")
    )


def _sentences(
    study: StudyContext, ties: Mapping[str, Cell], apart: Mapping[str, Mapping[str, list[float]]]
) -> list[str]:
    lines, least = [], 2 / factorial(len(study.tasks))  # the p of a perfect order, two-sided
    for label, cell in ties.items():
        told = verdict(cell) if least < 1 - LEVEL else NEITHER
        if cell.value is None:
            lines.append(f"Difficulty and movement over {label}: not measured.")
            continue
        interval = "no interval" if cell.low is None else f"{cell.low:+.2f} to {cell.high:+.2f}"
        agrees = "as in the study" if told == ABOVE else "unlike the study" if told == BELOW else "no relation shown"
        lines.append(
            f"Difficulty and movement over {label}: Spearman {cell.value:+.2f} ({interval}), {agrees}; "
            "in the study, harder tasks' prompts go further."
        )
    if least >= 1 - LEVEL:
        lines.append(f"{len(study.tasks)} tasks can't show a relation: even a perfect order has p = {least:.2g}.")
    for name in (TUNED, RANDOM, "t-SNE map"):
        uneven = [each for task in study.tasks if (each := unevenness(apart[name].get(task, []))) is not None]
        if uneven:
            lines.append(
                f"Distances between the seeds of a task, {name}: they vary by {fmean(uneven):.0%} of their mean "
                f"({min(uneven):.0%} to {max(uneven):.0%} by task); the study calls them equidistant on its t-SNE map."
            )
    ratios = {name: _ratio(study, apart[name]) for name in (TUNED, STARTS)}
    if all(ratio is not None for ratio in ratios.values()):
        told = "more than" if (ratios[TUNED] or 0) > (ratios[STARTS] or 0) else "no more than"
        lines.append(
            f"Prompts of different tasks and seeds are {ratios[TUNED]:.2f} times as far apart as seeds of one task, "
            f"{told} their starts, which are {ratios[STARTS]:.2f} times as far; no interval."
        )
    return lines
