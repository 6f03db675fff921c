"""Thresholds, soft masks and ranks, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from encoders import OURS

from softprune.token_pruning.rules import (
    OFFICIAL,
    OFFICIAL_LENGTH,
    AliveTokens,
    Convention,
    KeepAll,
    Ranked,
    Thresholds,
    text_key,
)


def alive_of(
    layer: int,
    lengths: list[int],
    originals: list[int] | None = None,
    *,
    protect: bool = True,
    keys: list[int] | None = None,
) -> AliveTokens:
    row_M = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    position_M = torch.cat([torch.arange(n) for n in lengths])
    return AliveTokens(
        layer, row_M, position_M, lengths, originals or lengths, keys or list(range(len(lengths))), protect
    )


def test_units_of_the_two_conventions() -> None:
    assert OURS.least == pytest.approx(1.28e-3)
    assert OFFICIAL.least == 1e-5
    assert (OURS.protect, OFFICIAL.protect) == (True, False)


def test_threshold_by_hand() -> None:
    rule = Thresholds(4, 0.02, 1e-3, OFFICIAL)
    assert rule.delta_L.dtype == torch.float32
    assert rule.values() == pytest.approx([0, 0.005, 0.01, 0.015])
    with torch.no_grad():
        rule.delta_L.copy_(torch.tensor([7.0, 0.001, 0, -0.002]))
    assert rule.values() == pytest.approx([0, 0.006, 0.01, 0.013])  # the first layer has none
    assert [rule.prunes(layer) for layer in range(4)] == [False, True, True, True]
    rule.theta(3).backward()
    assert rule.delta_L.grad is not None
    assert rule.delta_L.grad.tolist() == [0, 0, 0, 1]


def test_soft_mask_by_hand() -> None:
    rule = Thresholds(4, 0.02, 1e-3, OFFICIAL)
    found = rule.soft(2, torch.tensor([0.01, 0.011, 0.008, 0.1]))
    assert found.tolist() == pytest.approx([0.5, 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(2)), 1.0], rel=1e-4)


def test_hard_cut_and_its_least() -> None:
    for convention in (OURS, OFFICIAL):
        unit = OFFICIAL_LENGTH / convention.divisor
        rule = Thresholds(2, 0.02 * unit, 1e-3, convention)
        alive = alive_of(1, [4])
        score_M = torch.tensor([0.0, 0.0099, 0.01, 0.011]) * unit
        assert rule.keep_mask(alive, score_M).tolist() == [False, False, True, True]
        with torch.no_grad():
            rule.delta_L[1] = -1.0 * unit
        score_M = torch.tensor([0.0, 0.9e-5, 1.1e-5, 0.011]) * unit
        assert rule.keep_mask(alive, score_M).tolist() == [False, False, True, True]


def test_official_and_relative_units_cut_alike() -> None:
    """The same figures times 128 over the same scores times 128, which is exact in floating point."""
    score_M = torch.rand(50, generator=torch.Generator().manual_seed(0)) / 32
    alive = alive_of(1, [50])
    official = Thresholds(2, 0.02, 1e-3, OFFICIAL)
    ours = Thresholds(2, 0.02 * OFFICIAL_LENGTH, 1e-3 * OFFICIAL_LENGTH, OURS)
    assert torch.equal(official.keep_mask(alive, score_M), ours.keep_mask(alive, score_M * 128))
    assert torch.allclose(official.soft(1, score_M), ours.soft(1, score_M * 128), rtol=1e-5)
    assert not torch.equal(official.keep_mask(alive, score_M), ours.keep_mask(alive, score_M * 100))


def test_everything_keeps_everything() -> None:
    rule = KeepAll()
    assert not rule.scored
    assert not rule.prunes(3)
    assert rule.keep_mask(alive_of(1, [2, 3]), None).tolist() == [True] * 5


@pytest.mark.parametrize(
    ("layers", "shares"),
    [
        (6, [1, 1, 1, 0.7, 0.4, 0.1]),
        (12, [1, 1, 1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
        (24, [1, 1, 1, 1, *(1 - 0.9 * n / 20 for n in range(1, 21))]),  # ceil(0.15 * 24) = 4 keep all
    ],
)
def test_schedule_of_ranks_by_hand(layers: int, shares: list[float]) -> None:
    rule = Ranked(layers, 0.1)
    assert [rule.share(layer) for layer in range(layers)] == pytest.approx(shares)
    assert [rule.prunes(layer) for layer in range(layers)] == [share < 1 for share in shares]


def test_ranks_of_a_rate_made_by_arithmetic() -> None:
    """Three tenths of 15 tokens are 4.5, a tie that goes to the even number; in floats the share is above 0.3."""
    assert [Ranked(6, rate).kept(5, 15) for rate in (0.3, 0.1 * 3)] == [4, 4]


@pytest.mark.parametrize("order", ["importance", "random", "first"])
def test_ranks_count_from_the_original_length(order: str) -> None:
    rule = Ranked(6, 0.1, order)  # type: ignore[arg-type]
    # Of 20 and 10 tokens at the beginning, 14 and 7 are left; 40% of 20 and 10 stay, not of 14 and 7.
    alive = alive_of(4, [14, 7], [20, 10])
    stays_M = rule.keep_mask(alive, torch.rand(21, generator=torch.Generator().manual_seed(1)))
    assert [int(stays_M[:14].sum()), int(stays_M[14:].sum())] == [8, 4]
    # One always stays, and never more than there are.
    assert int(rule.keep_mask(alive_of(5, [2], [2]), torch.rand(2)).sum()) == 1
    assert int(rule.keep_mask(alive_of(3, [2], [20]), torch.rand(2)).sum()) == 2


def test_the_most_important_stay() -> None:
    rule = Ranked(6, 0.4)
    score_M = torch.tensor([0.1, 0.9, 0.5, 0.5, 0.7])
    alive = alive_of(5, [5])  # two of five
    assert rule.keep_mask(alive, score_M).tolist() == [True, True, False, False, False]  # the first is one of the two
    free = alive_of(5, [5], protect=False)
    assert rule.keep_mask(free, score_M).tolist() == [False, True, False, False, True]
    equal = torch.full((5,), 0.5)
    assert rule.keep_mask(free, equal).tolist() == [True, True, False, False, False]  # the earlier of equals


def test_first_tokens_stay() -> None:
    rule = Ranked(6, 0.4, "first")
    assert not rule.scored
    assert rule.keep_mask(alive_of(5, [5, 3]), None).tolist() == [True, True, False, False, False, True, False, False]


def test_a_draw_depends_on_the_text_and_the_seed_alone() -> None:
    def drawn(seed: int, keys: list[int], lengths: list[int], protect: bool = False) -> list[list[bool]]:
        stays_M = Ranked(6, 0.4, "random", seed).keep_mask(alive_of(5, lengths, keys=keys, protect=protect), None)
        return [part.tolist() for part in stays_M.split(lengths)]

    alone = drawn(0, [11], [30])
    assert drawn(0, [5, 11], [12, 30])[1:] == alone
    assert drawn(0, [11, 5], [30, 12])[:1] == alone
    assert drawn(1, [11], [30]) != alone
    assert drawn(0, [12], [30]) != alone
    assert drawn(0, [11], [30], protect=True)[0][0]
    assert sum(alone[0]) == 12


def test_who_was_drawn_out_does_not_come_back() -> None:
    """A draw is made once for a text: later layers choose among the same worths."""
    rule = Ranked(6, 0.1, "random", 2)
    before = alive_of(3, [20], keys=[7])
    left = rule.keep_mask(before, None)
    after = AliveTokens(4, before.row_M[left], before.position_M[left], [int(left.sum())], [20], [7])
    stays = rule.keep_mask(after, None)
    whole = rule.keep_mask(alive_of(4, [20], keys=[7]), None)
    assert after.position_M[stays].tolist() == whole.nonzero().flatten().tolist()


def test_keys_are_the_same_everywhere() -> None:
    assert text_key([]) == 0
    assert text_key([3, 17, 4]) == text_key((3, 17, 4)) == 0x3338B27D
    assert text_key([3, 17, 4]) != text_key([3, 4, 17])
    assert 0 <= text_key([70_000]) < 2**32


def test_a_convention_is_a_value() -> None:
    assert Convention(128, False) == OFFICIAL
