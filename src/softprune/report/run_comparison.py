"""Other runs beside this one: their results row by row, and the difference where both answered the same question.

Two scores compare where metric, task and the examples of `report` are the same. Where both runs kept what they
answered to each example, the difference has an interval, paired by example (`statistics.bootstrap.paired_bootstrap`),
which holds for these very prompts. Where both kept what at least three retrainings on fresh seeds answered, the
difference of these has an interval over seeds and examples (`statistics.seeds.compare_rows`); the runs' seeds don't
belong together, so they aren't paired. No p-value is given: a reader who picks runs to compare has made choices that no
test knows of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from softprune.report import formatting, table
from softprune.report.run_reader import Floats, Prediction, Run
from softprune.runs.record_parts import ResultRow
from softprune.statistics.bootstrap import Score, paired_bootstrap
from softprune.statistics.seeds import MIN_SEEDS, compare_rows

Count = Callable[[Sequence[Prediction]], Floats]

SEED = 0
"""Of the resampling: the same runs give the same intervals."""
_FACTS = {
    "model": ("backbone", "name"),
    "task": ("task", "id"),
    "metric": ("task", "metric"),
    "examples of report": ("task", "sizes", "report"),
    "protocol": ("selection", "protocol"),
    "seed": ("seed",),
    "prompt tokens": ("prompt", "P"),
}
"""What one has to know of both runs, and where their records have it."""
_SEARCHED = ("search strategy", "token ratios", "piece ratios", "prices of the gates")


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """One kind of prompt in both runs, as it is shown.

    Attributes:
        label: of the row.
        ours, theirs: score with its interval.
        difference: theirs minus ours in points, or why there is none.
        interval: of the difference.
        retrained: the difference of what both retrained on fresh seeds, with its interval.
        parameters: of both.
    """

    label: str
    ours: str
    theirs: str
    difference: str
    interval: str
    retrained: str
    parameters: tuple[str, str]


@dataclass(frozen=True, slots=True)
class RunComparison:
    """Another run beside this one.

    Attributes:
        name: of its folder.
        facts: heading, ours, theirs: what one has to know of both.
        reason: why scores can't be compared; None where they can.
        rows: the results.
    """

    name: str
    facts: tuple[tuple[str, str, str], ...]
    reason: str | None
    rows: tuple[ComparedRow, ...]


def compare_runs(ours: Run, theirs: Run) -> RunComparison:
    """Another run's results beside ours."""
    reason = why_not(ours, theirs)
    facts = [(heading, _read_fact(ours, *keys), _read_fact(theirs, *keys)) for heading, keys in _FACTS.items()]
    facts += zip(_SEARCHED, _describe_search(ours), _describe_search(theirs), strict=True)
    names = [name for name in table.LABELS if ours.results[name] or theirs.results[name]]
    rows = tuple(_compare_row(name, ours, theirs, reason) for name in names)
    return RunComparison(formatting.printable(theirs.path.resolve().name), tuple(facts), reason, rows)


def why_not(ours: Run, theirs: Run) -> str | None:
    """Why two runs' scores can't be compared; None where they can."""
    for heading, field in (("tasks", "id"), ("versions of the task", "version"), ("metrics", "metric")):
        a, b = getattr(ours.record.task, field), getattr(theirs.record.task, field)
        if a != b or a is None:
            return f"the {heading} differ: {formatting.printable(a)} and {formatting.printable(b)}"
    indices = [(run.record.task.indices or {}).get("report") for run in (ours, theirs)]
    if indices[0] is None or indices[1] is None:
        return "which examples were reported on isn't known of both"
    differ = indices[0] != indices[1]
    # Equal indices of two files of data can still mean other texts.
    for name in ours.predictions.keys() & theirs.predictions.keys():
        differ = differ or _questions(ours.predictions[name]) != _questions(theirs.predictions[name])
    return "they were reported on different examples" if differ else None


def _questions(predictions: Sequence[Prediction]) -> list[tuple[object, ...]]:
    return [(p.id, p.text, p.answers, p.gold, p.reference) for p in predictions]


def _read_fact(run: Run, *keys: str) -> str:
    value: Any = run.record
    for key in keys:
        value = getattr(value, key, None)  # a part may not be there
    return formatting.NOT_MEASURED if value is None else formatting.printable(value)


def _describe_search(run: Run) -> list[str]:
    """How a run searched: its strategy, and the ratios or prices that this strategy goes through."""
    if not run.prunes:
        return [formatting.NOT_APPLICABLE] * len(_SEARCHED)
    texts = [_read_fact(run, "search", "strategy")]
    by_gates = run.record.search.strategy == "learned"
    recipe = run.recipe_part("search")
    for key in ("token_ratios", "piece_ratios", "prices"):
        values = recipe.get(key)
        if (key == "prices") != by_gates:
            texts.append(formatting.NOT_APPLICABLE)
        elif isinstance(values, list) and values:
            texts.append(formatting.printable(", ".join(map(str, values))))
        else:
            texts.append(formatting.NOT_MEASURED)
    return texts


