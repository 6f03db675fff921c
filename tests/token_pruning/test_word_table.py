"""Words in columns, and what random dropping would have kept of them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from statistics import mean

import pytest
from fakes import FakeReader, by_chance, made_texts, make_trace

from softprune.token_pruning.analysis.words import CONTEXT, Mark, Tagger, random_survival, text_for_tagger, word_table

TEXT = "a b c d e"


def test_one_piece_is_kept_with_the_texts_own_share() -> None:
    chance_TL = random_survival(make_trace(TEXT, [("a", 3), ("b", 1), ("c", 2), ("d", 3), ("e", 1)]))
    assert chance_TL[0, -1] == pytest.approx(2 / 5)
    assert chance_TL[0].sum() == pytest.approx((3 + 1 + 2 + 3 + 1) / 5)


@pytest.mark.parametrize("pieces", [1, 2, 3, 4, 5])
def test_against_every_way_to_choose_the_pieces(pieces: int) -> None:
    left = [3, 1, 2, 3, 1]
    chance_L = random_survival(make_trace(TEXT, list(zip(TEXT.split(), left, strict=True))))[pieces - 1]
    largest = [max(chosen) for chosen in itertools.combinations(left, pieces)]
    assert chance_L.sum() == pytest.approx(mean(largest))
    assert chance_L[-1] == pytest.approx(mean(value == 3 for value in largest))


def test_a_long_word_is_kept_more_often_by_chance_alone() -> None:
    generator = random.Random(0)
    trace = make_trace(TEXT, [(piece, generator.choice((1, 3))) for piece in TEXT.split()])
    kept_T = random_survival(trace)[:, -1]
    assert kept_T[2] > kept_T[0]


def test_all_kept_and_none_kept() -> None:
    everything = random_survival(make_trace("a b", [("a", 3), ("b", 3)]))
    nothing = random_survival(make_trace("a b", [("a", 1), ("b", 1)]))
    assert (everything[1, -1], everything[0].sum()) == (1.0, 3.0)
    assert (nothing[1, -1], nothing[0].sum()) == (0.0, 1.0)


def test_columns_go_word_by_word(tagger: Tagger) -> None:
    traces = [make_trace("the cat", [("the", 1), ("cat", 3)]), make_trace("Sea !", [("Sea", 3), ("!", 2)])]
    table = word_table(traces, tagger)
    assert table.forms == ("the", "cat", "sea", "!")
    assert table.text_W.tolist() == [0, 0, 1, 1]
    assert table.left_W.tolist() == [1, 3, 3, 2]
    assert table.kept_W.tolist() == [0, 1, 1, 0]
    assert table.chance_kept_W.tolist() == [0.5] * 4
    assert table.place_W.tolist() == [0, 0.5, 0, 0.5]
    assert [word.mark.pos for word in table.flat] == ["DET", "NOUN", "NOUN", "PUNCT"]
    assert (table.layers, table.tagged, word_table(traces).tagged) == (3, True, False)


def test_chance_sums_to_what_was_kept_where_words_have_one_piece() -> None:
    traces = FakeReader(by_chance).trace(["the cat runs a very long sea", "of a good tree"])
    table = word_table([trace for trace in traces if all(len(w) <= 4 for w in trace.text.split())])
    assert table.chance_kept_W.sum() == table.kept_W.sum()


def test_what_truncation_took_away_is_not_tagged(make_tagger: Callable[..., Tagger]) -> None:
    long = "the cat " + "very " * 1000
    trace = make_trace(long, [("the", 1), ("cat", 3)])
    assert text_for_tagger(trace) == long[: text_for_tagger(trace).rindex("very") + 4]
    assert len(text_for_tagger(trace)) <= 7 + CONTEXT + 5
    assert text_for_tagger(make_trace("", [])) == ""

    class Counting(Tagger):
        def marks(self, texts: Iterable[str]) -> Iterator[tuple[Mark, ...]]:
            yield from (tuple(Mark(0, len(text.split()[0])) for _ in (0,)) for text in texts if len(text) < 100)

    counting = make_tagger()
    counting.__class__ = Counting
    assert word_table([trace], counting).forms == ("the",)


def test_tags_are_those_of_the_whole_text(tagger: Tagger) -> None:
    texts = made_texts(10, words=40)
    traces = FakeReader(by_chance).trace(texts)
    whole = [[(m.start, m.pos) for m in marks] for marks in tagger.marks(texts)]
    table = word_table(traces, tagger)
    assert [[(w.mark.start, w.mark.pos) for w in own] for own in table.words] == whole
