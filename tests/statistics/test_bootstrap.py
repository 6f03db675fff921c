"""Bootstrap and McNemar, compared with hand-computed and library values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from softprune.data.metrics import F1, Accuracy, answered
from softprune.errors import SoftpruneError
from softprune.statistics.bootstrap import (
    bootstrap_interval,
    holm,
    mcnemar,
    paired_bootstrap,
    resampled_sums,
)

ACCURACY, F1_OF_1 = Accuracy(), F1(positive=1)


def accuracy_counts(correct):
    correct = np.asarray(correct, float)
    return np.stack([correct, np.ones_like(correct)], axis=1)


def standard_error(counts, groups=None, *, seed):
    return float(ACCURACY.score(resampled_sums(counts, groups, seed=seed)).std(ddof=1))


def test_all_right_leaves_no_doubt():
    interval = bootstrap_interval(accuracy_counts([1] * 20), ACCURACY.score, seed=0)
    assert (interval.low, interval.high) == (1.0, 1.0)
    assert standard_error(accuracy_counts([1] * 20), seed=0) == 0.0


def test_standard_error_of_accuracy_is_the_binomial_one():
    correct = [1] * 70 + [0] * 30
    expected = np.sqrt(0.7 * 0.3 / 100)
    assert standard_error(accuracy_counts(correct), seed=1) == pytest.approx(expected, rel=0.03)


def test_accuracy_interval_agrees_with_scipy():
    correct = (np.random.default_rng(3).random(150) < 0.8).astype(float)
    ours = bootstrap_interval(accuracy_counts(correct), ACCURACY.score, seed=0)
    theirs = stats.bootstrap(
        (correct,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(0)
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.008)
    assert ours.high == pytest.approx(theirs.high, abs=0.008)


def test_f1_interval_agrees_with_scipy():
    rng = np.random.default_rng(4)
    gold = (rng.random(120) < 0.4).astype(int)
    predicted = np.where(rng.random(120) < 0.75, gold, 1 - gold)
    ours = bootstrap_interval(F1_OF_1.counts(answered(predicted, gold)), F1_OF_1.score, seed=0, resamples=4000)
    theirs = stats.bootstrap(
        (predicted, gold),
        lambda p, g: 2 * np.sum(p * g) / (np.sum(p) + np.sum(g)),
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=4000,
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.015)
    assert ours.high == pytest.approx(theirs.high, abs=0.015)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(5)
    inside = 0
    for trial in range(300):
        interval = bootstrap_interval(
            accuracy_counts(rng.random(200) < 0.7), ACCURACY.score, seed=trial, resamples=1000
        )
        inside += interval.low <= 0.7 <= interval.high
    assert 0.90 <= inside / 300 <= 0.98


def test_groups_that_agree_within_widen_the_interval():
    by_group = (np.random.default_rng(6).random(40) < 0.6).astype(float)
    correct, groups = np.repeat(by_group, 10), np.repeat(np.arange(40), 10).tolist()
    counts = accuracy_counts(correct)
    alone = standard_error(counts, seed=0)
    together = standard_error(counts, groups, seed=0)
    assert together == pytest.approx(alone * np.sqrt(10), rel=0.1)


def test_examples_without_a_group_are_units_of_their_own():
    """As where a task with passages is joined with one without: 10 groups of 10, and 100 examples alone."""
    correct = np.resize([1, 0, 1], 200)
    counts = np.stack([correct, np.ones(200)], axis=1)
    some = [f"passage {i // 10}" if i < 100 else None for i in range(200)]
    named = [group or f"alone {i}" for i, group in enumerate(some)]
    assert standard_error(counts, some, seed=0) == standard_error(counts, named, seed=0)
    one = [group or "one group" for group in some]
    assert standard_error(counts, one, seed=0) != standard_error(counts, some, seed=0)


def test_groups_of_one_change_nothing():
    counts = accuracy_counts([1, 0, 1, 1, 0, 1])
    assert bootstrap_interval(counts, ACCURACY.score, list("abcdef"), seed=0) == bootstrap_interval(
        counts, ACCURACY.score, [None] * 6, seed=0
    )


def test_same_seed_same_bits():
    counts = accuracy_counts([1, 0, 1, 1, 0] * 8)
    first = bootstrap_interval(counts, ACCURACY.score, seed=7)
    assert first == bootstrap_interval(counts, ACCURACY.score, seed=7)
    assert standard_error(counts, seed=7) != standard_error(counts, seed=8)


def test_chunks_do_not_change_the_kind_of_result(monkeypatch):
    counts = accuracy_counts([1] * 30 + [0] * 10)
    whole = bootstrap_interval(counts, ACCURACY.score, seed=0)
    monkeypatch.setattr("softprune.statistics.bootstrap.CHUNK_CELLS", 64)
    chunked = bootstrap_interval(counts, ACCURACY.score, seed=0)
    assert chunked.low == pytest.approx(whole.low, abs=0.03)


def test_swapped_models_flip_the_sign():
    rng = np.random.default_rng(8)
    a, b = accuracy_counts(rng.random(200) < 0.8), accuracy_counts(rng.random(200) < 0.7)
    forth = paired_bootstrap(a, b, ACCURACY.score, seed=0)
    back = paired_bootstrap(b, a, ACCURACY.score, seed=0)
    assert forth.value == pytest.approx(-back.value)
    assert forth.low == pytest.approx(-back.high, abs=0.01)
    assert forth.p == pytest.approx(back.p, abs=0.01)


def test_a_model_does_not_differ_from_itself():
    a = accuracy_counts([1, 0, 1, 1, 0] * 10)
    same = paired_bootstrap(a, a, ACCURACY.score, seed=0)
    assert (same.value, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)


def test_smallest_p_is_two_over_resamples_plus_one():
    right, wrong = accuracy_counts([1] * 50), accuracy_counts([0] * 50)
    assert paired_bootstrap(right, wrong, ACCURACY.score, seed=0, resamples=999).p == pytest.approx(2 / 1000)


def test_several_seeds_are_averaged():
    a = [accuracy_counts([1, 1, 1, 0]), accuracy_counts([1, 0, 0, 0])]
    difference = paired_bootstrap(a, accuracy_counts([1, 0, 0, 0]), ACCURACY.score, seed=0)
    assert difference.value == pytest.approx((0.75 + 0.25) / 2 - 0.25)


def test_paired_p_agrees_with_mcnemar():
    rng = np.random.default_rng(9)
    a = rng.random(400) < 0.80
    b = np.where(rng.random(400) < 0.85, a, ~a)
    ours = paired_bootstrap(accuracy_counts(a), accuracy_counts(b), ACCURACY.score, seed=0)
    only_a, only_b, p = mcnemar(a, b)
    assert ours.value == pytest.approx((only_a - only_b) / 400)
    assert ours.p == pytest.approx(p, abs=0.03)


def test_no_difference_is_found_in_about_five_percent_of_null_trials():
    rng = np.random.default_rng(10)
    found = 0
    for trial in range(300):
        a, b = (accuracy_counts(rng.random(150) < 0.7) for _ in range(2))
        found += paired_bootstrap(a, b, ACCURACY.score, seed=trial, resamples=800).p < 0.05
    assert found / 300 <= 0.09


def test_mcnemar_by_hand():
    result = mcnemar([1, 1, 1, 1, 1, 0, 1], [0, 0, 0, 0, 0, 1, 1])
    assert result == (5, 1, pytest.approx(2 * (1 + 6) / 2**6))
    assert mcnemar([1, 0], [1, 0]) == (0, 0, 1.0)


@pytest.mark.parametrize("positive", [0, 1])
def test_f1_equals_scikit_learn(positive):
    rng = np.random.default_rng(12)
    gold, predicted = rng.integers(0, 2, 80), rng.integers(0, 2, 80)
    ours = F1(positive=positive).value(answered(predicted, gold))
    assert ours == pytest.approx(f1_score(gold, predicted, pos_label=positive))


def test_bad_input_is_told():
    with pytest.raises(SoftpruneError, match="at least one example"):
        bootstrap_interval(np.zeros((0, 2)), ACCURACY.score, seed=0)
    with pytest.raises(SoftpruneError, match="one group id per example"):
        bootstrap_interval(accuracy_counts([1, 0]), ACCURACY.score, ["a"], seed=0)
    with pytest.raises(SoftpruneError, match="same examples for both"):
        paired_bootstrap(accuracy_counts([1]), accuracy_counts([1, 0]), ACCURACY.score, seed=0)
    with pytest.raises(SoftpruneError, match="same examples for both"):
        mcnemar([1], [1, 0])


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (3, 3), (2, 9), (40, 61), (0, 30)])
def test_mcnemar_is_the_exact_binomial_test(only_a: int, only_b: int) -> None:
    a = [True] * only_a + [False] * only_b + [True] * 5
    b = [False] * only_a + [True] * only_b + [True] * 5
    found = mcnemar(a, b)
    expected = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert found == (only_a, only_b, pytest.approx(expected, rel=1e-9))


def test_holm_by_hand():
    # 0.01 * 4; 0.02 * 3 = 0.06; 0.03 * 2 = 0.06; 0.2 * 1
    assert holm([0.03, 0.01, 0.2, 0.02]) == pytest.approx([0.06, 0.04, 0.2, 0.06])
    assert holm([0.5, 0.04]) == pytest.approx([0.5, 0.08])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.04, 0.04]) == pytest.approx([0.08, 0.08])
    assert holm([0.04, 0.04]) != pytest.approx([0.04, 0.04])  # as without a correction


def test_holm_holds_its_level_and_no_correction_does_not():
    drawn = np.random.default_rng(0).random((2_000, 20))
    found = [min(holm(row.tolist())) < 0.05 for row in drawn]
    assert np.mean(found) == pytest.approx(0.05, abs=0.015)
    assert np.mean(drawn.min(1) < 0.05) > 0.5
