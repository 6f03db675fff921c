"""Search: the ratio lists, the groups, the winner and the Pareto front."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprune.errors import SoftpruneError
from softprune.pruning.search import choose, first_ratios, foresight, in_groups, pareto
from softprune.types import Candidate


def made(name: str, parameters: int, select: float | None, loss: float = 1.0, tokens: int = 1) -> Candidate:
    return Candidate(name, 0.1, 0.1, tokens, tokens, parameters, select=select, select_loss=loss)


TOKENS, PIECES = (0.1, 0.5, 0.9), (0.2, 0.4)


def pairs_of(strategy: str, levels: str = "both", samples: int = 12, seed: int = 0) -> list[tuple[float, float]]:
    return first_ratios(strategy, levels, TOKENS, PIECES, samples, seed)


def test_the_grid_pairs_every_ratio_with_every_other() -> None:
    assert pairs_of("grid") == [(0.1, 0.2), (0.1, 0.4), (0.5, 0.2), (0.5, 0.4), (0.9, 0.2), (0.9, 0.4)]


def test_sequential_begins_with_the_token_ratios_alone() -> None:
    assert pairs_of("sequential") == [(0.1, 0.0), (0.5, 0.0), (0.9, 0.0)]


@pytest.mark.parametrize("strategy", ["grid", "sequential", "random"])
def test_a_level_that_is_off_has_ratio_zero(strategy: str) -> None:
    assert pairs_of(strategy, "token") == [(0.1, 0.0), (0.5, 0.0), (0.9, 0.0)]
    assert pairs_of(strategy, "piece") == [(0.0, 0.2), (0.0, 0.4)]


def test_random_draws_different_pairs_of_the_grid_by_its_seed() -> None:
    grid = pairs_of("grid")
    assert pairs_of("random", samples=6) == pairs_of("random", samples=7) == grid
    draws = [pairs_of("random", samples=2, seed=seed) for seed in range(40)]
    assert all(len(set(draw)) == 2 and set(draw) <= set(grid) for draw in draws)
    assert {pair for draw in draws for pair in draw} == set(grid)
    assert pairs_of("random", samples=2, seed=3) == draws[3]
    assert len({tuple(draw) for draw in draws}) > 5
    assert all(draw == sorted(draw) for draw in draws), "in the grid's order"


# --- the winner ---


def test_best_is_the_highest_score_then_the_smaller_then_the_lower_loss() -> None:
    """In this order the winner is always on the Pareto front."""
    assert choose([made("a", 1, 0.8), made("b", 9, 0.9)], "best").id == "b"
    assert choose([made("a", 1, 0.9, 0.5), made("b", 9, 0.9, 0.4)], "best").id == "a"
    assert choose([made("a", 9, 0.9), made("b", 1, 0.9)], "best").id == "b"
    assert choose([made("a", 9, 0.9, 0.5), made("b", 9, 0.9, 0.4)], "best").id == "b"
    assert choose([made("a", 9, 0.9), made("b", 9, 0.9)], "best").id == "a"


LADDER = [made("xl", 100, 0.90), made("l", 80, 0.88), made("m", 60, 0.85), made("s", 40, 0.80), made("?", 1, None)]


@pytest.mark.parametrize(
    ("error", "winner"),
    [(0.0, "xl"), (0.0199, "xl"), (0.02, "l"), (0.0499, "l"), (0.05, "m"), (0.0999, "m"), (0.10, "s"), (1.0, "s")],
)
def test_one_se_takes_the_smallest_within_one_standard_error(error: float, winner: str) -> None:
    """Bounds count as within: 0.90 - 0.05 is 0.85 in words, if not in binary."""
    assert choose(LADDER, "one_se", error).id == winner
    assert choose(LADDER, "smallest_within", 9.0, error).id == winner
    assert choose(LADDER, "best", 9.0, 9.0).id == "xl"


def test_a_score_at_the_bound_counts_as_within_it() -> None:
    assert 0.8 - 0.1 > 0.7, "in binary it would fall out"
    assert choose([made("a", 9, 0.8), made("b", 5, 0.7)], "one_se", 0.1).id == "b"
    assert choose([made("a", 9, 0.8), made("b", 5, 0.6999)], "one_se", 0.1).id == "a"


def test_of_equally_small_ones_the_better_wins() -> None:
    same = [made("a", 5, 0.80), made("b", 5, 0.85, 0.9), made("c", 5, 0.85, 0.2), made("d", 9, 0.9)]
    assert choose(same, "one_se", 0.5).id == "c"
    assert choose([*same, made("e", 5, 0.85, 0.2)], "one_se", 0.5).id == "c"


def test_a_smaller_one_that_is_as_good_wins_without_any_slack() -> None:
    tied = [made("a", 9, 0.9, 0.1), made("b", 5, 0.9, 0.3)]
    assert choose(tied, "one_se", 0.0).id == choose(tied, "best").id == "b"
    better = [made("a", 9, 0.91, 0.1), made("b", 5, 0.9, 0.3)]
    assert choose(better, "one_se", 0.0).id == choose(better, "best").id == "a"


@pytest.mark.parametrize("candidates", [[], [made("a", 1, None)]])
def test_nothing_to_choose_from(candidates: list[Candidate]) -> None:
    with pytest.raises(SoftpruneError, match="at least one trained candidate"):
        choose(candidates, "best")


def test_an_unknown_objective_is_a_bug() -> None:
    with pytest.raises(KeyError):
        choose(LADDER, "largest")


scores = st.sampled_from([None, 0.5, 0.6, 0.7])
some = st.lists(st.tuples(st.integers(1, 5), scores), min_size=1, max_size=8)


def named(rows: list[tuple[int, float | None]]) -> list[Candidate]:
    return [made(str(i), size, score) for i, (size, score) in enumerate(rows)]


@given(some)
def test_the_front_against_brute_force(rows: list[tuple[int, float | None]]) -> None:
    """On the front: no measured candidate is no larger, no worse, and one of both for real."""
    measured = [(i, size, score) for i, (size, score) in enumerate(rows) if score is not None]
    front = set()
    for i, size, score in measured:
        smaller = any(s < size and q >= score for _, s, q in measured)
        better = any(s <= size and q > score for _, s, q in measured)
        if not smaller and not better:
            front.add(str(i))
    assert pareto(named(rows)) == front


@given(some, st.sampled_from([0.0, 0.05, 0.1, 0.3]), st.sampled_from(["best", "one_se", "smallest_within"]))
def test_the_winner_lies_on_the_front(rows: list[tuple[int, float | None]], slack: float, objective: str) -> None:
    candidates = named(rows)
    if pareto(candidates):
        assert choose(candidates, objective, slack, slack).id in pareto(candidates)


# --- groups ---


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.integers(1, 5))
def test_groups_hold_every_candidate_once(lengths: list[int], size: int) -> None:
    for removal in ("zero", "drop"):
        groups = list(in_groups(lengths, size, removal))
        assert sorted(place for group in groups for place in group) == list(range(len(lengths)))
        assert all(1 <= len(group) <= size for group in groups)
    mixed = [len({lengths[place] for place in group}) for group in in_groups(lengths, size, "drop")]
    assert set(mixed) == {1}, "under drop, prompts of one length only"


def test_zero_may_mix_lengths_and_drop_may_not() -> None:
    assert list(in_groups([3, 2, 3, 2], 3, "zero")) == [[0, 1, 2], [3]]
    assert list(in_groups([3, 2, 3, 2], 3, "drop")) == [[1, 3], [0, 2]]


def test_foresight_is_rank_correlation_and_regret() -> None:
    known = [(0.9, 0.50), (0.2, 0.70), (0.5, 0.80), (0.7, 0.60)]
    candidates = [replace(made(str(i), 5, score), rank_loss=loss) for i, (loss, score) in enumerate(known)]
    found = foresight([*candidates, replace(made("never trained", 5, None), rank_loss=0.1)])
    assert found is not None
    # by hand: ranks by loss 4 1 2 3, by score from the top 4 2 1 3; 1 - 6 * (0 + 1 + 1 + 0) / (4 * 15)
    assert abs((found.spearman or 0.0) - 0.8) <= 1e-12
    assert abs((found.regret or 0.0) - 0.1) <= 1e-12
    assert found.candidates == 4
    turned = foresight([replace(c, rank_loss=-(c.rank_loss or 0.0)) for c in candidates])
    assert turned is not None
    assert abs((turned.spearman or 0.0) + 0.8) <= 1e-12
    assert foresight(candidates[:2]) is None
    alike = foresight([replace(c, select=0.5) for c in candidates])
    assert alike is not None
    assert alike.spearman is None


def test_one_se_goes_by_each_candidates_own_standard_error() -> None:
    ladder = [made("a", 9, 0.8), made("b", 5, 0.75), made("c", 1, 0.7)]
    assert choose(ladder, "one_se", {"a": 0.0, "b": 0.05, "c": 0.0999}).id == "b"
    assert choose(ladder, "one_se", {"a": 0.0, "b": 0.05, "c": 0.1}).id == "c"
    assert choose(ladder, "one_se", {"b": 0.04}).id == "a"
