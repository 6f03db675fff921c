"""The rows of a comparison, as compare.json holds them: what each method gives and costs, over all seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import fmean
from typing import Any, Final

from softprune.config import CompareRecipe
from softprune.data import Metric
from softprune.statistics.bootstrap import holm
from softprune.statistics.methods_over_seeds import Outcome, Spread, difference, spread
from softprune.studies.comparison.columns import CONTROL, MEASURED, RANDOM, TEXT_METRICS
from softprune.studies.comparison.method_runs import MethodRun
from softprune.studies.run_result import FinishedRun

_RESULTS: Final = {"tune": "tuned", "xprompt": "winner", "adapt": "adapted"}
"""By kind of run, its result that counts as the method's."""
_BESIDE: Final = {CONTROL: "control", RANDOM: "random"}
"""Rows beside a method's: what an XPrompt run retrains as it does its tickets."""
_FLOORS: Final = ("zero_shot", "constant")
"""What nothing is trained for: the model as it comes, and the best constant answer."""


@dataclass(frozen=True)
class TableRow:
    """One row before its statistics.

    Attributes:
        name: of the method, or of the floor.
        kind: `method`, `control` or `floor`.
        result: its name in the runs' results.
        runs: one for each seed; a floor has one alone.
    """

    name: str
    kind: str
    result: str
    runs: Sequence[FinishedRun]

    @cached_property
    def outcome(self) -> Outcome:
        """What it reached on each seed."""
        values = tuple(run.value(self.result) for run in self.runs)
        scored = tuple(run.scored(self.result) for run in self.runs)
        return Outcome(values, scored, trained=self.kind != "floor")


def reference_method(methods: Sequence[str]) -> str:
    """The method that the others are held against: prompt tuning, or the first one."""
    return "prompt" if "prompt" in methods else methods[0]


def gather(runs: Sequence[MethodRun]) -> list[TableRow]:
    """The rows that the finished runs give, by method, in the order of the methods; the floors last."""
    rows = []
    for method in dict.fromkeys(run.method for run in runs):
        own = [run for run in runs if run.method == method]
        finished = [run.finished for run in own]
        rows.append(TableRow(method, "method", _RESULTS[own[0].recipe.kind], finished))
        for name, result in _BESIDE.items():
            if all(run.result(result) for run in finished):
                rows.append(TableRow(name, "control", result, finished))
    first = runs[0].finished
    return [*rows, *(TableRow(name, "floor", name, [first]) for name in _FLOORS if first.result(name))]


def build_rows(recipe: CompareRecipe, runs: Sequence[MethodRun], metric: Metric) -> list[dict[str, Any]]:
    """Every row with its statistics, in the order of `--methods`; methods without a run come from `not_defined`."""
    rows = gather(runs)
    name = reference_method([row.name for row in rows if row.kind == "method"])
    reference = next(row for row in rows if row.name == name)
    documents = [_document(recipe, row, reference, metric) for row in rows]
    differences = [each["difference"] for each in documents if each["difference"]]
    tested = [less for less in differences if less["covers_seeds"]]
    for less, p in zip(tested, holm([less["p"] for less in tested]), strict=True):
        less["p_holm"] = p  # all are read from one table
    return documents


def not_defined(recipe: CompareRecipe, cells: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """By method, why it has no row; `cells` is that of compare.json."""
    reasons = {str(cell["method"]): str(cell["reason"]) for cell in cells.values() if cell["status"] == "not defined"}
    return {method: reasons[method] for method in recipe.methods if method in reasons}


def _document(recipe: CompareRecipe, row: TableRow, reference: TableRow, metric: Metric) -> dict[str, Any]:
    settings: dict[str, Any] = {"seed": recipe.seed, "resamples": recipe.selection.resamples}
    over_seeds = spread(row.outcome, metric.score, **settings)
    less = None
    if row.name != reference.name:
        less = difference(row.outcome, reference.outcome, metric.score, **settings)
    results = [run.result(row.result) or {} for run in row.runs]
    is_trained, is_method = row.kind != "floor", row.kind == "method"
    costs: dict[str, Any] = {column.key: None for column in MEASURED}
    if is_trained:
        for column in MEASURED:
            assert column.read is not None
            costs[column.key] = _mean([column.read(run, row.result) for run in row.runs])
    return {
        "name": row.name,
        "kind": row.kind,
        "answer": results[0].get("answer"),
        "values": list(row.outcome.values),
        "mean": over_seeds.mean,
        "sd": over_seeds.sd,
        "interval": _interval(over_seeds, row, metric),
        "covers_seeds": over_seeds.covers_seeds,
        "difference": None if less is None else {"against": reference.name, **asdict(less), "p_holm": None},
        "others": {name: _mean([result.get(name) for result in results]) for name in TEXT_METRICS},
        "lr": [(run.info.get("settings") or {}).get("lr") for run in row.runs] if is_trained else None,
        "multiples": _multiples(row.runs) if is_method else None,
        **costs,
        "latency": _latency(row.runs) if is_method else None,
    }


def _interval(over_seeds: Spread, row: TableRow, metric: Metric) -> list[float] | None:
    """Of the mean; of a floor whose answers are in no file, the one that its run has."""
    if over_seeds.interval is not None:
        ends = (over_seeds.interval.low, over_seeds.interval.high)
        # A t interval may leave the range of a share, 0 to 1; a loss has no such range.
        return list(ends) if metric.name == "loss" else [min(max(end, 0.0), 1.0) for end in ends]
    own = (row.runs[0].result(row.result) or {}).get("interval") if row.kind == "floor" else None
    return None if own is None or None in own else [float(end) for end in own]


def _multiples(runs: Sequence[FinishedRun]) -> list[str] | None:
    """Of the method's rate, as each run's sweep chose it; None where nothing was swept."""
    chosen = []
    for run in runs:
        sweep = run.info.get("sweep") or {}
        chosen += [multiple for multiple, row in sweep.items() if row.get("chosen")][:1]
    return chosen or None


def _latency(runs: Sequence[FinishedRun]) -> dict[str, dict[str, float]] | None:
    """By batch size, mean seconds over seeds, and how many times as long it takes with what was trained."""
    known = [latency for run in runs if (latency := run.cost.get("latency")) is not None]
    if not known or len(known) < len(runs):
        return None
    by_size = {}
    for size in known[0]:
        seconds: dict[str, float] = {}
        for name in ("with", "without"):
            for share in ("p50", "p95"):
                seconds[f"{name}_{share}"] = fmean(each[size][name][share] for each in known)
        by_size[size] = {**seconds, "ratio": seconds["with_p50"] / seconds["without_p50"]}
    return by_size


def _mean(values: Sequence[float | None]) -> float | None:
    """Over seeds; None where any seed wasn't measured."""
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None
