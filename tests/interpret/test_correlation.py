"""Correlations against scipy, and the permutation test against all permutations."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from softprune.errors import SoftpruneError
from softprune.statistics.correlation import coefficient, correlate, mantel

pytestmark = pytest.mark.slow

NAN = float("nan")


def drawn(n: int, seed: int, slope: float) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=n)
    return x, slope * x + generator.normal(size=n)


@pytest.mark.parametrize("seed", range(5))
def test_coefficients_are_scipys(seed: int) -> None:
    x, y = drawn(12, seed, 0.7)
    x[3] = x[4]  # a tie
    assert coefficient(x, y, "pearson") == pytest.approx(stats.pearsonr(x, y)[0])
    assert coefficient(x, y, "spearman") == pytest.approx(stats.spearmanr(x, y)[0])
    assert coefficient(x, y, "spearman") != pytest.approx(stats.pearsonr(x, y)[0], rel=1e-6)
    assert coefficient(x, np.exp(x)) == pytest.approx(1)
    assert coefficient(x, -np.exp(x)) == pytest.approx(-1)


@pytest.mark.parametrize("kind", ["spearman", "pearson"])
def test_the_interval_is_that_of_resampled_items(kind: str) -> None:
    x, y = drawn(40, 1, 1.0)
    found = correlate(x, y, kind, seed=3)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    assert (found.n, found.p, found.tasks) == (40, None, None)
    generator = np.random.default_rng(77)
    theirs = [coefficient(x[at], y[at], kind) for at in (generator.integers(40, size=40) for _ in range(2000))]
    assert [found.low, found.high] == pytest.approx(np.quantile(theirs, [0.025, 0.975]), abs=0.04)
    assert correlate(x, y, kind, seed=3) == found
    assert correlate(x, y, kind, seed=4) != found


def test_intervals_cover_the_true_value_and_not_another_one() -> None:
    covers = excludes = 0
    for seed in range(60):
        x, y = drawn(60, seed, 1.0)  # a true correlation of sqrt(1/2)
        found = correlate(x, y, "pearson", seed=seed, resamples=300)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        covers += found.low <= 0.5**0.5 <= found.high
        excludes += not found.low <= 0.0 <= found.high
    assert covers >= 52
    assert excludes >= 58


def test_what_cannot_be_computed_is_not_measured() -> None:
    assert correlate([1, 2], [3, 4]) is None
    assert correlate([1, 1, 1, 1], [1, 2, 3, 4]) is None
    assert coefficient([1, 2, 3], [5, 5, 5]) is None
    assert correlate([1, 2, 3, NAN], [1, NAN, 3, 4]) is None
    one = correlate([1, 2, 3, NAN, 4], [1, 3, 2, 9, 4])
    assert one is not None
    assert one.n == 4
    # One item alone differs: a third of the resamples miss it and have no coefficient, which leaves enough of them;
    rare = correlate([0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 1])
    assert rare is not None
    assert (rare.low, rare.high) == (1.0, 1.0)
    with pytest.raises(SoftpruneError, match="equally long"):
        correlate([1, 2, 3], [1, 2])


def matrices(size: int, seed: int, slope: float) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(size, size))
    y = slope * x + generator.normal(size=(size, size))
    np.fill_diagonal(x, 100.0)  # what stands on the diagonal must not count
    return x, y


def off(matrix: np.ndarray) -> np.ndarray:
    return matrix[~np.eye(len(matrix), dtype=bool)]


@pytest.mark.parametrize("kind", ["spearman", "pearson"])
@pytest.mark.parametrize("size", [3, 4, 5])
def test_the_p_value_counts_all_permutations(kind: str, size: int) -> None:
    x, y = matrices(size, size, 1.5)
    found = mantel(x, y, kind, resamples=200)
    assert found is not None
    theirs = {"spearman": stats.spearmanr, "pearson": stats.pearsonr}[kind]
    value = theirs(off(x), off(y))[0]
    assert found.value == pytest.approx(value)
    every = [theirs(off(x[np.ix_(order, order)]), off(y))[0] for order in permutations(range(size))]
    assert found.p == pytest.approx(np.mean([abs(each) >= abs(value) - 1e-9 for each in every]))
    assert (found.n, found.tasks) == (size * (size - 1), size)


def test_drawn_permutations_are_near_all_of_them() -> None:
    x, y = matrices(6, 2, 0.4)
    exact, sample = mantel(x, y, resamples=720), mantel(x, y, resamples=600)
    assert exact is not None
    assert sample is not None
    assert exact.p is not None
    assert 0.02 < exact.p < 0.9
    assert sample.p == pytest.approx(exact.p, abs=0.07)
    assert mantel(x, y, resamples=600) == sample


def test_a_relation_is_found_and_chance_is_not() -> None:
    related = mantel(*matrices(8, 0, 3.0), resamples=100)
    assert related is not None
    assert related.p is not None
    assert related.low is not None
    assert related.p < 0.03
    assert related.low > 0.3
    chance = [mantel(*matrices(8, seed, 0.0), resamples=60) for seed in range(30)]
    ps = [found.p for found in chance if found is not None and found.p is not None]
    assert len(ps) == 30
    assert sum(p < 0.1 for p in ps) <= 8
    assert sum(p > 0.5 for p in ps) >= 9


def test_pairs_that_share_a_task_are_no_independent_items() -> None:
    """Each task has an effect of its own: intervals over pairs would be far too narrow."""
    generator = np.random.default_rng(5)
    effect = generator.normal(size=8)
    x = np.repeat(effect[:, None], 8, axis=1) + 0.1 * generator.normal(size=(8, 8))
    y = np.repeat((0.5 * effect + generator.normal(size=8))[:, None], 8, axis=1) + 0.1 * generator.normal(size=(8, 8))
    by_task, by_pair = mantel(x, y, "pearson"), correlate(off(x), off(y), "pearson")
    assert by_task is not None
    assert by_pair is not None
    widths = [(found.high or 0) - (found.low or 0) for found in (by_task, by_pair)]
    assert widths[0] > 1.5 * widths[1]


def test_unmeasured_pairs_are_left_out() -> None:
    x, y = matrices(5, 3, 1.0)
    whole = mantel(x, y, resamples=50)
    y[0, 3] = y[2, 1] = NAN
    part = mantel(x, y, resamples=50)
    assert whole is not None
    assert part is not None
    assert (whole.n, part.n) == (20, 18)
    both = np.isfinite(off(y))
    assert part.value == pytest.approx(stats.spearmanr(off(x)[both], off(y)[both])[0])
    assert mantel(x[:2, :2], y[:2, :2]) is None
    assert mantel(np.ones((4, 4)), np.random.default_rng(0).normal(size=(4, 4))) is None
    assert mantel(x, np.full((5, 5), NAN)) is None
    with pytest.raises(SoftpruneError, match="square matrices"):
        mantel(x, y[:4])
