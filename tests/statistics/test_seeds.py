"""The test over seeds and examples: by hand, against scipy and brute force, and where there is little to go by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from softprune.data.metrics import F1, Accuracy, answered
from softprune.errors import SoftpruneError
from softprune.statistics.bootstrap import Difference, paired_bootstrap
from softprune.statistics.seeds import Uncertainty, compare_rows, seed_scores, uncertainty_of

SCORE = Accuracy().score


def rows(seeds: int, examples: int = 200, share: float = 0.8, draw: int = 0) -> list[Any]:
    """Right and wrong answers of so many seeds, each with an accuracy of its own."""
    generator = np.random.default_rng(draw)
    easy = generator.random(examples)
    shares = share + 0.03 * generator.standard_normal(seeds)
    return [right(0.7 * easy + 0.3 * generator.random(examples) < each) for each in shares]


def right(answers: Any) -> Any:
    return np.stack([np.asarray(answers, float), np.ones(len(answers))], axis=1)


def by_formula(d_S: Any, examples_error: float, units: int) -> tuple[float, float, float]:
    """Half the interval, p and degrees of freedom, written down once more from the formula."""
    v1, v2 = np.var(d_S, ddof=1) / len(d_S), examples_error**2
    df = (v1 + v2) ** 2 / (v1**2 / (len(d_S) - 1) + v2**2 / (units - 1))
    error = np.sqrt(v1 + v2)
    return stats.t.ppf(0.975, df) * error, 2 * stats.t.sf(abs(np.mean(d_S)) / error, df), df


def test_welch_and_satterthwaite_by_hand() -> None:
    """v1 = 4, v2 = 9: df = 169 / (16 / 2 + 81 / 10) = 10.497; t of it is 2.214; half the interval 2.214 * sqrt(13)."""
    found = Uncertainty(seeds=2.0, seeds_df=2.0, examples=3.0, units=11)
    assert found.error == pytest.approx(np.sqrt(13))
    assert found.df == pytest.approx(169 / (8 + 8.1))
    assert found.margin() == pytest.approx(7.983, abs=2e-3)
    assert found.margin() != pytest.approx(1.96 * 13**0.5, rel=0.05)


def test_either_part_alone_is_the_t_over_it() -> None:
    assert Uncertainty(2.0, 4.0, 0.0, 100).margin() == pytest.approx(stats.t.ppf(0.975, 4) * 2)
    assert Uncertainty(0.0, 4.0, 2.0, 100).margin() == pytest.approx(stats.t.ppf(0.975, 99) * 2)
    assert Uncertainty(0.0, np.inf, 2.0, 100).df == pytest.approx(99)
    assert Uncertainty(0.0, 2.0, 0.0, 5).margin() == 0.0  # nothing varies; no division by nothing


def test_the_difference_is_that_of_the_formula() -> None:
    a, b = rows(4, draw=1), rows(4, share=0.7, draw=2)
    found = compare_rows(a, b, SCORE, seed=0)
    d_S = [x[:, 0].mean() - y[:, 0].mean() for x, y in zip(a, b, strict=True)]
    per_example = np.mean([x[:, 0] - y[:, 0] for x, y in zip(a, b, strict=True)], axis=0)
    reach, p, _ = by_formula(d_S, per_example.std() / np.sqrt(200), 200)
    assert found.value == pytest.approx(np.mean(d_S))
    assert (found.high - found.low) / 2 == pytest.approx(reach, rel=0.02)  # the bootstrap draws
    assert found.p == pytest.approx(p, rel=0.1)
    assert (found.covers_seeds, found.seeds, found.units, found.seeds_df) == (True, 4, 200, 3.0)
    assert found.se_examples == pytest.approx(per_example.std() / np.sqrt(200), rel=0.02)
    exact, p, _ = by_formula(d_S, found.se_examples, 200)
    assert (found.high - found.low) / 2 == pytest.approx(exact, rel=1e-9)
    assert found.p == pytest.approx(p, rel=1e-9)


def test_p_and_interval_agree_at_the_level() -> None:
    a, b = rows(5, draw=3), rows(5, share=0.76, draw=4)
    found = compare_rows(a, b, SCORE, seed=0)
    assert uncertainty_of(found).margin(1 - found.p) == pytest.approx(abs(found.value), abs=1e-9)
    swapped = compare_rows(b, a, SCORE, seed=0)
    assert swapped.value == pytest.approx(-found.value)
    assert swapped.p == pytest.approx(found.p, rel=0.1)  # other resamples


def test_unpaired_seeds_are_welchs_test_where_examples_do_not_count() -> None:
    """As many examples as make their part vanish: what is left is scipy's Welch, or its paired test."""
    shares = ([0.80, 0.84, 0.86, 0.9], [0.70, 0.72, 0.77, 0.71])
    parts_S = [np.array(each).var(ddof=1) / 4 for each in shares]
    a, b = ([right(np.arange(100) < 100 * share) for share in each] for each in shares)
    found = compare_rows(a, b, SCORE, seed=0, paired=False)
    assert found.se_seeds == pytest.approx(np.sqrt(sum(parts_S)))
    assert found.seeds_df == pytest.approx(stats.ttest_ind(*shares, equal_var=False).df)
    paired = compare_rows(a, b, SCORE, seed=0)
    assert paired.se_seeds == pytest.approx(stats.sem(np.subtract(*shares)))
    assert paired.seeds_df == 3.0
    assert paired.se_seeds != pytest.approx(found.se_seeds, rel=0.01)


