"""Where prompts lie: maps, the way from their starts, and distances between seeds (the Bloomz study's second part).

Distances are measured in the prompts' own space, `P x H` numbers; a t-SNE map shows who is near whom, and its distances
stand beside them only since the study speaks of those. A prompt is as difficult as its task leaves it below a perfect
score: `1 - (tuned - constant) / (1 - constant)`, with the constant answer's score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product
from math import factorial
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
from softprune.studies.figures import axes, points
from softprune.studies.findings import Cell, Entry, Figure, Findings, Table
from softprune.studies.run_result import FinishedRun
from softprune.studies.score_rows import Runs, chances, collect_outcome, score_cell
from softprune.studies.study_context import StudyContext, task_label
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
    starts = {at: run.prompt("initial") for at, run in runs.items()}
    ends = {at: run.prompt("tuned") for at, run in runs.items()}
    moved = {at: relative_distance(starts[at], ends[at]) for at in runs}
    difficulties = {at: difficulty(run) for at, run in runs.items()}
    both = {f"{END} {task} {seed}": prompt_PH for (task, seed), prompt_PH in ends.items()}
    both |= {f"{START} {task} {seed}": prompt_PH for (task, seed), prompt_PH in starts.items()}
    maps = {
        "prompts": study.once("map-prompts", lambda: _map_points(study, prompt_points(both)[0])),
        "tokens": study.once("map-tokens", lambda: _map_points(study, token_points(both)[0])),
    }
    distances = study.once("distances", lambda: _all_distances(starts, ends, maps["prompts"]))
    ties = {
        "the tasks' means": _correlate_tasks(study, moved, difficulties),
        "all runs, tasks resampled": correlate_clusters(moved, difficulties, study.config.seed),
    }
    tables = [
        _divergence_table(study, runs, moved, difficulties),
        _tie_table(ties, len(study.tasks), len(runs)),
        _distance_table(study, distances),
    ]
    figures = [_map_figure(runs, what, method, maps[what]) for what, method in product(maps, ("pca", "tsne"))]
    figures.append(_scatter(study, moved, difficulties))
    return Findings(tables, figures, _sentences(study, ties, distances))


def relative_distance(start_PH: torch.Tensor, end_PH: torch.Tensor) -> float:
    """How far a prompt went, in lengths of its start (Frobenius norms)."""
    return float((end_PH.double() - start_PH.double()).norm() / start_PH.double().norm())


def difficulty(run: FinishedRun) -> float:
    """What a run's prompt leaves undone of what the constant answer does: 0 for a perfect score, 1 for the constant's.

    It is measured with the very prompt whose way it is held against: a training that failed counts as a hard task.
    """
    constant = run.value("constant")
    return 1.0 if constant == 1 else 1 - (run.value("tuned") - constant) / (1 - constant)


def _map_points(study: StudyContext, points_ND: Floats) -> dict[str, Any]:
    return {"pca": _document(pca(points_ND)), "tsne": _document(tsne(points_ND, study.config.seed))}


def _document(projection: Projection) -> dict[str, Any]:
    points = projection.points_ND.tolist()
    return {"points": points, "explained": projection.explained, "perplexity": projection.perplexity}


def _correlate_tasks(study: StudyContext, moved: Mapping[At, float], difficulties: Mapping[At, float]) -> Cell:
    """Over the tasks' means; their number is all that the interval knows of."""
    x, y = (
        [fmean(values[task, seed] for seed in study.seeds) for task in study.tasks] for values in (difficulties, moved)
    )
    each = correlate(x, y, seed=study.config.seed)
    return Cell(None) if each is None else Cell(each.value, each.low, each.high, "number")


def correlate_clusters(moved: Mapping[At, float], difficulties: Mapping[At, float], seed: int) -> Cell:
    """Over all runs, with an interval that resamples whole tasks: runs of one task say much the same."""
    tasks = sorted({task for task, _ in moved})
    by_task = {task: [at for at in moved if at[0] == task] for task in tasks}

    def over(chosen: Sequence[str]) -> float | None:
        places = [at for task in chosen for at in by_task[task]]
        return coefficient([difficulties[at] for at in places], [moved[at] for at in places])

    value, drawn = over(tasks), np.random.default_rng(seed).integers(len(tasks), size=(RESAMPLES, len(tasks)))
    resampled = []
    for row in drawn:
        each = over([tasks[i] for i in row])
        resampled += [] if each is None else [each]
    if value is None or 2 * len(resampled) < RESAMPLES:
        return Cell(value, unit="number")
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Cell(value, float(low), float(high), "number")


