"""Other runs beside this one: their results row by row, and the difference where both answered the same question.

Where both runs kept their answers to each example, the difference has an interval, paired by example, which holds for
these very prompts. Where both kept the answers of at least three retrainings, it has one over seeds and examples; the
runs' seeds don't belong together, so they aren't paired. No p-value is given: a reader who picks runs to compare has
made choices that no test knows of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from softprune.data.metrics import METRICS, ExactMatch, Metric, RougeL, answered, with_ones
from softprune.report import formatting, table
from softprune.report.run_reader import Prediction, Run
from softprune.runs.record_parts import ResultRow
from softprune.statistics.bootstrap import Floats, paired_bootstrap
from softprune.statistics.seeds import MIN_SEEDS, compare_rows

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
_SEARCHED = ("search strategy", "token ratios", "piece ratios", "prices of the gates", "shares kept")


def compare_runs(ours: Run, theirs: Run) -> dict[str, Any]:
    """Another run's results beside ours, as the page's template takes them.

    name      of its folder
    facts     heading, ours and theirs of each thing that one has to know of both
    reason    why scores can't be compared; None where they can
    rows      one a kind of prompt, see `_compare_row`
    """
    reason = why_not(ours, theirs)
    facts = [(heading, _read_fact(ours, *keys), _read_fact(theirs, *keys)) for heading, keys in _FACTS.items()]
    facts += zip(_SEARCHED, _describe_search(ours), _describe_search(theirs), strict=True)
    names = [name for name in table.LABELS if ours.results[name] or theirs.results[name]]
    rows = [_compare_row(name, ours, theirs, reason) for name in names]
    return {"name": formatting.printable(theirs.path.resolve().name), "facts": facts, "reason": reason, "rows": rows}


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
    return [(p.id, p.text, p.answers, p.gold, p.reference, p.expected) for p in predictions]


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
    used = {"learned": ("prices",), "gradual": ("keep",)}.get(
        run.record.search.strategy or "", ("token_ratios", "piece_ratios")
    )
    recipe = run.recipe_part("search")
    for key in ("token_ratios", "piece_ratios", "prices", "keep"):
        values = recipe.get(key)
        if key not in used:
            texts.append(formatting.NOT_APPLICABLE)
        elif isinstance(values, list) and values:
            texts.append(formatting.printable(", ".join(map(str, values))))
        else:
            texts.append(formatting.NOT_MEASURED)
    return texts


def _compare_row(name: str, ours: Run, theirs: Run, reason: str | None) -> dict[str, Any]:
    """Scores of both with their intervals, theirs minus ours in points, and both sizes; or why there is none."""
    a, b = ours.results[name], theirs.results[name]
    label = table.labels(theirs if a is None else ours)[name]
    difference = interval = retrained = formatting.NOT_MEASURED
    if a is not None and b is not None and a.value is not None and b.value is not None:
        if reason is None:
            difference = formatting.points(b.value - a.value)
            interval, retrained = _compare_answers(name, ours, theirs, (a, b))
        else:
            difference = interval = retrained = "not comparable"
    return {
        "label": label,
        "ours": _score(a),
        "theirs": _score(b),
        "difference": difference,
        "interval": interval,  # of the difference
        "retrained": retrained,  # the difference over both runs' fresh seeds, with its interval
        "parameters": (_size(a), _size(b)),
    }


def _score(row: ResultRow | None) -> str:
    if row is None or row.value is None:
        return formatting.NOT_MEASURED
    return formatting.percent(row.value) + ("" if row.interval is None else f" ({formatting.interval(row.interval)})")


def _size(row: ResultRow | None) -> str:
    return formatting.NOT_APPLICABLE if row is None or row.parameters is None else formatting.number(row.parameters)


def _compare_answers(name: str, ours: Run, theirs: Run, rows: tuple[ResultRow, ResultRow]) -> tuple[str, str]:
    """The interval of the difference paired by example, and the difference over both runs' fresh seeds."""
    a, b = ours.predictions.get(name, ()), theirs.predictions.get(name, ())
    metric = _find_metric(rows, a, b) if a and b else None
    if metric is None:
        return formatting.NOT_MEASURED, formatting.NOT_MEASURED

    def count(predictions: Sequence[Prediction]) -> Floats:
        return _count(metric, predictions)

    groups = [prediction.group for prediction in a] if any(prediction.group for prediction in a) else None
    paired = paired_bootstrap(count(b), count(a), metric.score, groups, seed=SEED)
    interval = f"{formatting.points(paired.low)} to {formatting.points(paired.high)}"
    fresh_a, fresh_b = list(map(count, ours.fresh.get(name, ()))), list(map(count, theirs.fresh.get(name, ())))
    if min(len(fresh_a), len(fresh_b)) < MIN_SEEDS:
        return interval, formatting.NOT_MEASURED
    fresh = compare_rows(fresh_b, fresh_a, metric.score, groups, seed=SEED, paired=False)
    ends = f"{formatting.points(fresh.low)} to {formatting.points(fresh.high)}"
    return interval, f"{formatting.points(fresh.value)} ({ends})"


def _find_metric(rows: tuple[ResultRow, ResultRow], a: Sequence[Prediction], b: Sequence[Prediction]) -> Metric | None:
    """The metric that gives the scores which both runs reported, from what they answered.

    Of F1, which answer was the positive one isn't kept: each is tried.
    """
    kind, answers = METRICS.get(str(rows[0].metric)), [*a, *b]
    if kind is None:
        return None
    if kind.reads == "texts" and (kind not in (RougeL, ExactMatch) or any(_merit(p) is None for p in answers)):
        return None  # of written texts, a run keeps ROUGE-L or whether they are right
    count, reported = max(len(p.answers) for p in answers), np.array([row.value for row in rows], np.float64)
    for positive in range(count) if kind.needs_positive else [None]:
        metric = kind.for_task(count, positive)
        values = [float(metric.score(_count(metric, given).sum(axis=0))) for given in (a, b)]
        if np.allclose(values, reported, rtol=0, atol=1e-6):
            return metric
    return None


def _count(metric: Metric, predictions: Sequence[Prediction]) -> Floats:
    """The metric's counts; of written texts, as the run measured them, which needs no library here."""
    if metric.reads == "texts":
        return with_ones(np.array([_merit(p) for p in predictions], np.float64))
    return metric.counts(answered([p.predicted for p in predictions], [p.gold for p in predictions]))


def _merit(prediction: Prediction) -> float | None:
    """Of a written text: whether it is right, or its ROUGE-L."""
    return prediction.rougeL if prediction.right is None else float(prediction.right)
