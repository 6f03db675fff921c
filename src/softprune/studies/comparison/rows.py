"""The rows of a comparison, as compare.json holds them: what each method gives and costs, over all seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Final

from softprune.config import CompareRecipe
from softprune.data import Metric
from softprune.statistics.bootstrap import holm
from softprune.statistics.methods_over_seeds import Spread, difference, negated, spread
from softprune.studies.comparison.cells import Cell
from softprune.studies.comparison.run_metrics import MEASURED, TEXTS, Measured, control, floors, measured

CONTROL: Final = "xprompt-control"
"""The row of XPrompt's unpruned prompt, retrained as the tickets were."""


@dataclass(frozen=True, slots=True)
class Found:
    """One row before its statistics: what each seed says.

    Attributes:
        name: of the method, or of the floor.
        kind: `method`, `control` or `floor`.
        seeds: one for each seed.
    """

    name: str
    kind: str
    seeds: tuple[Measured, ...]


def reference_method(methods: Sequence[str]) -> str:
    """The method that the others are held against: prompt tuning, or the first one."""
    return "prompt" if "prompt" in methods else methods[0]


def gather(cells: Sequence[Cell], metric: Metric) -> list[Found]:
    """What the finished runs say, by method, in the order of the methods; the floors last."""
    methods = list(dict.fromkeys(cell.method for cell in cells))
    found = []
    for method in methods:
        own = [cell for cell in cells if cell.method == method]
        found.append(Found(method, "method", tuple(measured(cell, metric) for cell in own)))
        unpruned = [control(cell, metric) for cell in own]
        known = tuple(each for each in unpruned if each is not None)
        if known and len(known) == len(own):
            found.append(Found(CONTROL, "control", known))
    return [*found, *(Found(name, "floor", (each,)) for name, each in floors(cells[0], metric).items())]


def build_rows(recipe: CompareRecipe, cells: Sequence[Cell], metric: Metric) -> list[dict[str, Any]]:
    """Every row with its statistics, in the order of `--methods`; methods without a run come from `not_defined`."""
    found = gather(cells, metric)
    against = reference_method([each.name for each in found if each.kind == "method"])
    reference = next(each for each in found if each.name == against)
    rows = [_row(recipe, each, reference, metric) for each in found]
    _correct([row["difference"] for row in rows if row["difference"] and row["difference"]["covers_seeds"]])
    return rows


def _correct(tested: Sequence[dict[str, Any]]) -> None:
    """Add Holm's p-value to each, since all are read from one table."""
    for each, p in zip(tested, holm([each["p"] for each in tested]), strict=True):
        each["p_holm"] = p


def not_defined(recipe: CompareRecipe, told: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """By method, why it has no row; `told` is `cells` of compare.json."""
    return {
        method: str(cell["reason"])
        for method in recipe.methods
        for cell in told.values()
        if cell["method"] == method and cell["status"] == "not defined"
    }


def _row(recipe: CompareRecipe, found: Found, reference: Found, metric: Metric) -> dict[str, Any]:
    settings: dict[str, Any] = {"seed": recipe.seed, "resamples": recipe.selection.resamples}
    values, scored = [each.value for each in found.seeds], [each.scored for each in found.seeds]
    over = spread(values, scored, metric.score, **settings)
    against = None
    if found.name != reference.name:
        theirs = [each.scored for each in reference.seeds]
        if found.kind == "floor":  # nothing was trained: the other side alone has seeds
            less = difference(theirs, scored, metric.score, untrained=True, **settings)
            against = None if less is None else negated(less)
        else:
            against = difference(scored, theirs, metric.score, **settings)
    return {
        "name": found.name,
        "kind": found.kind,
        "answer": found.seeds[0].answer,
        "values": values,
        "mean": over.mean,
        "sd": over.sd,
        "interval": _interval(over, found, metric),
        "covers_seeds": over.covers_seeds,
        "difference": None if against is None else {"against": reference.name, **asdict(against), "p_holm": None},
        "others": {name: _mean([(each.others or {}).get(name) for each in found.seeds]) for name in TEXTS},
        "lr": [each.lr for each in found.seeds] if found.kind != "floor" else None,
        "multiples": [each.multiple for each in found.seeds if each.multiple is not None] or None,
        **_costs(found.seeds),
    }


def _interval(over: Spread, found: Found, metric: Metric) -> list[float] | None:
    """Of the mean; of a row whose answers are in no file, the one that its run has."""
    if over.interval is not None:
        ends = (over.interval.low, over.interval.high)
        # A t interval may leave the range of a share, 0 to 1; a loss has no such range.
        return list(ends) if metric.name == "loss" else [min(max(end, 0.0), 1.0) for end in ends]
    own = found.seeds[0].interval if found.kind == "floor" else None
    return None if own is None else list(own)


def _costs(seeds: Sequence[Measured]) -> dict[str, Any]:
    """Means over seeds; None where any seed wasn't measured."""
    names = ("trainable", "stored", *MEASURED)
    costs = {name: _mean([getattr(each, name) for each in seeds]) for name in names}
    return {**costs, "latency": _latency([each.latency for each in seeds])}


def _latency(seeds: Sequence[Mapping[str, Any] | None]) -> dict[str, dict[str, float]] | None:
    """By batch size, mean seconds over seeds, and how many times as long it takes with what was trained."""
    known = [each for each in seeds if each is not None]
    if not known or len(known) < len(seeds):
        return None
    found = {}
    for size in known[0]:
        seconds = {
            f"{name}_{share}": fmean(each[size][name][share] for each in known)
            for name in ("with", "without")
            for share in ("p50", "p95")
        }
        found[size] = {**seconds, "ratio": seconds["with_p50"] / seconds["without_p50"]}
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None
