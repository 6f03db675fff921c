"""Every word of every text in columns, as statistics take them. Axes: N texts, W words of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from softprune.errors import SoftpruneError
from softprune.token_pruning.analysis.random_baseline import RandomDropping, dropped_shares
from softprune.token_pruning.analysis.tagging import Tagger
from softprune.token_pruning.analysis.words import Word, words_of
from softprune.token_pruning.token_trace import TokenTrace

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CONTEXT = 40  # characters


@dataclass(frozen=True, slots=True)
class WordTable:
    """The words of N texts.

    Attributes:
        traces: N.
        words: per text.
        forms: `[W]`, each word in lower case.
        text_W: the text that each word is in.
        left_W: the layer after whose attention it was dropped; the number of layers if it was kept.
        kept_W: 1 where it was kept to the end, else 0.
        chance_kept_W, chance_left_W: what random dropping in the same text would give (`random_baseline`).
        even_kept_W, even_left_W: what it would give if every text kept the share of tokens that all texts keep.
        place_W: its relative position in its text, in [0, 1).
        tagged: whether parts of speech and stop words are known.
    """

    traces: tuple[TokenTrace, ...]
    words: tuple[tuple[Word, ...], ...]
    forms: tuple[str, ...]
    text_W: Ints
    left_W: Ints
    kept_W: Floats
    chance_kept_W: Floats
    chance_left_W: Floats
    even_kept_W: Floats
    even_left_W: Floats
    place_W: Floats
    tagged: bool

    @property
    def flat(self) -> list[Word]:
        """All words, `[W]`."""
        return list(chain.from_iterable(self.words))

    @property
    def layers(self) -> int:
        """L."""
        return self.traces[0].layers

    def column(self, of: Callable[[Word], str]) -> list[str]:
        """A property of each word, `[W]`."""
        return [of(word) for word in chain.from_iterable(self.words)]


def word_table(traces: Sequence[TokenTrace], tagger: Tagger | None = None) -> WordTable:
    """Join tokens to words and put all words into columns.

    Args:
        traces: of the texts.
        tagger: whose words and tags to use; without one, words are split at spaces and punctuation.

    Raises:
        SoftpruneError: without a single word.
    """
    marks = tagger.marks(part_read(trace) for trace in traces) if tagger else (None for _ in traces)
    words = tuple(words_of(trace, found) for trace, found in zip(traces, marks, strict=True))
    if not any(words):
        raise SoftpruneError("texts with words", f"{len(traces)} texts without one", "analyse a set that has text")
    columns = np.array(list(_rows(traces, words)), np.float64).T
    left_W = columns[1].astype(np.int64)
    return WordTable(
        traces=tuple(traces),
        words=words,
        forms=tuple(word.text.lower() for own in words for word in own),
        text_W=columns[0].astype(np.int64),
        left_W=left_W,
        kept_W=(left_W == traces[0].layers).astype(np.float64),
        chance_kept_W=columns[2],
        chance_left_W=columns[3],
        even_kept_W=columns[4],
        even_left_W=columns[5],
        place_W=columns[6],
        tagged=tagger is not None,
    )


def _rows(traces: Sequence[TokenTrace], words: Sequence[Sequence[Word]]) -> Iterator[tuple[float, ...]]:
    """The numbers of each word, in the order of `WordTable`'s columns."""
    share_L = dropped_shares(traces)
    for text, (trace, own) in enumerate(zip(traces, words, strict=True)):
        chance, even = RandomDropping.like(trace), RandomDropping.at(share_L, trace)
        for place, word in enumerate(own):
            pieces = len(word.pieces)
            by_chance = (chance.kept(pieces), chance.left(pieces), even.kept(pieces), even.left(pieces))
            yield text, word.left, *by_chance, place / len(own)


def part_read(trace: TokenTrace) -> str:
    """A text up to a little behind its last token: what truncation cut off need not be tagged.

    It ends between words, and holds the next few as the tagger's context.
    """
    end = max((end for _, end in trace.offsets), default=0) + CONTEXT
    while end < len(trace.text) and not trace.text[end].isspace():
        end += 1
    return trace.text[:end]
