"""Rows over seeds: what their intervals cover, which side is which, and the correction for many differences."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from records import run_document
from softprune.data.metrics import Accuracy
from softprune.runs.comparison_record import ComparisonDifference, ComparisonRow
from softprune.runs.record import RunRecord
from softprune.runs.record_parts import ResultRow
from softprune.statistics.methods_over_seeds import Scored
from softprune.statistics.seeds import compare_rows
from softprune.studies.comparison.rows import TableRow, build_rows
from softprune.studies.run_result import FinishedRun

METRIC = Accuracy()


class AnsweredRun(FinishedRun):
    """A run without files that answers the first examples of a hundred right."""

    record = RunRecord.model_validate(run_document())  # type: ignore[assignment]

    def result(self, name: str) -> ResultRow:
        return ResultRow(metric="accuracy", value=self.seed / 100)

    def scored(self, name: str) -> Scored:
        counts = np.array([[float(place < self.seed), 1.0] for place in range(100)])
        return Scored(counts, tuple(map(str, range(100))), (None,) * 100)


def found(name: str, shares: list[float], kind: Literal["method", "floor"] = "method") -> TableRow:
    """A row that answers another share of them right with each seed."""
    return TableRow(name, kind, name, [AnsweredRun(Path("nowhere"), "demo", round(100 * share)) for share in shares])


def table(*rows: TableRow) -> dict[str, ComparisonRow]:
    return {row.name: row for row in build_rows(rows, METRIC, seed=0, resamples=500)}


def less(row: ComparisonRow) -> ComparisonDifference:
    assert row.difference is not None
    return row.difference


def test_three_seeds_are_covered_and_paired() -> None:
    prompt, lora = found("prompt", [0.6, 0.7, 0.65]), found("lora", [0.7, 0.82, 0.72])
    made = table(prompt, lora)["lora"]
    counts = [[each.counts_NC for each in row.outcome.scored if each] for row in (lora, prompt)]
    expected = compare_rows(*counts, METRIC.score, seed=0, resamples=500)
    assert less(made).low == pytest.approx(expected.low)
    assert less(made).seeds_df == 2.0  # three pairs
    assert (made.covers_seeds, less(made).covers_seeds) == (True, True)
    assert made.interval is not None
    low, high = made.interval
    assert high - low > 2 * 1.96 * (0.75 * 0.25 / 100) ** 0.5  # wider than examples alone would make it


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_are_not_and_are_never_tested_together(seeds: int) -> None:
    made = table(found("prompt", [0.6] * seeds), found("lora", [0.7] * seeds))["lora"]
    assert (made.covers_seeds, less(made).covers_seeds, less(made).p_holm) == (False, False, None)


def test_what_is_not_trained_has_no_seeds_and_stays_on_its_side() -> None:
    made = table(found("prompt", [0.6, 0.7, 0.65]), found("zero_shot", [0.4], "floor"))["zero_shot"]
    assert less(made).value == pytest.approx(0.4 - 0.65)
    assert less(made).low < less(made).value < less(made).high < 0
    assert (less(made).covers_seeds, less(made).seeds, made.covers_seeds) == (True, 3, False)


def test_holm_counts_the_differences_of_the_table() -> None:
    more = {"lora": 0.06, "ia3": 0.1, "full": 0.2}
    others = [found(name, [0.6 + at, 0.7 + at, 0.65 + at]) for name, at in more.items()]
    made = table(found("prompt", [0.6, 0.71, 0.65]), *others)
    tests = [(less(made[each.name]).p, less(made[each.name]).p_holm) for each in others]
    assert min(tests)[1] == pytest.approx(3 * min(tests)[0])
    assert max(p_holm or 0.0 for _, p_holm in tests) == pytest.approx(max(p for p, _ in tests))


def test_a_share_stays_a_share() -> None:
    interval = table(found("prompt", [0.99, 1.0, 0.97]))["prompt"].interval
    assert interval is not None
    assert 0.9 < interval[0] < 0.987
    assert interval[1] == 1.0
