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


@dataclass(frozen=True, slots=True)
class Line:
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
class Beside:
    """Another run beside this one.

    Attributes:
        name: of its folder.
        facts: heading, ours, theirs: what one has to know of both.
        reason: why scores can't be compared; None where they can.
        lines: the results.
    """

    name: str
    facts: tuple[tuple[str, str, str], ...]
    reason: str | None
    lines: tuple[Line, ...]


def beside(ours: Run, theirs: Run) -> Beside:
    """Another run's results beside ours."""
    reason = why_not(ours, theirs)
    names = [name for name in table.LABELS if ours.results[name] or theirs.results[name]]
    return Beside(
        name=formatting.printable(theirs.path.resolve().name),
        facts=(
            *((heading, _fact(ours, *keys), _fact(theirs, *keys)) for heading, keys in _FACTS.items()),
            *zip(_SEARCHED, _searched(ours), _searched(theirs), strict=True),
        ),
        reason=reason,
        lines=tuple(_line(name, ours, theirs, reason) for name in names),
    )


def why_not(ours: Run, theirs: Run) -> str | None:
    """Why two runs' scores can't be compared; None where they can."""
    for heading, field in (("tasks", "id"), ("versions of the task", "version"), ("metrics", "metric")):
        found = [getattr(run.record.task, field) for run in (ours, theirs)]
        if found[0] != found[1] or found[0] is None:
            return f"the {heading} differ: {formatting.printable(found[0])} and {formatting.printable(found[1])}"
    indices = [(run.record.task.indices or {}).get("report") for run in (ours, theirs)]
    if indices[0] is None or indices[1] is None:
        return "which examples were reported on isn't known of both"
    if indices[0] != indices[1] or _texts_differ(ours, theirs):
        return "they were reported on different examples"
    return None


def _texts_differ(ours: Run, theirs: Run) -> bool:
    """Whether any kind of prompt was asked other examples; equal indices of two files of data can still mean others."""
    shared = [name for name in ours.predictions if name in theirs.predictions]
    return any(_asked(ours.predictions[name]) != _asked(theirs.predictions[name]) for name in shared)


def _asked(predictions: Sequence[Prediction]) -> list[tuple[str, str, tuple[str, ...], int, str | None]]:
    return [(p.id, p.text, p.answers, p.gold, p.reference) for p in predictions]


_FACTS = {
    "model": ("backbone", "name"),
    "task": ("task", "id"),
    "metric": ("task", "metric"),
    "examples of report": ("task", "sizes", "report"),
    "protocol": ("selection", "protocol"),
    "seed": ("seed",),
    "prompt tokens": ("prompt", "P"),
}


def _fact(run: Run, *keys: str) -> str:
    value: Any = run.record
    for key in keys:
        value = getattr(value, key, None)  # a part may not be there
    return formatting.NOT_MEASURED if value is None else formatting.printable(value)


_SEARCHED = ("search strategy", "token ratios", "piece ratios", "prices of the gates")


def _searched(run: Run) -> tuple[str, ...]:
    """How a run searched: its strategy, and the ratios or prices that this strategy goes through."""
    if not run.prunes:
        return (formatting.NOT_APPLICABLE,) * len(_SEARCHED)
    strategy = run.record.search.strategy
    ratios, prices = ("token_ratios", "piece_ratios"), ("prices",)
    used = prices if strategy == "learned" else ratios
    named = run.recipe_part("search")
    values = (_listed(named.get(key)) if key in used else formatting.NOT_APPLICABLE for key in (*ratios, *prices))
    return (_fact(run, "search", "strategy"), *values)


def _listed(values: object) -> str:
    return (
        formatting.printable(", ".join(map(str, values)))
        if isinstance(values, list) and values
        else formatting.NOT_MEASURED
    )


def _line(name: str, ours: Run, theirs: Run, reason: str | None) -> Line:
    a, b = ours.results[name], theirs.results[name]
    label = table.labels(theirs if a is None else ours)[name]
    difference = interval = retrained = formatting.NOT_MEASURED
    if a is not None and b is not None and a.value is not None and b.value is not None:
        if reason is None:
            difference = formatting.points(b.value - a.value)
            interval, retrained = _interval(name, ours, theirs), _retrained(name, ours, theirs)
        else:
            difference = interval = retrained = "not comparable"
    return Line(label, _score(a), _score(b), difference, interval, retrained, (_size(a), _size(b)))