def _compare_row(name: str, ours: Run, theirs: Run, reason: str | None) -> ComparedRow:
    a, b = ours.results[name], theirs.results[name]
    label = table.labels(theirs if a is None else ours)[name]
    difference = interval = retrained = formatting.NOT_MEASURED
    if a is not None and b is not None and a.value is not None and b.value is not None:
        if reason is None:
            difference = formatting.points(b.value - a.value)
            interval, retrained = _compare_answers(name, ours, theirs, (a, b))
        else:
            difference = interval = retrained = "not comparable"
    return ComparedRow(label, _score(a), _score(b), difference, interval, retrained, (_size(a), _size(b)))


def _score(row: ResultRow | None) -> str:
    if row is None or row.value is None:
        return formatting.NOT_MEASURED
    return formatting.percent(row.value) + ("" if row.interval is None else f" ({formatting.interval(row.interval)})")


def _size(row: ResultRow | None) -> str:
    return formatting.NOT_APPLICABLE if row is None or row.parameters is None else formatting.number(row.parameters)


def _compare_answers(name: str, ours: Run, theirs: Run, rows: tuple[ResultRow, ResultRow]) -> tuple[str, str]:
    """The interval of the difference paired by example, and the difference over both runs' fresh seeds."""
    a, b = ours.predictions.get(name, ()), theirs.predictions.get(name, ())
    counting = _find_counting(rows, a, b) if a and b else None
    if counting is None:
        return formatting.NOT_MEASURED, formatting.NOT_MEASURED
    count, score = counting
    groups = [prediction.group for prediction in a] if any(prediction.group for prediction in a) else None
    paired = paired_bootstrap(count(b), count(a), score, groups, seed=SEED)
    interval = f"{formatting.points(paired.low)} to {formatting.points(paired.high)}"
    fresh_a, fresh_b = list(map(count, ours.fresh.get(name, ()))), list(map(count, theirs.fresh.get(name, ())))
    if min(len(fresh_a), len(fresh_b)) < MIN_SEEDS:
        return interval, formatting.NOT_MEASURED
    fresh = compare_rows(fresh_b, fresh_a, score, groups, seed=SEED, paired=False)
    ends = f"{formatting.points(fresh.low)} to {formatting.points(fresh.high)}"
    return interval, f"{formatting.points(fresh.value)} ({ends})"


def _find_counting(
    rows: tuple[ResultRow, ResultRow], a: Sequence[Prediction], b: Sequence[Prediction]
) -> tuple[Count, Score] | None:
    """How the metric counts answers, where that gives the scores that both runs reported.

    This room reads run folders and knows no tasks, so it counts for itself. Of F1, which answer was the positive one
    isn't kept: each is tried.
    """
    name, answers = str(rows[0].metric), [*a, *b]
    ways: list[tuple[Count, Score]] = []
    if name == "accuracy":
        ways = [(_count_right, _mean)]
    elif name == "rougeL" and all(p.rougeL is not None for p in answers):
        ways = [(_count_shared, _mean)]
    elif name == "f1":
        ways = [(partial(_count_hits, positive), _f1) for positive in range(max(len(p.answers) for p in answers))]
    reported = np.array([row.value for row in rows], np.float64)
    for count, score in ways:
        values = [float(score(count(given).sum(axis=0))) for given in (a, b)]
        if np.allclose(values, reported, rtol=0, atol=1e-6):
            return count, score
    return None


def _count_right(predictions: Sequence[Prediction]) -> Floats:
    return np.asarray([[p.predicted == p.gold, 1] for p in predictions], np.float64)


def _count_shared(predictions: Sequence[Prediction]) -> Floats:
    return np.asarray([[p.rougeL, 1] for p in predictions], np.float64)


def _count_hits(positive: int, predictions: Sequence[Prediction]) -> Floats:
    """`[tp, fp, fn]` of each answer."""
    rows = []
    for p in predictions:
        said, true = p.predicted == positive, p.gold == positive
        rows.append([said and true, said and not true, true and not said])
    return np.asarray(rows, np.float64)


def _f1(counts: Floats) -> Floats:
    hits = 2 * counts[..., 0]
    total = hits + counts[..., 1] + counts[..., 2]
    return np.divide(hits, total, out=np.zeros_like(hits), where=total > 0)


def _mean(counts: Floats) -> Floats:
    return np.asarray(counts[..., 0] / counts[..., 1])
