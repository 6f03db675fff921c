"""What a run recommends: every side and edge, and plans against brute force and simulated power."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from softprune.statistics.bootstrap import Difference
from softprune.statistics.decision import (
    MOST_SEEDS,
    decide,
    detectable,
    detectable_by,
    more_examples,
    more_seeds,
    seeds_needed,
)
from softprune.statistics.seeds import Uncertainty


def measured(
    value: float, *, seeds: int = 3, spread: float = 0.02, examples: float = 0.01, units: int = 600
) -> Difference:
    """A difference with its interval, of so many seeds with this spread and this error by example."""
    found = Uncertainty(spread / np.sqrt(seeds), seeds - 1.0, examples, units)
    reach, error = found.margin(), spread / np.sqrt(seeds)
    return Difference(
        value, value - reach, value + reach, 0.5, True, seeds, units, error, examples, seeds_df=seeds - 1.0
    )


def between(low: float, high: float) -> Difference:
    return Difference((low + high) / 2, low, high, 0.5, True, 3, 600, 0.01, 0.01, 2.0)


@pytest.mark.parametrize(
    ("low", "high", "decision", "better"),
    [
        (0.01, 0.03, "ship the ticket", True),
        (0.0, 0.03, "ship the ticket", False),
        (-0.005, 0.03, "ship the ticket", False),
        (-0.009, -0.001, "ship the ticket", False),  # shown to be worse, by less than is accepted
        (-0.01, 0.03, "undecided", False),
        (-0.02, 0.03, "undecided", False),
        (-0.02, -0.01, "undecided", False),
        (-0.03, -0.011, "ship the whole prompt", False),
    ],
)
def test_every_side_and_edge(low: float, high: float, decision: str, better: bool) -> None:
    found = decide(between(low, high), margin=0.01)
    assert (found.decision, found.better) == (decision, better)
    assert found.reason is None
    assert found.more_seeds is None or decision == "undecided"


def test_without_a_margin_a_draw_stays_undecided() -> None:
    assert decide(between(0.001, 0.02), 0.0).decision == "ship the ticket"
    assert decide(between(-0.02, -0.001), 0.0).decision == "ship the whole prompt"
    assert decide(between(-0.001, 0.02), 0.0).decision == "undecided"


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_give_no_verdict_however_clear_the_interval(seeds: int) -> None:
    found = decide(Difference(0.3, 0.2, 0.4, 0.0001, seeds=seeds, units=600), 0.01)
    assert (found.decision, found.better) == ("no verdict", False)
    assert found.reason == f"a verdict needs at least 3 fresh seeds, this run has {seeds}"


@pytest.mark.parametrize("value", [-0.04, -0.028, 0.006, 0.015])
def test_more_seeds_is_the_first_number_that_decides(value: float) -> None:
    found = measured(value, examples=0.006)
    assert decide(found, 0.01).decision == "undecided"
    more = more_seeds(found, 0.01)
    assert more is not None
    decided = [
        3 + extra
        for extra in range(1, 60)
        if decide(measured(value, seeds=3 + extra, examples=0.006), 0.01).decision != "undecided"
    ]
    assert decided[0] == 3 + more


@pytest.mark.parametrize(("value", "spread"), [(0.02, 0.01), (-0.04, 0.01), (-0.052, 0.02)])
def test_more_examples_is_the_first_number_that_decides(value: float, spread: float) -> None:
    """Also where ever more examples undo the decision, since the degrees of freedom fall to those of 3 seeds."""
    found = measured(value, spread=spread, examples=0.02)
    assert decide(found, 0.01).decision == "undecided"
    more = more_examples(found, 0.01)
    assert more is not None

    def decided(units: int) -> bool:
        wider = measured(value, spread=spread, examples=0.02 * np.sqrt(600 / units), units=units)
        return decide(wider, 0.01).decision != "undecided"

    first = next(units for units in range(601, 30_000, 4) if decided(units))
    assert 600 + more == pytest.approx(first, abs=5)
    assert decided(1_000_000) == (spread == 0.01)


def test_what_no_number_decides() -> None:
    near = measured(-0.0101, examples=0.02)  # a hundredth of a point off the margin
    assert (more_seeds(near, 0.01), more_examples(near, 0.01)) == (None, None)
    assert (more_seeds(measured(-0.01), 0.01), more_examples(measured(-0.01), 0.01)) == (None, None)
    few = measured(0.01, seeds=3, spread=0.05, examples=0.0001)
    assert more_seeds(few, 0.01) is not None
    assert more_examples(few, 0.01) is None
    many = measured(0.0, seeds=3, spread=0.0001, examples=0.02)
    assert more_seeds(many, 0.01) is None
    assert more_examples(many, 0.01) is not None


def test_seeds_without_spread_can_be_planned_for() -> None:
    found = decide(measured(0.0, spread=0.0, examples=0.02), 0.01)
    assert found.decision == "undecided"
    assert found.more_seeds is None
    assert found.more_examples == pytest.approx((stats.norm.ppf(0.975) * 0.02 / 0.01) ** 2 * 600 - 600, rel=0.01)


@pytest.mark.parametrize(("seeds", "examples"), [(3, 600), (5, 300), (10, 600)])
def test_a_detectable_difference_is_found_four_times_of_five(seeds: int, examples: int) -> None:
    """Simulated: seeds and examples as normal effects with the planned spreads, 20,000 times."""
    spread, discordance = 0.03, 0.2
    true = detectable(seeds, examples, seed_sd=spread, discordance=discordance)
    generator = np.random.default_rng(seeds)
    d_RS = true + spread * generator.standard_normal((20_000, seeds))
    shift_R = np.sqrt(discordance / examples) * generator.standard_normal(20_000)
    value_R, errors_R = d_RS.mean(1) + shift_R, d_RS.std(1, ddof=1) / np.sqrt(seeds)
    v1, v2 = errors_R**2, discordance / examples
    df_R = (v1 + v2) ** 2 / (v1**2 / (seeds - 1) + v2**2 / (examples - 1))
    power = np.mean(value_R > stats.t.ppf(0.975, df_R) * np.sqrt(v1 + v2))
    assert power == pytest.approx(0.80, abs=0.04)
    half = np.mean(value_R - true / 2 > stats.t.ppf(0.975, df_R) * np.sqrt(v1 + v2))
    assert half < 0.45


def test_the_power_is_that_of_the_noncentral_t() -> None:
    """Seeds alone: five of them and a t of 4 degrees of freedom, as scipy has it."""
    found = detectable_by(Uncertainty(0.01, 4.0, 0.0, 600))
    assert 1 - stats.nct.cdf(stats.t.ppf(0.975, 4), 4, found / 0.01) == pytest.approx(0.80, abs=1e-3)
    many = detectable_by(Uncertainty(0.01, 5_000.0, 0.0, 600))
    assert many == pytest.approx((stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * 0.01, rel=1e-3)
    assert detectable_by(Uncertainty(0.0, 4.0, 0.0, 600)) == 0.0


def test_seeds_needed_is_the_first_number_that_detects_the_margin() -> None:
    alone = seeds_needed(0.02, seed_sd=0.031, examples_error=0.0, units=600)
    counts = [
        count
        for count in range(3, 60)
        if 1 - stats.nct.cdf(stats.t.ppf(0.975, count - 1), count - 1, 0.02 / 0.031 * np.sqrt(count)) >= 0.80
    ]
    assert alone == counts[0] == 21
    sampled = seeds_needed(0.02, seed_sd=0.031, examples_error=0.005, units=2_400)
    assert sampled is not None
    assert sampled > 1.5 * alone
    assert detectable_by(Uncertainty(0.031 / sampled**0.5, sampled - 1.0, 0.005, 2_400)) <= 0.02
    assert detectable_by(Uncertainty(0.031 / (sampled - 1) ** 0.5, sampled - 2.0, 0.005, 2_400)) > 0.02
    assert seeds_needed(0.02, seed_sd=0.031, examples_error=0.01, units=600) is None  # not even MOST_SEEDS
    assert detectable_by(Uncertainty(0.031 / MOST_SEEDS**0.5, MOST_SEEDS - 1.0, 0.01, 600)) > 0.02
