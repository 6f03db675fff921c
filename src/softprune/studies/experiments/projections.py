"""Where prompts lie: maps, the way from their starts, and distances between seeds (the Bloomz study's second part).

Distances are measured in the prompts' own space, `P x H` numbers; a t-SNE map shows who is near whom, and its distances
are shown only since the study speaks of those. A prompt is as difficult as its task leaves it below a perfect score:
`1 - (tuned - constant) / (1 - constant)`, with the constant answer's score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product
from math import factorial
from statistics import fmean
from typing import Any, Final, TypeAlias

import numpy as np
import torch

from softprune.interpret.alignment import align
from softprune.interpret.projections import pca, prompt_points, token_points, tsne
from softprune.statistics.bootstrap import LEVEL, Floats, percentiles
from softprune.statistics.correlation import RESAMPLES, coefficient, correlate
from softprune.studies.findings import Cell, Entry, Figure, Findings, Table, axes, points
from softprune.studies.run_result import FinishedRun, collect_outcome
from softprune.studies.score_rows import Runs, chances, score_cell
from softprune.studies.study_context import StudyContext, task_label
from softprune.studies.verdicts import ABOVE, BELOW, NEITHER, verdict

At: TypeAlias = "tuple[str, int]"  # a task and a seed
Prompts: TypeAlias = "Mapping[At, torch.Tensor]"
Numbers: TypeAlias = "Mapping[str, Sequence[float]]"  # by task, one of each seed
Distances: TypeAlias = "Mapping[str, Mapping[str, list[float]]]"  # by measure and kind of pair

START, END = "start", "tuned"
SYMBOLS: Final = {START: "x", END: "circle"}
TUNED, STARTS, RANDOM = "tuned prompts", "their starts", "random steps as long"
ITEMS: Final = {"prompts": "prompt", "tokens": "token of a prompt"}
ONE_SEED, OTHER_SEEDS = "different tasks, one seed", "different tasks and seeds"


def conduct(study: StudyContext) -> Findings:
    """The runs, their maps, how far each went, and how far apart they are."""
    runs = study.grid()
    starts, ends = {}, {}
    moved: dict[str, list[float]] = {task: [] for task in study.tasks}  # in lengths of the start, Frobenius norms
    difficulties: dict[str, list[float]] = {task: [] for task in study.tasks}
    for at, run in runs.items():
        starts[at], ends[at] = run.prompt("initial"), run.prompt("tuned")
        start_PH, end_PH = starts[at].double(), ends[at].double()
        moved[run.task].append(float((end_PH - start_PH).norm() / start_PH.norm()))
        difficulties[run.task].append(difficulty(run))
    both = {f"{END} {task} {seed}": prompt_PH for (task, seed), prompt_PH in ends.items()}
    both |= {f"{START} {task} {seed}": prompt_PH for (task, seed), prompt_PH in starts.items()}
    maps = {
        "prompts": study.once("map-prompts", lambda: _map_points(study, prompt_points(both))),
        "tokens": study.once("map-tokens", lambda: _map_points(study, token_points(both))),
    }
    distances = study.once("distances", lambda: _all_distances(starts, ends, maps["prompts"]))
    # Of the tasks' means, their number is all that the interval knows of.
    means = [list(map(fmean, each.values())) for each in (difficulties, moved)]
    found = correlate(means[0], means[1], seed=study.config.seed)
    ties = {
        "the tasks' means": Cell(None) if found is None else Cell(found.value, found.low, found.high, "number"),
        "all runs, tasks resampled": correlate_clusters(moved, difficulties, study.config.seed),
    }
    tables = [
        _divergence_table(study, runs, moved, difficulties),
        _tie_table(ties, len(study.tasks), len(runs)),
        _distance_table(study, distances),
    ]
    figures = [_map_figure(runs, what, method, maps[what]) for what, method in product(maps, ("pca", "tsne"))]
    traces = [points(task_label(task), difficulties[task], moved[task]) for task in study.tasks]
    caption = "A point for each run: to the right, how hard its task was for it; upwards, how far its prompt went."
    layout = axes("difficulty", "moved, in lengths of the start")
    figures.append(Figure("difficulty", "Difficulty and movement", caption, traces, layout))
    sentences = [*_tie_sentences(ties, len(study.tasks)), *_distance_sentences(study, distances)]
    return Findings(tables, figures, sentences)


def difficulty(run: FinishedRun) -> float:
    """What a run's prompt leaves undone of what the constant answer does: 0 for a perfect score, 1 for the constant's.

    It is measured with the very prompt whose way it is compared with: a training that failed counts as a hard task.
    """
    constant = run.value("constant")
    if constant == 1:
        return 1.0
    return 1 - (run.value("tuned") - constant) / (1 - constant)


def _map_points(study: StudyContext, points_ND: Floats) -> dict[str, Any]:
    maps = {}
    for name, each in (("pca", pca(points_ND)), ("tsne", tsne(points_ND, study.config.seed))):
        own_points = each.points_ND.tolist()
        maps[name] = {"points": own_points, "explained": each.explained, "perplexity": each.perplexity}
    return maps


# --- difficulty and movement ---


def correlate_clusters(moved: Numbers, difficulties: Numbers, seed: int) -> Cell:
    """Over all runs, with an interval that resamples whole tasks: runs of one task say much the same."""
    tasks = sorted(moved)
    x_TS, y_TS = np.array([difficulties[task] for task in tasks]), np.array([moved[task] for task in tasks])
    value = coefficient(x_TS.ravel(), y_TS.ravel())
    picks_RT = np.random.default_rng(seed).integers(len(tasks), size=(RESAMPLES, len(tasks)))
    drawn = [coefficient(x_TS[picks].ravel(), y_TS[picks].ravel()) for picks in picks_RT]
    resampled = [each for each in drawn if each is not None]
    if value is None or 2 * len(resampled) < RESAMPLES:
        return Cell(value, unit="number")
    return Cell(value, *percentiles(resampled), "number")


def _divergence_table(study: StudyContext, runs: Runs, moved: Numbers, difficulties: Numbers) -> Table:
    at_chance, rows = chances(study, runs), []
    for task in study.tasks:
        own = [runs[task, seed] for seed in study.seeds]
        tuned, constant = collect_outcome(own, "tuned"), collect_outcome(own, "constant")
        each = moved[task]
        row: dict[str, Entry] = {
            "task": task_label(task),
            "moved": Cell(fmean(each), unit="number", note=f"[{min(each):.2f} to {max(each):.2f}]"),
            "difficulty": Cell(fmean(difficulties[task]), unit="number"),
            "tuned (%)": score_cell(study, task, tuned, at_chance[task]),
            "constant (%)": Cell(constant.mean),
            "best less worst seed (%)": Cell(max(tuned.values) - min(tuned.values)),
        }
        rows.append(row)
    note = (
        f"Moved: Frobenius norm of end less start over that of the start, mean over {len(study.seeds)} seeds; in "
        "brackets the smallest and the largest. Difficulty: what the tuned prompt leaves undone of what the constant "
        "answer does; of the same prompt, so that a training which failed counts as a hard task."
    )
    title = "How far prompts went, and how hard their tasks are"
    return Table.from_records("divergence", title, rows, note)


def _tie_table(ties: Mapping[str, Cell], tasks: int, runs: int) -> Table:
    counts = zip(ties.items(), (tasks, runs), strict=True)
    rows = [(label, cell, Cell(count, unit="count")) for (label, cell), count in counts]
    note = (
        f"Spearman of difficulty and movement: above 0, harder tasks' prompts go further. {tasks} tasks are {tasks} "
        "points, whatever the number of runs: their order alone can make any coefficient, and no interval over so few "
        "means much."
    )
    return Table("difficulty", "Do prompts of harder tasks go further?", ("over", "Spearman", "n"), rows, note)


def _tie_sentences(ties: Mapping[str, Cell], tasks: int) -> list[str]:
    sentences = []
    least = 2 / factorial(tasks)  # the p of a perfect order, two-sided
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
        sentences.append(f"{tasks} tasks can't show a relation: even a perfect order has p = {least:.2g}.")
    return sentences


# --- distances between prompts ---


def _all_distances(starts: Prompts, ends: Prompts, maps: Mapping[str, Any]) -> dict[str, dict[str, list[float]]]:
    # A step as long as training's, in a random direction.
    steps, places = {}, {}
    for n, (at, start_PH) in enumerate(starts.items()):
        drawn_PH = torch.randn(start_PH.shape, generator=torch.Generator().manual_seed(n))
        steps[at] = start_PH + drawn_PH / drawn_PH.norm() * (ends[at] - start_PH).norm()
        places[at] = n

    def frobenius(prompts: Prompts) -> Callable[[At, At], float]:
        return lambda a, b: float((prompts[b].double() - prompts[a].double()).norm())

    def on_map(method: str) -> Callable[[At, At], float]:
        points_ND = np.array(maps[method]["points"])
        return lambda a, b: float(np.linalg.norm(points_ND[places[a]] - points_ND[places[b]]))

    measures: dict[str, Callable[[At, At], float]] = {
        TUNED: frobenius(ends),
        "tuned prompts, tokens aligned": lambda a, b: align(ends[a], ends[b]).aligned,
        STARTS: frobenius(starts),
        RANDOM: frobenius(steps),
        "PCA map": on_map("pca"),
        "t-SNE map": on_map("tsne"),
    }
    distances: dict[str, dict[str, list[float]]] = {name: {} for name in measures}
    for (name, measure), (a, b) in product(measures.items(), combinations(ends, 2)):
        kind = ONE_SEED if a[1] == b[1] else OTHER_SEEDS  # one seed shares the words behind the instruction
        if a[0] == b[0]:
            kind = a[0]
        distances[name].setdefault(kind, []).append(measure(a, b))
    return distances


def unevenness(distances: Sequence[float]) -> float | None:
    """Standard deviation over mean: 0 where all are equally far apart. None for fewer than two, or all of zero."""
    if len(distances) < 2 or not any(distances):
        return None
    return float(np.std(distances, ddof=1)) / fmean(distances)


def _ratio(study: StudyContext, kinds: Mapping[str, list[float]]) -> float | None:
    """How many times further prompts of different tasks and seeds are apart than seeds of one task."""
    within = [each for task in study.tasks for each in kinds.get(task, [])]
    between = kinds.get(OTHER_SEEDS, [])
    return fmean(between) / fmean(within) if between and any(within) else None


def _distance_table(study: StudyContext, distances: Distances) -> Table:
    rows: list[list[Entry]] = []
    for name, kinds in distances.items():
        row: list[Entry] = [name]
        for kind in (*study.tasks, ONE_SEED, OTHER_SEEDS):
            each = kinds.get(kind, [])
            uneven = unevenness(each)
            note = "" if uneven is None else f"[{uneven:.2f}]"
            row.append(Cell(fmean(each) if each else None, unit="number", note=note))
        rows.append([*row, Cell(_ratio(study, kinds), unit="number")])
    note = (
        "Mean distance of two prompts, in brackets the standard deviation over the mean (0: equidistant). Ratio: "
        "prompts of different tasks and seeds over seeds of one task. Seeds of a task begin with the same instruction; "
        "the places behind it begin as other words, which prompts of one seed share whatever the task. Random steps: "
        "each start after a step as long as training's in a random direction; in so many dimensions such steps leave "
        "all equally far apart. Distances on a t-SNE map mean little."
    )
    columns = ("distance of", *map(task_label, study.tasks), ONE_SEED, OTHER_SEEDS, "ratio")
    return Table("distances", "How far apart prompts are", columns, rows, note)


def _distance_sentences(study: StudyContext, distances: Distances) -> list[str]:
    sentences = []
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


def _map_figure(runs: Runs, what: str, method: str, maps: Mapping[str, Any]) -> Figure:
    """A map: a trace for each task, tuned prompts as circles, starts as crosses."""
    coordinates = maps[method]["points"]
    each = len(coordinates) // (2 * len(runs))
    traces: dict[str, dict[str, Any]] = {}
    for n, (side, (task, seed)) in enumerate(product((END, START), runs)):
        if task not in traces:
            traces[task] = points(task_label(task), [], [], text=[], marker={"symbol": []})
        for p, (x, y) in enumerate(coordinates[n * each : (n + 1) * each]):
            traces[task]["x"].append(x)
            traces[task]["y"].append(y)
            traces[task]["text"].append(f"{side}, seed {seed}{f', token {p}' if each > 1 else ''}")
            traces[task]["marker"]["symbol"].append(SYMBOLS[side])
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
    caption = f"A point for each {ITEMS[what]}, a colour for each task; circles after training, crosses before. {how}"
    return Figure(f"{method}-{what}", title, caption, list(traces.values()), layout)
