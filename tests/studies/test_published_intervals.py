"""What printed accuracies tell."""

from __future__ import annotations

from typing import Final

import pytest

from softprune.config import Published
from softprune.statistics.bootstrap import wilson_interval
from softprune.studies.experiments.variants import count_right, published_intervals
from softprune.studies.findings import Cell

Z: Final = 1.959963984540054
"""Of 95%: the normal distribution's 97.5% point."""


@pytest.mark.parametrize(("right", "examples"), [(66, 104), (55, 100), (0, 20), (20, 20), (152, 277)])
def test_the_ends_are_the_proportions_that_the_score_test_just_allows(right: int, examples: int) -> None:
    """Wilson's definition, from which the formula follows: |share - p| is Z standard errors at p itself."""
    share = right / examples
    for end in wilson_interval(right, examples):
        assert abs(share - end) == pytest.approx(Z * (end * (1 - end) / examples) ** 0.5, abs=1e-12)
    if 0 < right < examples:
        walds = share + Z * (share * (1 - share) / examples) ** 0.5  # the textbook's, which has them at the share
        assert abs(share - walds) != pytest.approx(Z * (walds * (1 - walds) / examples) ** 0.5, abs=1e-6)


@pytest.mark.parametrize(
    ("printed", "examples", "right"),
    [("63.46%", 104, 66), ("40.38%", 104, 42), ("86.53", 104, 90), ("91.0", 100, 91), ("53.13%", 638, 339)],
)
def test_right_answers_behind_an_accuracy(printed: str, examples: int, right: int) -> None:
    assert count_right(printed, examples) == right


def test_no_number_of_right_answers() -> None:
    assert count_right("88.61", 104) is None
    assert count_right("88.46", 104) == 92


def test_against_the_constant_answer() -> None:
    rows = [["a", "63.46%", "90.38"], ["b", "-", "88.61"], ["c", "1.00", "2.00"], ["d", "30.77", "63.46"]]
    columns = ["task", "accuracy before", "accuracy after"]
    table = Published.model_validate({"title": "T", "columns": columns, "rows": rows})
    options = {"examples": {"a": 104, "b": 104, "d": 104}, "constant": {"a": 66, "d": 58}}
    (found,), sentences = published_intervals([table], options)
    assert [row[0] for row in found.rows] == ["a", "b", "d"]  # nobody said how many examples c has
    first = found.rows[0]
    assert first[2] == Cell(66 / 104)
    assert first[3] == Cell(66 / 104, *wilson_interval(66, 104), note="(66 right)")
    assert found.rows[1][3:] == ["-", "88.61 (no number of 104 rounds to it)"]
    assert "as many right as the constant answer" in sentences[0]
    assert "90.38 (83.20 to 94.69): its interval lies above it" in sentences[0]
    assert "its interval lies below it" in sentences[1]
    assert "not shown to be above it" in sentences[1]
    assert len(sentences) == 2


def test_nothing_without_numbers_of_examples() -> None:
    table = Published.model_validate({"title": "T", "columns": ["task", "accuracy"], "rows": [["a", "63.46"]]})
    assert published_intervals([table], {}) == ([], [])
    assert published_intervals([], {"examples": {"a": 104}}) == ([], [])
