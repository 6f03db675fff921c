"""Masks: hand-computed counts, ties, floors of one, brute force, and properties of every mask."""

from __future__ import annotations

from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from softprune.pruning.masks import (
    _at_least_one_each,
    complement,
    keep_count,
    piece_mask,
    random_mask,
    token_mask,
    top,
    without_least,
    without_most,
    without_random,
)
from softprune.types import Mask

TENTHS = [tenth / 10 for tenth in range(1, 10)]


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def prune(
    token_importance_P: torch.Tensor,
    piece_importance_PS: torch.Tensor,
    token_ratio: float,
    piece_ratio: float,
    scope: str = "global",
    rounding: str = "nearest",
) -> Mask:
    """Both levels, as a search prunes them one after the other."""
    token_P = token_mask(token_importance_P, token_ratio, rounding)
    return Mask(token_P, piece_mask(piece_importance_PS, token_P, piece_ratio, scope, rounding))


# --- counts ---


@pytest.mark.parametrize(
    ("ratio", "n", "nearest", "floor"),
    [
        (0.1, 20, 18, 18),
        (0.3, 20, 14, 14),
        (0.9, 20, 2, 2),
        (0.1, 16, 14, 14),  # 14.4
        (0.3, 16, 11, 11),  # 11.2
        (0.2, 16, 13, 12),  # 12.8
        (0.1, 224, 202, 201),  # 14 tokens of 16 pieces: 201.6
        (0.9, 5, 1, 0),  # exactly half a token; in binary 1 - 0.9 is less than 0.1
        (0.7, 5, 2, 1),  # 1.5
        (0.3, 5, 4, 3),  # 3.5
        (0.0, 7, 7, 7),
        (0.995, 100, 1, 0),  # 0.5
        (1e-5, 50_000, 50_000, 49_999),  # 49999.5
        (0.1 * 3, 5, 4, 3),  # 3.5: three tenths, though 0.30000000000000004 in a float
        (1 - 0.9, 5, 5, 4),  # 4.5: 0.09999999999999998
        (0.7 + 0.1 + 0.1, 5, 1, 0),  # 0.5: 0.8999999999999999
        (1 / 6, 3, 3, 2),  # 2.5
        (1 - 1 / 3, 3, 1, 1),  # 1, under floor too: 0.6666666666666667
    ],
)
def test_counts_by_hand(ratio: float, n: int, nearest: int, floor: int) -> None:
    assert (keep_count(ratio, n), keep_count(ratio, n, "floor")) == (nearest, floor)


def test_binary_fractions_would_count_wrong() -> None:
    """Negative control: the same formula in floating point loses a token somewhere on the paper's ratios."""
    wrong = [(r, n) for r in TENTHS for n in range(1, 400) if int((1 - r) * n + 0.5) != keep_count(r, n)]
    assert wrong
    assert [(r, n) for r in TENTHS for n in range(1, 400) if int((1 - r) * n) != keep_count(r, n, "floor")]


@given(st.decimals("0.001", "0.999", places=3), st.integers(1, 2000))
def test_counts_are_exact_decimals(ratio: Decimal, n: int) -> None:
    left = (1 - ratio) * n
    assert keep_count(float(ratio), n) == int(left.to_integral_value(ROUND_HALF_UP))
    assert keep_count(float(ratio), n, "floor") == int(left.to_integral_value(ROUND_FLOOR))


# --- what is kept ---


def test_the_most_important_stay_and_ties_go_to_the_lower_index() -> None:
    assert top(torch.tensor([1.0, 3.0, 2.0, 3.0]), 2).tolist() == [False, True, False, True]
    assert top(torch.tensor([1.0, 2.0, 2.0, 2.0]), 2).tolist() == [False, True, True, False]
    assert top(torch.zeros(100), 40).tolist() == [True] * 40 + [False] * 60


def test_a_token_mask_keeps_at_least_one() -> None:
    assert token_mask(torch.tensor([1.0, 5.0, 2.0]), 0.9).tolist() == [False, True, False]
    assert token_mask(torch.tensor([1.0, 5.0, 2.0]), 0.5, "floor").tolist() == [False, True, False]
    assert token_mask(torch.tensor([1.0, 5.0, 2.0]), 0.5).tolist() == [False, True, True]


