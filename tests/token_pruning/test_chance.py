from __future__ import annotations

import itertools
import random
from statistics import mean

import pytest
from fakes import make_trace

from softprune.token_pruning.analysis.random_baseline import RandomDropping

TEXT = "a b c d e"


def test_one_piece_is_kept_with_the_texts_own_share() -> None:
    chance = RandomDropping.like(make_trace(TEXT, [("a", 3), ("b", 1), ("c", 2), ("d", 3), ("e", 1)]))
    assert chance.kept(1) == pytest.approx(2 / 5)
    assert chance.left(1) == pytest.approx((3 + 1 + 2 + 3 + 1) / 5)


@pytest.mark.parametrize("pieces", [1, 2, 3, 4, 5])
def test_against_every_way_to_choose_the_pieces(pieces: int) -> None:
    left = [3, 1, 2, 3, 1]
    chance = RandomDropping.like(make_trace(TEXT, list(zip(TEXT.split(), left, strict=True))))
    largest = [max(chosen) for chosen in itertools.combinations(left, pieces)]
    assert chance.left(pieces) == pytest.approx(mean(largest))
    assert chance.kept(pieces) == pytest.approx(mean(value == 3 for value in largest))


def test_a_long_word_is_kept_more_often_by_chance_alone() -> None:
    generator = random.Random(0)
    trace = make_trace(TEXT, [(piece, generator.choice((1, 3))) for piece in TEXT.split()])
    assert RandomDropping.like(trace).kept(3) > RandomDropping.like(trace).kept(1)


def test_all_kept_and_none_kept() -> None:
    everything = RandomDropping.like(make_trace("a b", [("a", 3), ("b", 3)]))
    nothing = RandomDropping.like(make_trace("a b", [("a", 1), ("b", 1)]))
    assert (everything.kept(2), everything.left(1)) == (1.0, 3.0)
    assert (nothing.kept(2), nothing.left(1)) == (0.0, 1.0)
