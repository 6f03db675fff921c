"""Simulated coverage: the interval over seeds and examples holds its level, that by example alone does not."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from samples import pairwise
from softprune.data.metrics import Accuracy
from softprune.statistics.bootstrap import paired_bootstrap
from softprune.statistics.seeds import compare_rows

pytestmark = pytest.mark.slow

TRIALS = 2_500
NOISE = 2 * (0.05 * 0.95 / TRIALS) ** 0.5  # two standard errors of a coverage of 95%: 0.9 points


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    path = Path(__file__).parents[2] / "scripts" / "simulate_intervals.py"
    spec = importlib.util.spec_from_file_location("simulate_intervals", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("seeds", "examples", "spread"), pairwise([3, 5, 8], [100, 300, 600], [0.0, 0.015, 0.03]))
def test_the_interval_holds_its_level(simulation: ModuleType, seeds: int, examples: int, spread: float) -> None:
    """Where examples, not chance, decide most answers: 93% to 97.5% in every cell."""
    world = simulation.World(seeds, examples, spread, both=0.65, arm=0.3)
    _, after = simulation.coverage(world, TRIALS, seeds * examples)
    assert 0.93 - NOISE <= after <= 0.975 + NOISE


@pytest.mark.parametrize("seeds", [3, 8])
@pytest.mark.parametrize("spread", [0.0, 0.03])
def test_it_is_never_much_too_narrow_and_somewhat_wide_where_seeds_hardly_matter(
    simulation: ModuleType, seeds: int, spread: float
) -> None:
    """With more chance in single answers, whose noise both parts hold: up to 98.5%."""
    _, after = simulation.coverage(simulation.World(seeds, 600, spread), TRIALS, seeds)
    assert 0.93 - NOISE <= after <= 0.985 + NOISE


@pytest.mark.parametrize(("spread", "expected"), [(0.015, 0.80), (0.02, 0.73), (0.03, 0.59)])
def test_the_interval_by_example_does_not(simulation: ModuleType, spread: float, expected: float) -> None:
    """What was measured before, for 3 seeds and 600 examples; without a seed effect it holds."""
    before, _ = simulation.coverage(simulation.World(3, 600, spread), TRIALS, 1)
    assert before == pytest.approx(expected, abs=0.03)
    unvarying, _ = simulation.coverage(simulation.World(3, 600, 0.0), TRIALS, 1)
    assert 0.93 <= unvarying <= 0.97


def test_groups_that_share_text_must_be_said(simulation: ModuleType) -> None:
    world = simulation.World(5, 600, 0.015, group=25, alike=0.5)
    _, told = simulation.coverage(world, TRIALS, 2)
    assert 0.93 - NOISE <= told <= 0.975 + NOISE
    (drawn,) = simulation.draw(world, TRIALS, 2)
    apart = simulation.Drawn(drawn.seeds_RS, simulation.ungrouped(world, TRIALS, 2), 600)
    assert np.mean(np.abs(drawn.mean_R) <= simulation.reaches(apart)) < 0.85


@pytest.mark.parametrize("spread", [0.0, 0.03])
def test_two_looks_are_rarely_wrong(simulation: ModuleType, spread: float) -> None:
    """At a true difference of minus the margin either decision is the wrong one for somebody: at most 5% each."""
    world = simulation.World(10, 600, spread, difference=-0.01)
    once = simulation.shipped(world, 0.01, TRIALS, 3, looks=(5,))
    twice = simulation.shipped(world, 0.01, TRIALS, 3)
    assert max(twice) <= 0.05
    assert all(second >= first for first, second in zip(once, twice, strict=True))
    far = simulation.World(10, 600, spread, difference=0.1)
    ticket, whole = simulation.shipped(far, 0.01, 200, 3)
    assert ticket > 0.95
    assert whole == 0.0


def test_what_is_simulated_is_what_compare_rows_and_the_bootstrap_find(simulation: ModuleType) -> None:
    """The cheap error of examples against 10,000 resamples; the intervals of both kinds against the real functions."""
    world = simulation.World(4, 150, 0.03, difference=0.03)
    less_RSN = simulation._less(world, 3, np.random.default_rng(5))
    drawn = simulation._drawn(world, less_RSN)
    reaches, score = simulation.reaches(drawn), Accuracy().score
    for trial, less_SN in enumerate(less_RSN):
        ours, theirs = (np.stack([less_SN == side, np.ones_like(less_SN)], axis=-1).astype(float) for side in (1, -1))
        found = compare_rows(list(ours), list(theirs), score, seed=trial)
        assert found.value == pytest.approx(drawn.mean_R[trial])
        assert found.se_examples == pytest.approx(drawn.examples_error_R[trial], rel=0.03)
        assert (found.high - found.low) / 2 == pytest.approx(reaches[trial], rel=0.03)
        old = paired_bootstrap(list(ours), list(theirs), score, seed=trial)
        assert (old.high - old.low) / 2 == pytest.approx(simulation.Z * drawn.examples_error_R[trial], rel=0.06)
