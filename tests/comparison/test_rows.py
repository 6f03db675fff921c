"""Rows over seeds: what their intervals cover, which side is which, and the correction for many differences."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import softprune.studies.comparison.rows as rows
from softprune.data.metrics import Accuracy
from softprune.statistics.methods_over_seeds import Scored
from softprune.statistics.seeds import compare_rows
from softprune.studies.comparison.rows import TableRow, build_rows
from softprune.studies.run_result import FinishedRun

METRIC = Accuracy()
RECIPE: Any = SimpleNamespace(seed=0, selection=SimpleNamespace(resamples=500))


class AnsweredRun(FinishedRun):
    """A run without files that answers the first examples of a hundred right."""

    def result(self, name: str) -> dict[str, Any]:
        return {"value": self.seed / 100}

    def scored(self, name: str) -> Scored:
        counts = np.array([[float(place < self.seed), 1.0] for place in range(100)])
        return Scored(counts, tuple(map(str, range(100))), (None,) * 100)


def found(name: str, shares: list[float], kind: str = "method") -> TableRow:
    """A row that answers another share of them right with each seed."""
    runs = [AnsweredRun(Path("nowhere"), "demo", round(100 * share)) for share in shares]
    for run in runs:
        run.__dict__["info"] = {}
    return TableRow(name, kind, name, runs)


def table(monkeypatch: pytest.MonkeyPatch, *made: TableRow) -> dict[str, dict[str, Any]]:
    monkeypatch.setattr(rows, "gather", lambda runs: list(made))
    return {row["name"]: row for row in build_rows(RECIPE, [], METRIC)}


def test_three_seeds_are_covered_and_paired(monkeypatch: pytest.MonkeyPatch) -> None:
    prompt, lora = found("prompt", [0.6, 0.7, 0.65]), found("lora", [0.7, 0.82, 0.72])
    made = table(monkeypatch, prompt, lora)
    counts = [[each.counts_NC for each in row.outcome.scored if each] for row in (lora, prompt)]
    expected = compare_rows(*counts, METRIC.score, seed=0, resamples=500)
    assert made["lora"]["difference"]["low"] == pytest.approx(expected.low)
    assert made["lora"]["difference"]["seeds_df"] == 2.0  # three pairs
    assert (made["lora"]["covers_seeds"], made["lora"]["difference"]["covers_seeds"]) == (True, True)
    low, high = made["lora"]["interval"]
    assert high - low > 2 * 1.96 * (0.75 * 0.25 / 100) ** 0.5  # wider than examples alone would make it


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_are_not_and_are_never_tested_together(monkeypatch: pytest.MonkeyPatch, seeds: int) -> None:
    made = table(monkeypatch, found("prompt", [0.6] * seeds), found("lora", [0.7] * seeds))["lora"]
    assert (made["covers_seeds"], made["difference"]["covers_seeds"], made["difference"]["p_holm"]) == (
        False,
        False,
        None,
    )


def test_what_is_not_trained_has_no_seeds_and_stays_on_its_side(monkeypatch: pytest.MonkeyPatch) -> None:
    made = table(monkeypatch, found("prompt", [0.6, 0.7, 0.65]), found("zero_shot", [0.4], "floor"))["zero_shot"]
    less = made["difference"]
    assert less["value"] == pytest.approx(0.4 - 0.65)
    assert less["low"] < less["value"] < less["high"] < 0
    assert (less["covers_seeds"], less["seeds"], made["covers_seeds"]) == (True, 3, False)


def test_holm_counts_the_differences_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    more = {"lora": 0.06, "ia3": 0.1, "full": 0.2}
    others = [found(name, [0.6 + at, 0.7 + at, 0.65 + at]) for name, at in more.items()]
    made = table(monkeypatch, found("prompt", [0.6, 0.71, 0.65]), *others)
    differences = [made[each.name]["difference"] for each in others]
    small = min(differences, key=lambda each: each["p"])
    assert small["p_holm"] == pytest.approx(3 * small["p"])
    assert max(each["p_holm"] for each in differences) == pytest.approx(max(each["p"] for each in differences))


def test_a_share_stays_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    low, high = table(monkeypatch, found("prompt", [0.99, 1.0, 0.97]))["prompt"]["interval"]
    assert 0.9 < low < 0.987
    assert high == 1.0
