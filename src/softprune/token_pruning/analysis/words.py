"""From tokens to words: which pieces make up a word, and after which layer the word was dropped.

**A word is there as long as any of its pieces is**: its `left` is the largest of theirs. Random dropping would
therefore keep long words more often than short ones; `word_table.RandomDropping` accounts for that.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from softprune.token_pruning.token_trace import TokenTrace


@dataclass(frozen=True, slots=True)
class Mark:
    """A word as a tagger (or `split`) finds it."""

    start: int  # of its characters in the text; no space among them
    end: int
    pos: str = ""  # universal part of speech; empty without a tagger
    stop: bool | None = None  # whether it is a stop word; None without a tagger
    entity: str = ""  # type of the named entity that it belongs to; empty outside entities


@dataclass(frozen=True, slots=True)
class Word:
    """A word that the model read."""

    text: str
    mark: Mark
    pieces: tuple[int, ...]  # positions of its tokens
    left: int  # the layer after whose attention its last piece was dropped; the number of layers if one was kept


def split(text: str) -> Iterator[Mark]:
    """Words without a tagger: runs of characters without a space; each punctuation mark or symbol is one, too."""
    start = None
    for place, character in enumerate(text):
        alone = unicodedata.category(character)[0] in "PS"
        if start is not None and (alone or character.isspace()):
            yield Mark(start, place)
            start = None
        if alone:
            yield Mark(place, place + 1)
        elif start is None and not character.isspace():
            start = place
    if start is not None:
        yield Mark(start, len(text))


def words_of(trace: TokenTrace, marks: Sequence[Mark] | None = None) -> tuple[Word, ...]:
    """The words of a text that the model read, in order.

    A piece belongs to every word with which it shares a character, whatever the tokenizer: WordPiece and
    byte-level pieces (several of which may stand for one character) lie within words, SentencePiece's may
    begin with a space, and a piece that covers two words counts for both. A word without a piece wasn't read
    (it was truncated, or the tokenizer doesn't know its characters), and isn't in the answer.
    `marks` are the text's words, in order and apart; without them, `split` finds some.
    """
    found = list(split(trace.text)) if marks is None else marks
    ends = [mark.end for mark in found]
    pieces: list[list[int]] = [[] for _ in found]
    for position, (start, end) in enumerate(trace.offsets):
        if trace.special[position]:
            continue
        place = bisect_right(ends, start)  # the first word that ends behind the piece's start
        while place < len(found) and found[place].start < end:
            pieces[place].append(position)
            place += 1
    words = []
    for mark, own in zip(found, pieces, strict=True):
        if own:
            words.append(Word(trace.text[mark.start : mark.end], mark, tuple(own), max(trace.left[i] for i in own)))
    return tuple(words)
