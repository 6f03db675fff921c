from __future__ import annotations

import pytest
from fakes import make_trace
from tokenizers import Tokenizer, models, pre_tokenizers

from softprune.token_pruning.analysis.words import Mark, Word, find_words, split
from softprune.token_pruning.token_trace import TokenTrace


def forms(words: tuple[Word, ...]) -> list[tuple[str, int]]:
    return [(word.text, word.left) for word in words]


def texts(text: str) -> list[str]:
    return [text[mark.start : mark.end] for mark in split(text)]


def test_a_word_is_there_as_long_as_any_piece_is() -> None:
    trace = make_trace("unhappily ever", [("un", 1), ("happi", 3), ("ly", 2), ("ever", 1)])
    assert forms(find_words(trace)) == [("unhappily", 3), ("ever", 1)]
    assert [word.pieces for word in find_words(trace)] == [(1, 2, 3), (4,)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dog, barking!", ["A", "dog", ",", "barking", "!"]),
        ("  tabs\tand\nlines  ", ["tabs", "and", "lines"]),
        ("it's 3.5%", ["it", "'", "s", "3", ".", "5", "%"]),
        ("naïve cafe\u0301 日本", ["naïve", "cafe\u0301", "日本"]),
        ("a\u00a0b…", ["a", "b", "…"]),
        ("", []),
    ],
)
def test_without_a_tagger_punctuation_stands_alone(text: str, expected: list[str]) -> None:
    assert texts(text) == expected


def encoded(tokenizer: Tokenizer, text: str) -> TokenTrace:
    offsets = tokenizer.encode(text).offsets
    count = len(offsets)
    return TokenTrace(text, tuple(offsets), (False,) * count, tuple(range(count)), count, 0, (1.0,))


def test_wordpiece_offsets() -> None:
    vocabulary = {piece: i for i, piece in enumerate(["[UNK]", "play", "##ing", "##s", ",", "the", "!"])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words = find_words(encoded(tokenizer, "playing, the plays!"))
    assert forms(words) == [("playing", 1), (",", 2), ("the", 3), ("plays", 5), ("!", 6)]


@pytest.mark.parametrize("trim", [True, False])
def test_byte_level_pieces_that_share_a_character(trim: bool) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=trim)
    trace = encoded(tokenizer, "né 日")
    # Bytes: n, é (2), space, 日 (3); every byte is a token here, and the space is one that belongs to no word.
    assert forms(find_words(trace)) == [("né", 2), ("日", 6)]
    assert [len(word.pieces) for word in find_words(trace)] == [3, 3]


def test_a_piece_that_begins_with_a_space_belongs_to_the_word_behind_it() -> None:
    trace = TokenTrace("a bc", ((0, 1), (1, 3), (3, 4)), (False,) * 3, (1, 3, 2), 3, 0, (1.0,))
    assert forms(find_words(trace)) == [("a", 1), ("bc", 3)]


def test_a_piece_over_two_of_the_taggers_words_counts_for_both() -> None:
    trace = make_trace("don't go", [("don't", 3), ("go", 1)])
    marks = [Mark(0, 2, "AUX"), Mark(2, 5, "PART"), Mark(6, 8, "VERB")]
    assert forms(find_words(trace, marks)) == [("do", 3), ("n't", 3), ("go", 1)]
    assert [word.mark.pos for word in find_words(trace, marks)] == ["AUX", "PART", "VERB"]


def test_words_that_were_not_read_are_left_out() -> None:
    trace = make_trace("one two three four", [("one", 3), ("two", 3), ("thr", 1)])
    assert forms(find_words(trace)) == [("one", 3), ("two", 3), ("three", 1)]


def test_special_tokens_touch_no_word() -> None:
    trace = TokenTrace("ab", ((0, 2), (0, 2), (0, 2)), (True, False, True), (3, 1, 3), 3, 0, (1.0,))
    assert forms(find_words(trace)) == [("ab", 1)]


def test_alive_counts_by_layer() -> None:
    assert make_trace("a b c", [("a", 1), ("b", 2), ("c", 3)]).alive() == (5, 4, 3)