def test_negative_scores_are_scores() -> None:
    """Leaving a token out can help: it goes first."""
    assert token_mask(torch.tensor([-2.0, 0.0, -1.0, 3.0]), 0.5).tolist() == [False, True, False, True]


IMPORTANCE = torch.tensor(
    [
        [9.0, 8.0, 7.0, 6.0],
        [99.0, 99.0, 99.0, 99.0],  # pruned
        [0.4, 0.3, 0.2, 0.1],
        [5.0, 1.0, 1.0, 4.0],
    ]
)
KEPT = torch.tensor([True, False, True, True])


def test_global_pieces_by_hand() -> None:
    """Half of 12 pieces: 9 8 7 6 5 and 0.4, the best of a token that would have none."""
    assert piece_mask(IMPORTANCE, KEPT, 0.5).int().tolist() == [[1, 1, 1, 1], [0] * 4, [1, 0, 0, 0], [1, 0, 0, 0]]


def test_per_token_pieces_by_hand() -> None:
    found = piece_mask(IMPORTANCE, KEPT, 0.5, "per_token")
    assert found.int().tolist() == [[1, 1, 0, 0], [0] * 4, [1, 1, 0, 0], [1, 0, 0, 1]]
    found = piece_mask(IMPORTANCE, KEPT, 0.3, "per_token")  # 2.8, and the tie of 1 and 1
    assert found.int().tolist() == [[1, 1, 1, 0], [0] * 4, [1, 1, 1, 0], [1, 1, 0, 1]]
    found = piece_mask(IMPORTANCE, KEPT, 0.3, "per_token", "floor")
    assert found.int().tolist() == [[1, 1, 0, 0], [0] * 4, [1, 1, 0, 0], [1, 0, 0, 1]]


@pytest.mark.parametrize("scope", ["global", "per_token"])
def test_every_kept_token_keeps_a_piece(scope: str) -> None:
    assert piece_mask(IMPORTANCE, KEPT, 0.9, scope).int().tolist() == [
        [1, 0, 0, 0],
        [0] * 4,
        [1, 0, 0, 0],
        [1, 0, 0, 0],
    ]


def test_a_level_that_is_off_keeps_everything() -> None:
    assert bool(prune(drawn(4), IMPORTANCE, 0.0, 0.0).piece_PS.all())
    assert prune(drawn(4), IMPORTANCE, 0.0, 0.5).tokens == 4
    mask = prune(drawn(4), IMPORTANCE, 0.5, 0.0)
    assert (mask.tokens, mask.pieces) == (2, 8)


@pytest.mark.parametrize("rounding", ["nearest", "floor"])
@pytest.mark.parametrize(("token_ratio", "tokens", "percent"), [(0.3, 14, 61), (0.1, 18, 79)])
def test_the_bart_study(token_ratio: float, tokens: int, percent: int, rounding: str) -> None:
    """20 tokens of 16 pieces, 10% of the pieces pruned: 14 of 16 in each token (14.4, whatever the rounding)."""
    hidden = 768
    mask = prune(drawn(20), drawn(20, 16), token_ratio, 0.1, "per_token", rounding)
    assert mask.tokens == tokens
    assert mask.pieces == tokens * 14
    assert set(mask.piece_PS.sum(1).tolist()) == {0, 14}
    assert int(100 * mask.parameters(hidden) / (20 * hidden) + 0.5) == percent


def test_the_bart_study_was_not_global() -> None:
    """One ranking over all pieces leaves 63% and 81%: negative control of the test above."""
    shares = [prune(drawn(20), drawn(20, 16), ratio, 0.1).pieces / 320 for ratio in (0.3, 0.1)]
    assert [int(100 * share + 0.5) for share in shares] == [63, 81]


# --- against brute force ---


