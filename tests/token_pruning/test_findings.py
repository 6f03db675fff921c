from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from softprune.statistics.bootstrap import Difference
from softprune.statistics.estimates import Estimate
from softprune.token_pruning.analysis.clusters import Clusters, Silhouette
from softprune.token_pruning.analysis.keywords import KeywordAccuracy, KeywordReport, KeywordRow
from softprune.token_pruning.analysis.measure import cluster_finding, finding, keyword_finding, overall_finding
from softprune.token_pruning.analysis.page import verdict
from softprune.token_pruning.analysis.retention import Row


def row(name: str, kept: float, baseline: float, *, clear: bool = True, excludes: bool | None = None) -> Row:
    gap = kept - baseline
    return Row(
        name=name,
        words=100,
        texts=50,
        kept=Estimate(kept, kept - 0.05, kept + 0.05),
        baseline=baseline,
        difference=Estimate(
            gap, *((gap - 0.01, gap + 0.01) if (clear if excludes is None else excludes) else (-1.0, 1.0))
        ),
        ratio=Estimate(kept / baseline),
        left=Estimate(2.0),
        left_difference=Estimate(0.1),
        p=0.001 if clear else 0.4,
        excludes_zero=clear if excludes is None else excludes,
        clear=clear,
    )


def test_a_table_that_shows_nothing_says_so() -> None:
    rows = [row("NOUN", 0.52, 0.5, clear=False), row("VERB", 0.49, 0.5, clear=False)]
    assert finding("pos", rows).startswith("This table shows no preference")
    assert "random dropping" in finding("pos", rows)
    assert "at the rate of all texts" in finding("class", rows)


def test_more_and_less_with_names_and_figures() -> None:
    rows = [row("NOUN", 0.71, 0.5), row("PUNCT", 0.2, 0.5), row("VERB", 0.5, 0.5, clear=False)]
    told = finding("pos", rows)
    assert "Kept more often than random dropping: noun (NOUN), 71.0% against 50.0%." in told
    assert "Kept less often than random dropping: punctuation (PUNCT), 20.0% against 50.0%." in told
    assert told.endswith("The other group can't be distinguished from it.")


def test_long_lists_are_cut() -> None:
    told = finding("place", [row(f"tenth {i}", 0.6 + i / 100, 0.5) for i in range(1, 8)])
    assert told.startswith("Kept more often than random dropping: tenth 7, 67.0%")
    assert told.endswith("; and 3 more.")


def test_few_texts_are_warned_of() -> None:
    assert "too narrow" in overall_finding(row("all words", 0.5, 0.5), texts=5)
    assert "too narrow" not in overall_finding(row("all words", 0.5, 0.5), texts=500)


def test_a_verdict_in_brackets_did_not_outlast_its_table() -> None:
    assert verdict(row("a", 0.7, 0.5)) == "▲ more"
    assert verdict(row("a", 0.3, 0.5)) == "▼ less"
    assert verdict(row("a", 0.7, 0.5, clear=False, excludes=True)) == "(▲ more)"
    assert verdict(row("a", 0.7, 0.5, clear=False)) == "–"


@pytest.mark.parametrize(
    ("value", "p", "told"),
    [(0.4, 0.001, "cluster clearly"), (0.05, 0.01, "cluster weakly"), (0.02, 0.3, "don't cluster")],
)
def test_clusters_in_words(value: float, p: float, told: str) -> None:
    found = Clusters(
        (0,), (0,), np.zeros((1, 2)), np.zeros((1, 2)), (0.5, 0.2), 3.0, (Silhouette("states", value, 0.03, p),)
    )
    assert told in cluster_finding(found)


def report(effect: Difference) -> KeywordReport:
    estimate = Estimate(0.8, 0.7, 0.9)
    overall = KeywordRow("all keywords", 10, 8, estimate, 0.5, Estimate(0.3, 0.2, 0.4), p=0.01, clear=True)
    accuracy = KeywordAccuracy(8, estimate, estimate, estimate, 5, estimate, estimate, effect, effect)
    return KeywordReport(overall, (), (), accuracy)


def test_keywords_in_words() -> None:
    kept, forced = keyword_finding(report(Difference(-0.1, -0.2, -0.05, 0.01)))
    assert "80.0% of the time, more than random dropping keeps (50.0%; difference +30.0 points" in kept
    assert "change accuracy by -10.0 points (95% interval -20.0 to -5.0)." in forced
    unsure = keyword_finding(report(Difference(-0.01, -0.2, 0.05, 0.8)))[1]
    assert "can't be distinguished from no change" in unsure


def test_keywords_of_few_texts_are_not_told_from_chance() -> None:
    made = report(Difference(0.0, 0.0, 0.0, 1.0))
    unlikely = dataclasses.replace(made, overall=dataclasses.replace(made.overall, p=0.2, clear=False))
    assert "can't be distinguished from random dropping" in keyword_finding(unlikely)[0]


def test_absent_keywords_in_words() -> None:
    nothing = Estimate(None)
    report = KeywordReport(KeywordRow("all keywords", 0, 0, nothing, None, nothing), (), ("zebra",), None)
    assert keyword_finding(report) == ["None of the keywords occurs in these texts."]
