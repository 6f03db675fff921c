"""Means, intervals and differences over seeds, held to what is computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from softprune.data.metrics import Accuracy
from softprune.statistics.methods_over_seeds import Outcome, Scored, difference, same_examples, spread

SCORE = Accuracy().score


def of(values: list[float], *runs: Scored) -> Outcome:
    return Outcome(tuple(values), runs)


def scored(*right: int, ids: tuple[str, ...] | None = None, groups: tuple[str | None, ...] | None = None) -> Scored:
    counts = np.array([[each, 1.0] for each in right])
    names = ids or tuple(map(str, range(len(right))))
    return Scored(counts, names, groups or (None,) * len(right))


def test_mean_and_spread_are_over_seeds() -> None:
    found = spread(of([0.5, 1.0], scored(1, 0), scored(1, 1)), SCORE, seed=0, resamples=100)
    assert found.mean == pytest.approx(0.75)
    assert found.sd == pytest.approx(0.125**0.5)  # ((-1/4)^2 + (1/4)^2) / (2 - 1)
    assert found.sd != pytest.approx(0.25)  # what dividing by 2 would give


def test_one_seed_has_no_spread() -> None:
    found = spread(of([0.5], scored(1, 0)), SCORE, seed=0, resamples=100)
    assert (found.mean, found.sd) == (0.5, None)
    assert found.interval is not None


def test_the_interval_resamples_examples_and_scores_all_seeds_on_each_resample() -> None:
    """Two examples: resamples are 11, 12, 21, 22. Seed means on them: 1, 3/4, 3/4, 1/2, so quartiles are known."""
    found = spread(of([0.5, 1.0], scored(1, 0), scored(1, 1)), SCORE, seed=0, resamples=20_000)
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == (0.5, 1.0)
    alike = spread(of([0.5, 0.5], scored(1, 0), scored(0, 1)), SCORE, seed=0, resamples=20_000)
    assert alike.interval is not None
    assert (alike.interval.low, alike.interval.high) == (0.5, 0.5)  # one seed's right is the other's wrong
    apart = spread(of([0.5], scored(1, 0)), SCORE, seed=0, resamples=20_000)
    assert apart.interval is not None
    assert (apart.interval.low, apart.interval.high) == (0.0, 1.0)


def test_groups_are_resampled_whole() -> None:
    run = scored(1, 1, 0, 0, groups=("a", "a", "a", "a"))
    found = spread(of([0.5], run), SCORE, seed=0, resamples=1000)
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == (0.5, 0.5)  # one group: every resample is all of it
    loose = spread(of([0.5], scored(1, 1, 0, 0)), SCORE, seed=0, resamples=1000)
    assert loose.interval is not None
    assert loose.interval.low < 0.5 < loose.interval.high


def test_a_difference_is_of_means_over_seeds_and_paired() -> None:
    ours = of([0.5, 0.75], scored(1, 1, 0, 0), scored(1, 1, 1, 0))
    theirs = of([0.25], scored(1, 0, 0, 0))
    found = difference(ours, theirs, SCORE, seed=0, resamples=2000)
    assert found is not None
    assert found.value == pytest.approx((0.5 + 0.75) / 2 - 0.25)
    back = difference(theirs, ours, SCORE, seed=0, resamples=2000)
    assert back is not None
    assert back.value == pytest.approx(-found.value)


def test_pairing_takes_what_both_get_wrong_out_of_the_interval() -> None:
    hard = (1, 0) * 20
    better = tuple(1 if at % 40 == 1 else each for at, each in enumerate(hard))
    paired = difference(of([0.0], scored(*better)), of([0.0], scored(*hard)), SCORE, seed=0, resamples=2000)
    shuffled = difference(of([0.0], scored(*better)), of([0.0], scored(*hard[::-1])), SCORE, seed=0, resamples=2000)
    assert paired is not None
    assert shuffled is not None
    assert paired.value == pytest.approx(shuffled.value)
    assert paired.high - paired.low < 0.5 * (shuffled.high - shuffled.low)


def test_other_examples_are_never_compared() -> None:
    other = scored(1, 0, ids=("x", "y"))
    assert same_examples([scored(1, 0), other]) is None
    assert same_examples([scored(1, 0), None]) is None
    assert same_examples([]) is None
    assert same_examples([scored(1, 0), scored(0, 0)]) is not None
    assert difference(of([0.5], scored(1, 0)), of([0.5], other), SCORE, seed=0, resamples=100) is None
    assert spread(of([0.5, 0.5], scored(1, 0), other), SCORE, seed=0, resamples=100).interval is None
