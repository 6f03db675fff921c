"""Every word of every text in columns, beside what random dropping would have kept: the baseline of all statements.

Of the T tokens of a text (special ones aside), m_l have left by the end of layer l. Were they chosen at random, a
word of p pieces would outlive layer l unless all of its pieces are among them:

    P(left > l) = 1 - C(m_l, p) / C(T, p)

which is the chance that it is kept to the end for the last layer, and sums over the layers to its expected `left`.
A word of one piece is then kept with the text's own share of kept tokens.

Axes: N texts, W words of all of them, T tokens of a text, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain

import numpy as np
import numpy.typing as npt

from softprune.errors import SoftpruneError
from softprune.statistics.bootstrap import Floats
from softprune.token_pruning.analysis.words import Tagger, Word, find_words
from softprune.token_pruning.model import TokenTrace

Ints = npt.NDArray[np.int64]

CONTEXT = 40  # characters behind the last token that was read, for the tagger


class RandomDropping:
    """Random dropping in one text, of T tokens; m_l needn't be whole."""

    def __init__(self, tokens: int, dropped_L: Floats) -> None:
        self._tokens, self._dropped_L = tokens, dropped_L
        self._outlives = cache(self._survival)  # most words have one, two or three pieces

    @classmethod
    def like(cls, trace: TokenTrace) -> RandomDropping:
        """As many tokens leave after each layer as the model dropped in this very text."""
        return cls(trace.special.count(False), _count_dropped(trace))

    def kept(self, pieces: int) -> float:
        """The chance that a word of `pieces` tokens is kept to the end."""
        return float(self._outlives(pieces)[-1])

    def left(self, pieces: int) -> float:
        """The expected `left` of a word of `pieces` tokens."""
        return float(self._outlives(pieces).sum())

    def _survival(self, pieces: int) -> Floats:
        """P(left > l) by layer, `[L]`."""
        places = np.arange(pieces)[:, None]
        all_dropped_L = (np.maximum(self._dropped_L - places, 0) / (self._tokens - places)).prod(axis=0)
        return np.asarray(1 - all_dropped_L, np.float64)


def _count_dropped(trace: TokenTrace) -> Floats:
    """m_l of a text, `[L]`."""
    left_T = np.array(trace.left, np.int64)[~np.array(trace.special, np.bool_)]
    return np.array([(left_T <= layer).sum() for layer in range(trace.layers)], np.float64)


@dataclass(frozen=True, slots=True)
class WordTable:
    """The words of N texts; `chance_` is random dropping in the same text, `even_` at the share that all texts keep."""

    traces: tuple[TokenTrace, ...]
    words: tuple[tuple[Word, ...], ...]  # per text
    forms: tuple[str, ...]  # [W], in lower case
    text_W: Ints  # the text that each word is in
    left_W: Ints  # the layer after whose attention it was dropped; the number of layers if it was kept
    kept_W: Floats  # 1 where it was kept to the end, else 0
    chance_kept_W: Floats
    chance_left_W: Floats
    even_kept_W: Floats
    even_left_W: Floats
    place_W: Floats  # relative position in its text, in [0, 1)
    tagged: bool  # whether parts of speech and stop words are known

    @property
    def flat(self) -> list[Word]:
        """All words, `[W]`."""
        return list(chain.from_iterable(self.words))

    @property
    def layers(self) -> int:
        """L."""
        return self.traces[0].layers

    def golds(self) -> Ints:
        """The true class of each text, `[N]`; -1 where it isn't known."""
        return np.array([-1 if trace.gold is None else trace.gold for trace in self.traces])


def word_table(traces: Sequence[TokenTrace], tagger: Tagger | None = None) -> WordTable:
    """Join tokens to words and put all words into columns; without a tagger, `words.split` finds them."""
    if tagger is None:
        words = tuple(find_words(trace) for trace in traces)
    else:
        marks = tagger.marks(text_for_tagger(trace) for trace in traces)
        words = tuple(find_words(trace, found) for trace, found in zip(traces, marks, strict=True))
    if not any(words):
        raise SoftpruneError("texts with words", f"{len(traces)} texts without one", "analyse a set that has text")
    dropped_L: Floats = sum(map(_count_dropped, traces), np.zeros(traces[0].layers))
    share_L = dropped_L / max(sum(trace.special.count(False) for trace in traces), 1)
    rows = []
    for text, (trace, own) in enumerate(zip(traces, words, strict=True)):
        tokens = trace.special.count(False)
        chance, even = RandomDropping.like(trace), RandomDropping(tokens, tokens * share_L)
        for place, word in enumerate(own):
            pieces = len(word.pieces)
            by_chance = (chance.kept(pieces), chance.left(pieces), even.kept(pieces), even.left(pieces))
            rows.append((text, word.left, *by_chance, place / len(own)))
    text_W, left_W, chance_kept_W, chance_left_W, even_kept_W, even_left_W, place_W = np.array(rows, np.float64).T
    return WordTable(
        traces=tuple(traces),
        words=words,
        forms=tuple(word.text.lower() for word in chain.from_iterable(words)),
        text_W=text_W.astype(np.int64),
        left_W=left_W.astype(np.int64),
        kept_W=(left_W == traces[0].layers).astype(np.float64),
        chance_kept_W=chance_kept_W,
        chance_left_W=chance_left_W,
        even_kept_W=even_kept_W,
        even_left_W=even_left_W,
        place_W=place_W,
        tagged=tagger is not None,
    )


def text_for_tagger(trace: TokenTrace) -> str:
    """A text up to a little behind its last token, ending between words: what was cut off need not be tagged."""
    end = max((end for _, end in trace.offsets), default=0) + CONTEXT
    while end < len(trace.text) and not trace.text[end].isspace():
        end += 1
    return trace.text[:end]