def _divergence_table(
    study: StudyContext, runs: Runs, moved: Mapping[At, float], difficulties: Mapping[At, float]
) -> Table:
    at_chance, rows = chances(study, runs), []
    for task in study.tasks:
        own = [runs[task, seed] for seed in study.seeds]
        tuned, constant = collect_outcome(own, "tuned"), collect_outcome(own, "constant")
        each = [moved[task, seed] for seed in study.seeds]
        row: list[Entry] = [
            task_label(task),
            Cell(fmean(each), unit="number", note=f"[{min(each):.2f} to {max(each):.2f}]"),
            Cell(fmean(difficulties[task, seed] for seed in study.seeds), unit="number"),
            score_cell(study, task, tuned, at_chance[task]),
            Cell(constant.mean),
            Cell(max(tuned.values) - min(tuned.values)),
        ]
        rows.append(row)
    columns = ("task", "moved", "difficulty", "tuned (%)", "constant (%)", "best less worst seed (%)")
    note = (
        f"Moved: Frobenius norm of end less start over that of the start, mean over {len(study.seeds)} seeds; in "
        "brackets the smallest and the largest. Difficulty: what the tuned prompt leaves undone of what the constant "
        "answer does; of the same prompt, so that a training which failed counts as a hard task."
    )
    return Table("divergence", "How far prompts went, and how hard their tasks are", columns, rows, note)


def _tie_table(ties: Mapping[str, Cell], tasks: int, runs: int) -> Table:
    counts = zip(ties.items(), (tasks, runs), strict=True)
    rows = [(label, cell, Cell(count, unit="count")) for (label, cell), count in counts]
    note = (
        f"Spearman of difficulty and movement: above 0, harder tasks' prompts go further. {tasks} tasks are {tasks} "
        "points, whatever the number of runs: their order alone can make any coefficient, and no interval over so few "
        "means much."
    )
    return Table("difficulty", "Do prompts of harder tasks go further?", ("over", "Spearman", "n"), rows, note)


def _all_distances(starts: Prompts, ends: Prompts, maps: Mapping[str, Any]) -> dict[str, dict[str, list[float]]]:
    """By measure and kind of pair, the distances."""
    order = list(ends)
    place = {at: n for n, at in enumerate(order)}
    steps = {at: _random_step(starts[at], ends[at], n) for n, at in enumerate(order)}

    def on_map(method: str) -> Callable[[At, At], float]:
        points_ND = np.array(maps[method]["points"])
        return lambda a, b: float(np.linalg.norm(points_ND[place[a]] - points_ND[place[b]]))

    measures: dict[str, Callable[[At, At], float]] = {
        TUNED: lambda a, b: _frobenius(ends[a], ends[b]),
        "tuned prompts, tokens aligned": lambda a, b: align(ends[a], ends[b]).aligned,
        STARTS: lambda a, b: _frobenius(starts[a], starts[b]),
        RANDOM: lambda a, b: _frobenius(steps[a], steps[b]),
        "PCA map": on_map("pca"),
        "t-SNE map": on_map("tsne"),
    }
    distances: dict[str, dict[str, list[float]]] = {name: {} for name in measures}
    for name, measure in measures.items():
        for a, b in combinations(order, 2):
            distances[name].setdefault(_kind(a, b), []).append(measure(a, b))
    return distances


def _kind(a: At, b: At) -> str:
    """Which prompts are compared: seeds of one task, by its name, or different tasks, whose fillers one seed shares."""
    if a[0] == b[0]:
        return a[0]
    return ONE_SEED if a[1] == b[1] else OTHER_SEEDS


def _random_step(start_PH: torch.Tensor, end_PH: torch.Tensor, seed: int) -> torch.Tensor:
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


def _distance_table(study: StudyContext, distances: Mapping[str, Mapping[str, list[float]]]) -> Table:
    rows: list[list[Entry]] = []
    for name, kinds in distances.items():
        cells = [_spread(kinds.get(kind, [])) for kind in (*study.tasks, ONE_SEED, OTHER_SEEDS)]
        rows.append([name, *cells, Cell(_ratio(study, kinds), unit="number")])
    note = (
        "Mean distance of two prompts, in brackets the standard deviation over the mean (0: equidistant). Ratio: "
        "prompts of different tasks and seeds over seeds of one task. Seeds of a task begin with the same instruction; "
        "the places behind it begin as other words, which prompts of one seed share whatever the task. Random steps: "
        "each start after a step as long as training's in a random direction; in so many dimensions such steps leave "
        "all equally far apart. Distances on a t-SNE map mean little."
    )
    columns = ("distance of", *map(task_label, study.tasks), ONE_SEED, OTHER_SEEDS, "ratio")
    return Table("distances", "How far apart prompts are", columns, rows, note)


