from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from fakes import FakeReader, by_chance, made_texts, make_trace, prefers

from softprune.errors import SoftpruneError
from softprune.token_pruning.analysis.retention import Row, retention
from softprune.token_pruning.analysis.words import Mark, Tagger, word_table

pytestmark = pytest.mark.slow

LABELS = ("bad", "good")
Tables = dict[str, tuple[Row, ...]]


def by_name(found: Tables, table: str) -> dict[str, Row]:
    return {row.name: row for row in found[table]}


@pytest.fixture
def three(tagger: Tagger) -> Tables:
    """Three texts of one piece a word: seven nouns and others, each word's fate written beside it."""
    traces = [
        make_trace("the cat runs", [("the", 1), ("cat", 3), ("runs", 2)], gold=0),
        make_trace("green sea .", [("green", 3), ("sea", 3), (".", 1)], gold=1),
        make_trace("a tree", [("a", 1), ("tree", 1)], gold=1),
    ]
    return retention(word_table(traces, tagger), LABELS, seed=0, resamples=500)


def test_by_hand(three: Tables) -> None:
    pos = by_name(three, "pos")
    assert three["overall"][0].words == 8
    assert three["overall"][0].kept.value == pytest.approx(3 / 8)
    assert {name: row.words for name, row in pos.items()} == {"ADJ": 1, "DET": 2, "NOUN": 3, "PUNCT": 1, "VERB": 1}
    assert pos["NOUN"].kept.value == pytest.approx(2 / 3)
    # cat's text keeps 1 of 3, sea's 2 of 3, tree's none of 2.
    assert pos["NOUN"].baseline == pytest.approx((1 / 3 + 2 / 3 + 0) / 3)
    assert pos["NOUN"].difference.value == pytest.approx(1 / 3)
    assert pos["NOUN"].ratio.value == pytest.approx(2.0)
    assert pos["NOUN"].left.value == pytest.approx((3 + 3 + 1) / 3)
    assert pos["NOUN"].left_difference.value == pytest.approx(7 / 3 - (6 / 3 + 7 / 3 + 2 / 2) / 3)
    assert pos["DET"].kept.value == 0.0


def test_stop_words_classes_and_places_by_hand(three: Tables) -> None:
    stop, classes, place = (by_name(three, name) for name in ("stop", "class", "place"))
    assert (stop["stop word"].words, stop["stop word"].kept.value) == (2, 0.0)
    assert classes["bad"].kept.value == pytest.approx(1 / 3)
    assert classes["good"].kept.value == pytest.approx(2 / 5)
    # Every word has one piece, so the share of words that an even dropping keeps is that of tokens.
    assert classes["good"].baseline == pytest.approx(3 / 8)
    assert classes["bad"].baseline == pytest.approx(3 / 8)
    assert {name: row.words for name, row in place.items()} == {"tenth 1": 3, "tenth 4": 2, "tenth 6": 1, "tenth 7": 2}


def test_frequency_goes_by_rank() -> None:
    text = " ".join(["aa"] * 5 + [f"w{i:02d}" for i in range(12)])
    pieces = [(word, 3 if word == "aa" else 1) for word in text.split()]
    found = retention(word_table([make_trace(text, pieces)] * 2), LABELS, resamples=100)
    rows = by_name(found, "frequency")
    assert rows["ranks 1 to 10"].words == 2 * (5 + 9)
    assert rows["ranks 11 to 100"].words == 2 * 3
    assert rows["ranks 1 to 10"].kept.value == pytest.approx(5 / 14)
    assert "pos" not in found
    assert "class" not in found


def test_entities_need_a_pipeline_that_finds_them(make_tagger: Callable[..., Tagger]) -> None:
    traces = [make_trace("the cat runs", [("the", 1), ("cat", 3), ("runs", 1)])] * 2
    knows = make_tagger(entities=("cat",))
    found = by_name(retention(word_table(traces, knows), LABELS, entities=knows.entities, resamples=100), "entity")
    assert (found["in an entity"].kept.value, found["outside"].kept.value) == (1.0, 0.0)
    assert not make_tagger().entities


def test_random_dropping_shows_no_preference(tagger: Tagger) -> None:
    """Negative control: also for long words, which random dropping keeps more often."""
    traces = FakeReader(by_chance).trace(made_texts(200), [i % 2 for i in range(200)])
    found = retention(word_table(traces, tagger), LABELS, resamples=2000)
    nouns = by_name(found, "pos")["NOUN"]
    assert not any(row.clear for rows in found.values() for row in rows)
    assert nouns.kept.value is not None
    assert nouns.kept.value > 0.5 + 0.05  # nouns have more pieces: against the plain share they'd look preferred
    assert nouns.baseline == pytest.approx(nouns.kept.value, abs=0.02)


