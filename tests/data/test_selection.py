"""The three sets: apart, seeded, stratified, by whole passages."""

from __future__ import annotations

from collections import Counter

import pytest

from softprune.data import Splits, select_sets
from softprune.data.splits import _in_proportion
from softprune.errors import SoftpruneError
from softprune.types import Example, Segment


def examples(*golds, groups=None):
    return tuple(
        Example(
            id=str(i),
            index=i,
            segments=(Segment(f"text {i}"), Segment("", answer_slot=True)),
            answers=("a", "b", "c"),
            gold=gold,
            group=groups[i] if groups else None,
        )
        for i, gold in enumerate(golds)
    )


def splits(train, dev=None, validation=None, notes=()):
    return Splits(train, dev, validation, source="here", layout="official", verified=True, notes=notes)


FULL = splits(examples(*[0, 1] * 50), examples(0, 1), examples(*[0, 1, 1] * 20))


def golds(held):
    return Counter(example.gold for example in held)


def test_held_out_takes_dev_beside_validation():
    sets = select_sets(FULL, seed=0)
    assert (sets.train, sets.select, sets.report) == (FULL.train, FULL.dev, FULL.validation)
    assert sets.origin == {"train": "train", "select": "dev", "report": "validation"}


def test_held_out_without_dev_divides_train_by_label():
    sets = select_sets(splits(FULL.train, None, FULL.validation), fraction=0.2, seed=0)
    assert golds(sets.select) == {0: 10, 1: 10}
    assert golds(sets.train) == {0: 40, 1: 40}
    assert not set(sets.indices["train"]) & set(sets.indices["select"])
    assert sorted(sets.indices["train"] + sets.indices["select"]) == list(range(100))
    assert sets.origin["select"] == "train"


@pytest.mark.parametrize("fraction", [0.3, 0.1 * 3])
def test_a_fraction_made_by_arithmetic_is_the_one_that_was_meant(fraction):
    """Three tenths of 15 are 4.5, a tie that goes to the even number; `0.1 * 3 * 15` is above it."""
    sets = select_sets(splits(examples(*[0] * 15), None, examples(0)), "held-out", None, fraction, seed=0)
    assert (len(sets.train), len(sets.select)) == (11, 4)


def test_equal_remainders_go_to_lower_labels():
    """4/3, 1/3 and 1/3: in floats the remainder of the first is less than that of the others."""
    assert _in_proportion([4, 1, 1], 2) == [2, 0, 0]


def test_held_out_divides_train_when_dev_is_what_is_reported():
    sets = select_sets(splits(FULL.train, FULL.dev, None, ("no validation set",)), seed=0)
    assert sets.report == FULL.dev
    assert sets.origin == {"train": "train", "select": "train", "report": "dev"}
    assert "no validation set" in sets.description


def test_paper_selects_on_what_it_reports():
    sets = select_sets(FULL, "paper", seed=0)
    assert sets.select == sets.report == FULL.validation
    assert sets.train == FULL.train


def test_shots_are_even_over_labels_as_far_as_they_go():
    train = examples(*[0] * 50, *[1] * 50, *[2] * 3)
    sets = select_sets(splits(train, None, FULL.validation), "paper", shots=16, seed=0)
    assert golds(sets.train) == {0: 7, 1: 6, 2: 3}
    assert list(sets.indices["train"]) == sorted(sets.indices["train"])


def test_shots_are_divided_after_sampling():
    sets = select_sets(splits(FULL.train, None, FULL.validation), shots=20, fraction=0.2, seed=0)
    assert (len(sets.train), len(sets.select)) == (16, 4)


def test_more_shots_than_there_are_takes_all_and_says_so():
    sets = select_sets(FULL, shots=1000, seed=0)
    assert len(sets.train) == 100
    assert "1000 shots were asked for and all 100" in sets.description


def test_seeds_repeat_and_differ():
    first, again, other = (select_sets(FULL, shots=10, seed=seed).indices["train"] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_limited_report_is_said_and_leaves_the_rest_alone():
    whole, short = select_sets(FULL, shots=10, seed=3), select_sets(FULL, shots=10, seed=3, limit_report=7)
    assert len(short.report) == 7
    assert "7 of 60" in short.description
    assert short.train == whole.train


def test_passages_stay_on_one_side():
    groups = [str(i // 5) for i in range(60)]
    train = examples(*[0, 1, 0, 1, 1] * 12, groups=groups)
    for seed in range(5):
        sets = select_sets(splits(train, None, FULL.validation), shots=40, seed=seed)
        sides = [{example.group for example in held} for held in (sets.train, sets.select)]
        assert not sides[0] & sides[1]
        assert len(sets.train) + len(sets.select) == 40
        assert len(sets.select) in (5, 10)
    assert "40 shots" not in sets.description
    uneven = select_sets(splits(train, None, FULL.validation), shots=42, seed=0)
    assert "40 shots in whole groups, 42 were asked for" in uneven.description


def test_groups_of_one_label_are_drawn_label_by_label():
    golds = [label for label in (0, 1, 2, 2) for _ in range(10)]
    train = examples(*golds, groups=[str(i // 2) for i in range(40)])
    for seed in range(5):
        sets = select_sets(splits(train, None, FULL.validation), shots=30, fraction=0.4, seed=seed)
        assert Counter(e.gold for e in sets.train + sets.select) == {0: 10, 1: 10, 2: 10}
        assert Counter(e.gold for e in sets.select) == {0: 4, 1: 4, 2: 4}


def test_one_passage_cannot_be_divided():
    train = examples(0, 1, 0, groups=["p"] * 3)
    with pytest.raises(SoftpruneError, match="at least two training examples"):
        select_sets(splits(train, None, FULL.validation), seed=0)


@pytest.mark.parametrize("held", [splits(None, None, FULL.validation), splits(FULL.train)])
def test_absent_sets_are_told(held):
    with pytest.raises(SoftpruneError, match=r"no (training|validation or development) set in here"):
        select_sets(held, seed=0)