def _ratio(study: StudyContext, kinds: Mapping[str, list[float]]) -> float | None:
    """How many times further prompts of different tasks and seeds are apart than seeds of one task."""
    within = [each for task in study.tasks for each in kinds.get(task, [])]
    between = kinds.get(OTHER_SEEDS, [])
    return fmean(between) / fmean(within) if within and between and fmean(within) > 0 else None


def _spread(distances: Sequence[float]) -> Cell:
    if not distances:
        return Cell(None, unit="number")
    uneven = unevenness(distances)
    return Cell(fmean(distances), unit="number", note="" if uneven is None else f"[{uneven:.2f}]")


def _map_figure(runs: Runs, what: str, method: str, maps: Mapping[str, Any]) -> Figure:
    """A map: a trace for each task, tuned prompts as circles, starts as crosses."""
    coordinates = maps[method]["points"]
    each = len(coordinates) // (2 * len(runs))
    traces = []
    for task in dict.fromkeys(task for task, _ in runs):
        shown: list[list[float]] = []
        symbols: list[str] = []
        texts: list[str] = []
        for n, (side, at) in enumerate(product((END, START), runs)):
            if at[0] == task:
                shown += coordinates[n * each : (n + 1) * each]
                symbols += [_CIRCLE if side == END else _CROSS] * each
                texts += [f"{side}, seed {at[1]}{f', token {p}' if each > 1 else ''}" for p in range(each)]
        x, y = zip(*shown, strict=True)
        traces.append(points(task_label(task), x, y, text=texts, marker={"symbol": symbols}))
    if method == "pca":
        title, layout = f"PCA of {what}", axes("first axis", "second axis")
        shares = " and ".join(f"{share:.0%}" for share in maps[method]["explained"])
        how = f"PCA: the axes hold {shares} of the variance."
    else:
        title, layout = f"t-SNE of {what}", axes("", "")
        how = (
            f"t-SNE, perplexity {maps[method]['perplexity']:.1f}, fitted to {len(coordinates)} points: who is near "
            "whom; how far means little."
        )
    one = "prompt" if what == "prompts" else "token of a prompt"
    caption = f"A point for each {one}, a colour for each task; circles after training, crosses before. {how}"
    return Figure(f"{method}-{what}", title, caption, traces, layout)


def _scatter(study: StudyContext, moved: Mapping[At, float], difficulties: Mapping[At, float]) -> Figure:
    traces = []
    for task in study.tasks:
        x, y = ([values[task, seed] for seed in study.seeds] for values in (difficulties, moved))
        traces.append(points(task_label(task), x, y))
    caption = "A point for each run: to the right, how hard its task was for it; upwards, how far its prompt went."
    layout = axes("difficulty", "moved, in lengths of the start")
    return Figure("difficulty", "Difficulty and movement", caption, traces, layout)


def _sentences(
    study: StudyContext, ties: Mapping[str, Cell], distances: Mapping[str, Mapping[str, list[float]]]
) -> list[str]:
    sentences, least = [], 2 / factorial(len(study.tasks))  # the p of a perfect order, two-sided
    words = {ABOVE: "as in the study", BELOW: "unlike the study"}
    for label, cell in ties.items():
        if cell.value is None:
            sentences.append(f"Difficulty and movement over {label}: not measured.")
            continue
        side = verdict(cell) if least < 1 - LEVEL else NEITHER
        interval = "no interval" if cell.low is None else f"{cell.low:+.2f} to {cell.high:+.2f}"
        sentences.append(
            f"Difficulty and movement over {label}: Spearman {cell.value:+.2f} ({interval}), "
            f"{words.get(side, 'no relation shown')}; in the study, harder tasks' prompts go further."
        )
    if least >= 1 - LEVEL:
        sentences.append(f"{len(study.tasks)} tasks can't show a relation: even a perfect order has p = {least:.2g}.")
    for name in (TUNED, RANDOM, "t-SNE map"):
        by_task = [unevenness(distances[name].get(task, [])) for task in study.tasks]
        uneven = [each for each in by_task if each is not None]
        if uneven:
            sentences.append(
                f"Distances between the seeds of a task, {name}: they vary by {fmean(uneven):.0%} of their mean "
                f"({min(uneven):.0%} to {max(uneven):.0%} by task); the study calls them equidistant on its t-SNE map."
            )
    after, before = _ratio(study, distances[TUNED]), _ratio(study, distances[STARTS])
    if after is not None and before is not None:
        more = "more than" if after > before else "no more than"
        sentences.append(
            f"Prompts of different tasks and seeds are {after:.2f} times as far apart as seeds of one task, "
            f"{more} their starts, which are {before:.2f} times as far; no interval."
        )
    return sentences