def test_unequal_seeds_never_pair() -> None:
    a, b = rows(5, draw=5), rows(3, draw=6)
    found = compare_rows(a, b, SCORE, seed=0, paired=True)
    expected = stats.ttest_ind(seed_scores(a, SCORE), seed_scores(b, SCORE), equal_var=False)
    assert (found.seeds, found.covers_seeds) == (3, True)
    assert found.seeds_df == pytest.approx(expected.df)


def test_an_untrained_side_has_no_seeds() -> None:
    a, bare = rows(4, draw=7), rows(1, share=0.6, draw=8)
    found = compare_rows(a, bare, SCORE, seed=0, untrained=True)
    assert (found.seeds, found.covers_seeds, found.seeds_df) == (4, True, 3.0)
    assert found.se_seeds == pytest.approx(stats.sem(seed_scores(a, SCORE)))
    assert not compare_rows(a, bare, SCORE, seed=0).covers_seeds  # taken for a trained one, one seed tells nothing


@pytest.mark.parametrize(("ours", "theirs"), [(1, 1), (2, 2), (2, 5), (5, 2), (1, 3)])
def test_fewer_than_three_seeds_are_compared_by_example_alone(ours: int, theirs: int) -> None:
    a, b = rows(ours, draw=9), rows(theirs, draw=10)
    found = compare_rows(a, b, SCORE, seed=0)
    assert found == paired_bootstrap(a, b, SCORE, seed=0)
    assert (found.covers_seeds, found.seeds, found.se_seeds) == (False, min(ours, theirs), None)


def test_rows_that_never_differ_are_known_to_one_example() -> None:
    same = rows(3, draw=11)
    found = compare_rows(same, same, SCORE, seed=0)
    assert (found.value, found.p, found.se_seeds, found.se_examples) == (0.0, 1.0, 0.0, 1 / 200)
    assert found.high == pytest.approx(stats.t.ppf(0.975, 199) / 200)
    perfect, none = [right([1] * 30)] * 3, [right([0] * 30)] * 3
    assert compare_rows(perfect, none, SCORE, seed=0).low > 0.9