def test_a_planted_preference_is_found(tagger: Tagger) -> None:
    traces = FakeReader(prefers("cat", "sea", "tree", "film")).trace(made_texts(120))
    found = retention(word_table(traces, tagger), LABELS, resamples=2000)
    pos = by_name(found, "pos")
    nouns = pos["NOUN"]
    assert nouns.clear
    assert nouns.excludes_zero
    assert nouns.difference.value is not None
    assert nouns.difference.value > 0.2
    assert nouns.p < 0.01
    assert pos["VERB"].clear
    assert (pos["VERB"].difference.value or 0) < 0


def test_intervals_cover_what_they_should() -> None:
    """Of 95% intervals of a share on made texts, about 95% hold the true share."""
    held = 0
    for seed in range(60):
        traces = FakeReader(by_chance, seed=seed).trace(made_texts(40, seed, words=8))
        row = retention(word_table(traces), LABELS, seed=seed, resamples=200)["overall"][0]
        # The truth of a share of words of any length: what random dropping at one half keeps of these words.
        truth = np.mean([1 - 0.5 ** len(word.pieces) for own in word_table(traces).words for word in own])
        assert row.kept.interval is not None
        held += row.kept.interval[0] <= truth <= row.kept.interval[1]
    assert 53 <= held <= 60


def test_seeds_decide(tagger: Tagger) -> None:
    table = word_table(FakeReader(by_chance).trace(made_texts(20)), tagger)
    once, again, other = (retention(table, LABELS, seed=seed, resamples=200) for seed in (1, 1, 2))
    assert once == again
    assert once["overall"][0].kept.low != other["overall"][0].kept.low


def test_one_text_has_no_interval() -> None:
    row = retention(word_table([make_trace("a b", [("a", 3), ("b", 1)])]), LABELS, resamples=50)["overall"][0]
    assert row.kept.interval is None
    assert not row.clear


def test_no_words_at_all() -> None:
    with pytest.raises(SoftpruneError, match="texts with words"):
        word_table([make_trace("", [])])


def test_a_few_words_that_were_all_kept_prove_nothing(tagger: Tagger) -> None:
    """A bootstrap never sees a group of five kept words lose one; the exact test does."""
    traces = FakeReader(by_chance).trace(made_texts(60))
    lucky = [make_trace("very sea tree film", [("very", 3), ("sea", 1), ("tree", 1), ("film", 3)])] * 4
    rows = by_name(retention(word_table([*traces, *lucky], _only(tagger, "very")), LABELS, resamples=1000), "pos")
    assert rows["X"].kept.value == 1.0
    assert rows["X"].kept.low == pytest.approx(0.025 ** (1 / 4))  # not 1: four texts say little
    assert not rows["X"].clear
    assert rows["X"].p == pytest.approx(2 * 0.5**4)


def _only(tagger: Tagger, form: str) -> Tagger:
    """The tagger, but a word that opens its text and is `form` is an X."""

    class Marking(Tagger):
        def marks(self, texts: Iterable[str]) -> Iterator[tuple[Mark, ...]]:
            for text in texts:
                (found,) = Tagger.marks(self, [text])
                opens = text.startswith(f"{form} sea tree film") and len(found) == 4
                yield (replace(found[0], pos="X"), *found[1:]) if opens else found

    tagger.__class__ = Marking
    return tagger


def test_a_class_of_long_words_is_not_taken_for_a_kept_one() -> None:
    """Both classes keep the same share of tokens; the one whose words have more pieces keeps more words."""
    texts = ["cinematography locomotive " * 6, "sea cat film tree the a " * 6] * 60
    traces = FakeReader(by_chance).trace([f"{text}{i}" for i, text in enumerate(texts)], [0, 1] * 60)
    rows = by_name(retention(word_table(traces), LABELS, resamples=1000), "class")
    assert (rows["bad"].kept.value or 0) > (rows["good"].kept.value or 1) + 0.2
    assert not rows["bad"].clear
    assert not rows["good"].clear


def test_a_class_that_keeps_more_is_found() -> None:
    texts, golds = made_texts(120), [i % 2 for i in range(120)]
    traces = [
        FakeReader(by_chance if gold else prefers("cat")).trace([text], [gold])[0]
        for text, gold in zip(texts, golds, strict=True)
    ]
    rows = by_name(retention(word_table(traces), LABELS, resamples=1000), "class")
    assert rows["good"].clear
    assert (rows["good"].difference.value or 0) > 0 > (rows["bad"].difference.value or 0)
