"""Baselines at equal operations, and the scores of the table."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from samples import pairwise
from softprune.token_pruning.experiment import macro_f1, match_macs
from softprune.token_pruning.forward import relative_macs
from softprune.token_pruning.rules import Ranked

pytestmark = pytest.mark.slow

HIDDEN = 384
LENGTHS = {
    "one text": [200],
    "equal texts": [60] * 10,
    "short texts": [random.Random(0).randint(5, 20) for _ in range(16)],
    "mixed texts": [random.Random(1).randint(3, 512) for _ in range(20)],
}


def macs_of(rule: Ranked, lengths: list[int]) -> float:
    return relative_macs(HIDDEN, lengths, [[rule.kept(layer, n) for layer in range(rule.layers)] for n in lengths])


def encoder(layers: int) -> Any:
    return cast(Any, SimpleNamespace(layers=[None] * layers, hidden=HIDDEN))


@pytest.mark.parametrize(
    ("layers", "lengths", "order"), pairwise([6, 12], list(LENGTHS), ["importance", "first", "random"])
)
def test_a_rule_has_the_wanted_operations_within_a_token(layers: int, lengths: str, order: Any) -> None:
    texts = LENGTHS[lengths]
    floor = macs_of(Ranked(layers, 0.0, order), texts)
    token = len(texts) / sum(texts)
    for target in (0.95, 0.8, floor + 0.05):
        rule = match_macs(encoder(layers), texts, Ranked(layers, 0.0, order), target)
        assert abs(macs_of(rule, texts) - target) <= token, (target, rule)
        assert rule.whole_layers == Ranked(layers, 0.0).whole_layers
    with pytest.raises(AssertionError):  # the search does something
        assert abs(macs_of(Ranked(layers, 0.5, order), texts) - 0.95) <= token / 10


def test_fewer_layers_are_left_whole_where_the_papers_cost_too_much() -> None:
    texts, token = LENGTHS["mixed texts"], len(LENGTHS["mixed texts"]) / sum(LENGTHS["mixed texts"])
    floor = macs_of(Ranked(6, 0.0), texts)
    assert floor > 0.7
    for target in (0.65, 0.5, 0.3):
        rule = match_macs(encoder(6), texts, Ranked(6, 0.0), target)
        assert rule.whole_layers < 3
        assert abs(macs_of(rule, texts) - target) <= token
        assert (rule.rate < 0) == (target < 0.55)


def test_a_target_below_one_layers_cost_is_missed_by_what_it_costs() -> None:
    texts = LENGTHS["mixed texts"]
    rule = match_macs(encoder(6), texts, Ranked(6, 0.0), 0.1)
    assert rule.whole_layers == 1
    assert macs_of(rule, texts) == pytest.approx(macs_of(Ranked(6, -20.0, whole=1), texts), abs=1e-3)
    assert macs_of(rule, texts) > 0.2


def test_macro_f1_is_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    draw = random.Random(3)
    for classes in (2, 3, 5):
        for n in (1, 4, 50):
            golds = [draw.randrange(classes) for _ in range(n)]
            said = [draw.randrange(classes) for _ in range(n)]
            labels = list(range(classes))
            wanted = metrics.f1_score(golds, said, labels=labels, average="macro", zero_division=0)
            assert macro_f1(said, golds, classes) == pytest.approx(wanted)
    assert macro_f1([0, 0, 1, 1], [0, 1, 1, 1], 2) == pytest.approx((2 / 3 + 0.8) / 2)
    assert macro_f1([0, 0, 1, 1], [0, 1, 1, 1], 3) == pytest.approx((2 / 3 + 0.8) / 3)
