"""The rows of a comparison, as compare.json holds them: what each method gives and costs, over all seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import product
from statistics import fmean
from typing import Any, Final, Literal

from softprune.data import Metric
from softprune.runs.comparison_record import ComparisonDifference, ComparisonRow
from softprune.runs.record import OWN_RESULTS
from softprune.statistics.bootstrap import holm
from softprune.statistics.methods_over_seeds import Outcome, difference, spread
from softprune.studies.comparison.columns import CONTROL, RANDOM, TEXT_METRICS, measured_columns
from softprune.studies.run_result import FinishedRun, collect_outcome

# Rows beside a method's: what an XPrompt run retrains as it does its tickets.
_BESIDE: Final = {CONTROL: "control", RANDOM: "random"}
# What nothing is trained for: the model as it comes, and the best constant answer.
_FLOORS: Final = ("zero_shot", "constant")


@dataclass(frozen=True)
class TableRow:
    """One row before its statistics."""

    name: str
    kind: Literal["method", "control", "floor"]
    result: str  # its name in the runs' results
    runs: Sequence[FinishedRun]  # one for each seed; a floor has one alone

    @cached_property
    def outcome(self) -> Outcome:
        """What it reached on each seed."""
        return replace(collect_outcome(self.runs, self.result), trained=self.kind != "floor")


def gather(runs: Mapping[str, Sequence[FinishedRun]]) -> list[TableRow]:
    """The rows that finished runs by method give, in the order of the methods; the floors last."""
    rows = []
    for method, own in runs.items():
        rows.append(TableRow(method, "method", OWN_RESULTS[own[0].record.kind], own))
        for name, result in _BESIDE.items():
            if all(run.result(result) for run in own):
                rows.append(TableRow(name, "control", result, own))
    first = rows[0].runs[0]
    return [*rows, *(TableRow(name, "floor", name, [first]) for name in _FLOORS if first.result(name))]


def reference_method(rows: Sequence[TableRow]) -> str:
    """The method that the others are compared with: prompt tuning, or the first one."""
    methods = [row.name for row in rows if row.kind == "method"]
    return "prompt" if "prompt" in methods else methods[0]


def build_rows(rows: Sequence[TableRow], metric: Metric, *, seed: int, resamples: int) -> list[ComparisonRow]:
    """Every row with its statistics, in their order; `seed` and `resamples` are of their intervals."""
    name = reference_method(rows)
    reference = next(row for row in rows if row.name == name)
    built = []
    for row in rows:
        against = None
        if row.name != name:
            less = difference(row.outcome, reference.outcome, metric.score, seed=seed, resamples=resamples)
            against = None if less is None else ComparisonDifference(against=name, **asdict(less), p_holm=None)
        built.append(_build_row(row, metric, against, seed, resamples))
    # All differences are read from one table, so they are one family of tests.
    tested = [row.difference for row in built if row.difference is not None and row.difference.covers_seeds]
    for each, p in zip(tested, holm([each.p for each in tested]), strict=True):
        each.p_holm = p
    return built


def _build_row(
    row: TableRow, metric: Metric, against: ComparisonDifference | None, seed: int, resamples: int
) -> ComparisonRow:
    over_seeds = spread(row.outcome, metric.score, seed=seed, resamples=resamples)
    results = [run.result(row.result) for run in row.runs]
    interval = None
    if over_seeds.interval is not None:
        interval = over_seeds.interval.low, over_seeds.interval.high
        if metric.name != "loss":  # a t interval may leave the range of a share, 0 to 1; a loss has no such range
            interval = min(max(interval[0], 0.0), 1.0), min(max(interval[1], 0.0), 1.0)
    elif row.kind == "floor" and results[0] is not None:  # its answers are in no file; its run has an interval
        interval = results[0].interval
    trained = [] if row.kind == "floor" else row.runs
    rates = [None if run.record.settings is None else run.record.settings.lr for run in trained]
    swept = []
    for run in trained if row.kind == "method" else ():
        swept += [multiple for multiple, tried in run.record.sweep.items() if tried.chosen][:1]
    measured: dict[str, Any] = {}
    for column, read in measured_columns():
        measured[column.key] = _mean([read(run, row.result) for run in trained])
    return ComparisonRow(
        name=row.name,
        kind=row.kind,
        answer=None if results[0] is None else results[0].answer,
        values=list(row.outcome.values),
        mean=over_seeds.mean,
        sd=over_seeds.sd,
        interval=interval,
        covers_seeds=over_seeds.covers_seeds,
        difference=against,
        others={name: _mean([getattr(result, name, None) for result in results]) for name in TEXT_METRICS},
        lr=rates or None,
        multiples=swept or None,
        latency=_mean_latency(row.runs) if row.kind == "method" else None,
        **measured,
    )


def _mean_latency(runs: Sequence[FinishedRun]) -> dict[str, dict[str, float]] | None:
    """By batch size, mean seconds over seeds, and how many times as long it takes with what was trained."""
    known: list[Any] = [run.record.cost.latency for run in runs]
    if None in known:
        return None
    by_size = {}
    for size in known[0]:
        seconds: dict[str, float] = {}
        for name, share in product(("with", "without"), ("p50", "p95")):
            seconds[f"{name}_{share}"] = fmean(getattr(each[size][name], share) for each in known)
        by_size[size] = {**seconds, "ratio": seconds["with_p50"] / seconds["without_p50"]}
    return by_size


def _mean(values: Sequence[float | None]) -> float | None:
    """Over seeds; None where any seed wasn't measured."""
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None
