from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binomtest

from softprune.statistics.estimates import chance_p, compare_shares, estimate, p_value, quotient


def test_undefined_resamples_do_not_count() -> None:
    drawn = np.array([math.nan, 0.0, 1.0, math.nan])
    assert estimate(0.5, drawn, texts=3).interval == pytest.approx((0.025, 0.975))
    assert estimate(math.nan, drawn, texts=3).value is None
    assert estimate(0.5, drawn, texts=1).interval is None
    assert p_value(np.full(99, 0.3)) == pytest.approx(0.02)


def test_nought_over_nought_is_undefined() -> None:
    assert np.isnan(quotient(np.array([0.0, 1.0]), np.array([0.0, 2.0]))).tolist() == [True, False]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_nought_and_all_have_the_exact_interval(share: float) -> None:
    baseline_R = np.full(100, 0.3)
    found, above = compare_shares(share, 0.3, np.full(100, share), baseline_R, texts=20)
    exact = binomtest(round(20 * share), 20).proportion_ci(0.95, method="exact")
    assert found.interval == pytest.approx((exact.low, exact.high))
    assert above.interval == pytest.approx((exact.low - 0.3, exact.high - 0.3))
    drawn = np.array([0.4, 0.6])
    assert compare_shares(0.5, 0.3, drawn, baseline_R[:2], texts=20)[0].interval == estimate(0.5, drawn, 20).interval


def test_exact_p_against_every_outcome() -> None:
    chance_N = np.array([0.1, 0.5, 0.7, 0.9, 0.35])
    outcomes = dict.fromkeys(range(6), 0.0)
    for kept in itertools.product((0, 1), repeat=5):
        outcomes[sum(kept)] += float(np.where(kept, chance_N, 1 - chance_N).prod())
    for k in range(6):
        low, high = sum(outcomes[i] for i in range(k + 1)), sum(outcomes[i] for i in range(k, 6))
        assert chance_p(k, chance_N) == pytest.approx(min(1.0, 2 * min(low, high)))


@pytest.mark.parametrize(
    ("kept", "words", "chance"), [(62, 100, 0.5), (230, 400, 0.5), (12, 3000, 0.002), (990, 1000, 0.98)]
)
def test_p_is_near_the_binomial_ones(kept: int, words: int, chance: float) -> None:
    tail = [binomtest(kept, words, chance, alternative=side).pvalue for side in ("less", "greater")]
    assert chance_p(kept, np.full(words, chance)) == pytest.approx(2 * min(tail), rel=0.05)


def test_what_can_not_be_otherwise_proves_nothing() -> None:
    assert chance_p(3, np.ones(3)) == 1.0
    assert chance_p(0, np.zeros(3)) == 1.0
    assert chance_p(0, np.array([])) == 1.0
