from __future__ import annotations

import math

import numpy as np
import pytest
from fakes import FakeReader, by_chance, made_texts, make_trace

from softprune.token_pruning.analysis.retention import log_odds, typical_words
from softprune.token_pruning.analysis.words import Tagger, word_table

LABELS = ("bad", "good")


def test_log_odds_by_hand() -> None:
    own, other, prior = np.array([3.0, 1.0]), np.array([1.0, 5.0]), np.array([1.0, 2.0])
    delta, z = log_odds(own, other, prior)
    expected = math.log(4 / 3) - math.log(2 / 7)
    assert delta[0] == pytest.approx(expected)
    assert z[0] == pytest.approx(expected / math.sqrt(1 / 4 + 1 / 2))
    assert delta[1] == pytest.approx(-expected)  # two words: what one gains the other loses


def test_a_planted_word_leads_its_class(tagger: Tagger) -> None:
    texts = made_texts(60)
    golds = [i % 2 for i in range(60)]
    texts = [f"{text} sunshine" if gold else f"{text} drizzle" for text, gold in zip(texts, golds, strict=True)]
    traces = FakeReader(lambda piece, _: 3).trace(texts, golds)
    found = typical_words(word_table(traces, tagger), LABELS)
    assert [found[label][0].form for label in LABELS] == ["drizzle", "sunshine"]
    top = found["good"][0]
    assert (top.kept, top.words, top.share, top.baseline, top.stop) == (30, 30, 1.0, 1.0, False)
    assert top.z > 3


def test_nothing_is_left_out_but_rare_words() -> None:
    traces = [make_trace("the the ! ! once", [("the", 3), ("the", 3), ("!", 3), ("!", 3), ("once", 3)], gold=1)] * 4
    traces += [make_trace("sea", [("sea", 3)], gold=0)] * 4
    found = typical_words(word_table(traces), LABELS, minimum=5)
    assert {word.form for word in found["good"]} == {"the", "!"}
    assert found["bad"] == []
    assert all(word.stop is None for word in found["good"])


def test_words_at_random_have_small_z() -> None:
    """Negative control: classes dealt out at random have no words of their own."""
    traces = FakeReader(by_chance).trace(made_texts(200), [i % 2 for i in range(200)])
    found = typical_words(word_table(traces), LABELS)
    assert max(word.z for words in found.values() for word in words) < 3


def test_one_class_has_nothing_to_be_told_from() -> None:
    assert typical_words(word_table([make_trace("a", [("a", 3)], gold=0)] * 3), LABELS) == {}
    assert typical_words(word_table([make_trace("a", [("a", 3)])] * 3), LABELS) == {}