def test_rounding_is_no_spread() -> None:
    """A third right in every resample: floating point gives equal thirds a spread of 1e-17, which is none."""
    a = [right([1] * 30), right([0] * 30), right([0] * 30)]
    found = compare_rows(a, [right([0] * 30)] * 3, SCORE, seed=0, resamples=999)
    assert found.se_examples == 1 / 30
    alone = compare_rows(rows(3, draw=1), rows(3, draw=2), SCORE, seed=0, resamples=1)
    assert alone.se_examples == 1 / 200  # one resample has no spread; no warning either


def test_groups_are_what_is_sampled() -> None:
    """Forty groups of five alike examples: the part of examples is that of forty."""
    generator = np.random.default_rng(12)
    a, b = ([right(np.repeat(generator.random(40) < share, 5)) for _ in range(3)] for share in (0.8, 0.7))
    groups = np.repeat(np.arange(40), 5).tolist()
    found, loose = (compare_rows(a, b, SCORE, each, seed=0) for each in (groups, None))
    per_group = np.mean([x[::5, 0] - y[::5, 0] for x, y in zip(a, b, strict=True)], axis=0)
    assert (found.units, loose.units) == (40, 200)
    assert found.se_examples == pytest.approx(per_group.std() / np.sqrt(40), rel=0.03)
    assert loose.se_examples == pytest.approx(found.se_examples / np.sqrt(5), rel=0.05)
    assert found.se_seeds == loose.se_seeds


def test_f1_is_tested_as_well() -> None:
    generator, metric = np.random.default_rng(13), F1(positive=1)
    gold = generator.integers(0, 2, 150)
    a, b = (
        [metric.counts(answered(np.where(generator.random(150) < share, gold, 1 - gold), gold)) for _ in range(3)]
        for share in (0.9, 0.7)
    )
    found = compare_rows(a, b, metric.score, seed=0)
    d_S = seed_scores(a, metric.score) - seed_scores(b, metric.score)
    draws = [generator.integers(0, 150, 150) for _ in range(2_000)]
    brute = [
        np.mean([float(metric.score(x[at].sum(0)) - metric.score(y[at].sum(0))) for x, y in zip(a, b, strict=True)])
        for at in draws
    ]
    assert found.value == pytest.approx(d_S.mean())
    assert found.se_examples == pytest.approx(np.std(brute), rel=0.06)
    assert (found.high - found.low) / 2 == pytest.approx(by_formula(d_S, found.se_examples, 150)[0])


def test_the_mean_of_one_row() -> None:
    a = rows(5, draw=14)
    found = compare_rows(a, None, SCORE, seed=0)
    per_example = np.mean([x[:, 0] for x in a], axis=0)
    assert (found.covers_seeds, found.seeds, found.seeds_df) == (True, 5, 4.0)
    assert found.value == pytest.approx(per_example.mean())
    assert found.se_seeds == pytest.approx(stats.sem(seed_scores(a, SCORE)))
    assert found.se_examples == pytest.approx(per_example.std() / np.sqrt(200), rel=0.02)
    single = compare_rows(a[0], None, SCORE, seed=0)
    assert (single.covers_seeds, single.value) == (False, pytest.approx(a[0][:, 0].mean()))
    assert compare_rows([right([1] * 50)] * 3, None, SCORE, seed=0).se_examples == 1 / 50


def test_other_numbers_of_examples_are_refused() -> None:
    with pytest.raises(SoftpruneError, match="same examples for both"):
        compare_rows(rows(3, 100), rows(3, 99), SCORE, seed=0)


def test_the_issues_example_has_seed_spread_in_its_interval() -> None:
    """Differences of +3.0, -0.5 and +4.0 points: by example +-2, with three seeds' spread more than twice that."""
    shares = [0.83, 0.795, 0.84]
    a = [right(np.arange(1000) < 1000 * share) for share in shares]
    b = [right(np.arange(1000) < 800)] * 3
    found = compare_rows(a, b, SCORE, seed=0)
    narrow: Difference = paired_bootstrap(a, b, SCORE, seed=0)
    assert narrow.low > 0 > found.low
    assert found.high - found.low > 2 * (narrow.high - narrow.low)