def best_subset(rows: torch.Tensor, count: int) -> set[tuple[int, int]]:
    """Of all choices of `count` places that leave no row empty, the one of the largest sum."""
    height, width = rows.shape
    places = [(i, j) for i in range(height) for j in range(width)]
    allowed = (c for c in combinations(places, count) if {i for i, _ in c} == set(range(height)))
    return set(max(allowed, key=lambda chosen: sum(float(rows[place]) for place in chosen)))


@pytest.mark.parametrize(("height", "width"), [(1, 4), (2, 3), (3, 3), (4, 2), (3, 4)])
@pytest.mark.parametrize("seed", range(4))
def test_one_piece_a_token_costs_as_little_as_it_can(height: int, width: int, seed: int) -> None:
    rows = drawn(height, width, seed=seed) * (10.0 ** torch.arange(height))[:, None]  # rows of very different sizes
    forced = 0
    for count in range(height, height * width + 1):
        kept = _at_least_one_each(rows, count)
        found = {(i, j) for i, j in kept.nonzero().tolist()}
        assert found == best_subset(rows, count)
        forced += found != {divmod(i, width) for i in top(rows.flatten(), count).nonzero()[:, 0].tolist()}
    assert forced or height == 1, "the rule was never needed"


def test_fewer_places_than_rows_still_leave_one_each() -> None:
    assert _at_least_one_each(torch.tensor([[1.0, 2.0], [9.0, 8.0]]), 1).int().tolist() == [[0, 1], [1, 0]]


# --- properties ---

ratios = st.sampled_from([0.0, *TENTHS, 0.01, 0.99])