def _score(row: ResultRow | None) -> str:
    if row is None or row.value is None:
        return formatting.NOT_MEASURED
    return formatting.percent(row.value) + ("" if row.interval is None else f" ({formatting.interval(row.interval)})")


def _size(row: ResultRow | None) -> str:
    return formatting.NOT_APPLICABLE if row is None or row.parameters is None else formatting.number(row.parameters)


def _interval(name: str, ours: Run, theirs: Run) -> str:
    """The paired interval in points, where both runs' answers are there and give the scores that were reported."""
    counting = _counting(name, ours, theirs)
    if counting is None:
        return formatting.NOT_MEASURED
    count, score = counting
    a, b = ours.predictions[name], theirs.predictions[name]
    found = paired_bootstrap(count(b), count(a), score, _groups(a), seed=SEED)
    return f"{formatting.points(found.low)} to {formatting.points(found.high)}"


def _retrained(name: str, ours: Run, theirs: Run) -> str:
    """The difference over both runs' fresh seeds, with its interval over seeds and examples."""
    counting = _counting(name, ours, theirs)
    a, b = ours.fresh.get(name, ()), theirs.fresh.get(name, ())
    if counting is None or min(len(a), len(b)) < MIN_SEEDS:
        return formatting.NOT_MEASURED
    count, score = counting
    counts_a, counts_b = list(map(count, a)), list(map(count, b))
    groups = _groups(ours.predictions[name])
    found = compare_rows(counts_b, counts_a, score, groups, seed=SEED, paired=False)
    return f"{formatting.points(found.value)} ({formatting.points(found.low)} to {formatting.points(found.high)})"


def _groups(predictions: Sequence[Prediction]) -> list[str | None] | None:
    groups = [prediction.group for prediction in predictions]
    return groups if any(groups) else None


def _counting(name: str, ours: Run, theirs: Run) -> tuple[Count, Score] | None:
    """How the metric counts answers, where both runs' answers are there and give the scores that were reported."""
    if name not in ours.predictions or name not in theirs.predictions:
        return None
    a, b = ours.predictions[name], theirs.predictions[name]
    row_a, row_b = ours.results[name], theirs.results[name]
    if row_a is None or row_b is None:
        return None
    for count, score in _countings(str(row_a.metric), [*a, *b]):
        values = [float(score(count(answers).sum(axis=0))) for answers in (a, b)]
        if np.allclose(values, np.array([row_a.value, row_b.value], np.float64), rtol=0, atol=1e-6):
            return count, score
    return None


def _countings(name: str, predictions: Sequence[Prediction]) -> list[tuple[Count, Score]]:
    """Ways in which a metric may have counted these answers; of F1, which answer was the positive one isn't kept.

    This room reads run folders and knows no tasks, so it counts for itself, and takes a way only if it gives the score
    that the run reported.
    """
    if name == "accuracy":
        return [(lambda found: _rows([[p.predicted == p.gold, 1] for p in found]), _mean)]
    if name == "rougeL" and all(p.rougeL is not None for p in predictions):
        return [(lambda found: _rows([[p.rougeL, 1] for p in found]), _mean)]
    if name == "f1":
        return [(partial(_hits, at), _f1) for at in range(max(len(p.answers) for p in predictions))]
    return []


def _hits(positive: int, predictions: Sequence[Prediction]) -> Floats:
    """`[tp, fp, fn]` of each answer."""
    pairs = [(p.predicted == positive, p.gold == positive) for p in predictions]
    return _rows([[said and true, said and not true, true and not said] for said, true in pairs])


def _f1(counts: Floats) -> Floats:
    hits = 2 * counts[..., 0]
    total = hits + counts[..., 1] + counts[..., 2]
    return np.divide(hits, total, out=np.zeros_like(hits), where=total > 0)


def _mean(counts: Floats) -> Floats:
    return np.asarray(counts[..., 0] / counts[..., 1])


def _rows(values: list[list[Any]]) -> Floats:
    return np.asarray(values, np.float64)