@st.composite
def cases(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    tokens, pieces = draw(st.integers(1, 7)), draw(st.integers(1, 6))
    # Few distinct values, so that ties are common.
    values = draw(st.lists(st.integers(0, 5), min_size=tokens * (pieces + 1), max_size=tokens * (pieces + 1)))
    numbers = torch.tensor(values, dtype=torch.float64)
    return numbers[:tokens], numbers[tokens:].view(tokens, pieces)


@settings(deadline=None)
@given(cases(), ratios, ratios, st.sampled_from(["global", "per_token"]), st.sampled_from(["nearest", "floor"]))
def test_properties_of_every_mask(
    case: tuple[torch.Tensor, torch.Tensor], token_ratio: float, piece_ratio: float, scope: str, rounding: str
) -> None:
    token_importance_P, piece_importance_PS = case
    mask = prune(token_importance_P, piece_importance_PS, token_ratio, piece_ratio, scope, rounding)
    tokens, pieces = piece_importance_PS.shape
    assert mask.tokens == max(1, keep_count(token_ratio, tokens, rounding))
    assert torch.equal(mask.piece_PS.any(1), mask.token_P), "a piece survives exactly in the kept tokens"
    if scope == "per_token":
        assert set(mask.piece_PS.sum(1).tolist()) <= {0, max(1, keep_count(piece_ratio, pieces, rounding))}
    else:
        assert mask.pieces == max(mask.tokens, keep_count(piece_ratio, mask.tokens * pieces, rounding))
    kept, gone = token_importance_P[mask.token_P], token_importance_P[~mask.token_P]
    assert gone.numel() == 0 or kept.min() >= gone.max()
    for row, row_mask in zip(piece_importance_PS[mask.token_P], mask.piece_PS[mask.token_P], strict=True):
        assert row_mask.all() or row[row_mask].min() >= row[~row_mask].max()


@settings(deadline=None, max_examples=30)
@given(cases(), ratios)
def test_pruning_more_keeps_a_part_of_what_pruning_less_kept(
    case: tuple[torch.Tensor, torch.Tensor], ratio: float
) -> None:
    token_importance_P, piece_importance_PS = case
    alive = torch.ones_like(token_importance_P, dtype=torch.bool)
    for more in [r for r in TENTHS if r > ratio]:
        assert not (token_mask(token_importance_P, more) & ~token_mask(token_importance_P, ratio)).any()
        for scope in ("global", "per_token"):
            fewer = piece_mask(piece_importance_PS, alive, more, scope)
            assert not (fewer & ~piece_mask(piece_importance_PS, alive, ratio, scope)).any()


@settings(deadline=None)
@given(cases(), ratios, ratios, st.integers(0, 5))
def test_a_random_mask_has_both_counts(
    case: tuple[torch.Tensor, torch.Tensor], token_ratio: float, piece_ratio: float, seed: int
) -> None:
    like = prune(*case, token_ratio, piece_ratio)
    found = random_mask(like, seed)
    assert (found.tokens, found.pieces) == (like.tokens, like.pieces)
    assert torch.equal(found.piece_PS.any(1), found.token_P)
    again = random_mask(like, seed)
    assert torch.equal(found.piece_PS, again.piece_PS)


def test_random_masks_of_other_seeds_differ_and_reach_every_place() -> None:
    like = prune(drawn(6), drawn(6, 4), 0.5, 0.5)
    masks = [random_mask(like, seed) for seed in range(200)]
    assert len({tuple(m.piece_PS.flatten().tolist()) for m in masks}) > 150
    often = torch.stack([m.piece_PS.double() for m in masks]).mean(0)
    # Each of 24 places is kept in a quarter of the masks; 0.03 is one standard error.
    assert float(often.min()) > 0.1
    assert float(often.max()) < 0.4


def test_size_of_a_mask() -> None:
    mask = Mask(torch.tensor([True, False]), torch.tensor([[True, False], [False, False]]))
    assert (mask.tokens, mask.pieces, mask.parameters(6)) == (1, 1, 3)
    assert mask.elements_PH(6).int().tolist() == [[1, 1, 1, 0, 0, 0], [0] * 6]


# --- other masks, by which masks are judged ---


def test_the_complement_by_hand() -> None:
    mask = Mask(torch.tensor([True, False, True]), torch.tensor([[1, 0], [0, 0], [1, 1]], dtype=torch.bool))
    other = complement(mask)
    assert other is not None
    assert other.piece_PS.int().tolist() == [[0, 1], [1, 1], [0, 0]]
    assert other.token_P.tolist() == [True, True, False]
    back = complement(other)
    assert back is not None
    assert torch.equal(back.piece_PS, mask.piece_PS)
    assert not torch.equal(other.token_P, ~mask.token_P)  # a kept token that lost a piece is on both sides


def test_nothing_pruned_has_no_complement() -> None:
    assert complement(Mask(torch.ones(2, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool))) is None


def test_least_and_most_by_hand() -> None:
    importance = torch.tensor([0.3, -0.1, 0.9, 0.3])
    assert without_least(importance, 1, 2).piece_PS.int().tolist() == [[1, 1], [0, 0], [1, 1], [1, 1]]
    assert without_least(importance, 2, 2).token_P.tolist() == [True, False, True, False]  # the tie's higher index goes
    assert without_most(importance, 1, 2).token_P.tolist() == [True, True, False, True]
    assert without_most(importance, 2, 2).token_P.tolist() == [False, True, False, True]  # the tie's lower index goes


def test_least_is_the_searchs_token_mask() -> None:
    importance = drawn(20)
    for ratio, pruned in ((0.3, 6), (0.6, 12), (0.9, 18)):
        assert torch.equal(without_least(importance, pruned, 4).token_P, token_mask(importance, ratio))
        assert not torch.equal(without_most(importance, pruned, 4).token_P, token_mask(importance, ratio))


def test_random_tokens_are_so_many_and_the_seeds() -> None:
    masks = [without_random(20, 6, 4, seed) for seed in range(200)]
    assert {mask.tokens for mask in masks} == {14}
    assert all(torch.equal(mask.piece_PS.all(1), mask.token_P) for mask in masks)
    assert torch.equal(masks[3].token_P, without_random(20, 6, 4, 3).token_P)
    assert not torch.equal(masks[3].token_P, masks[4].token_P)
    pruned = torch.stack([~mask.token_P for mask in masks]).double().mean(0)
    assert pruned.min() > 0.15  # each of them is pruned 30% of the time, with a standard deviation of 3%
    assert pruned.max() < 0.45
