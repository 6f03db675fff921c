"""Words: how a text splits into them, after which layer each was dropped, and what random dropping would have kept.

**A word is there as long as any of its pieces is**: its `left` is the largest of theirs. Random dropping would
therefore keep long words more often than short ones. Of the T tokens of a text (special ones aside), m_l have left by
the end of layer l. Were they chosen at random, a word of p pieces would outlive layer l unless all of its pieces are
among them:

    P(left > l) = 1 - C(m_l, p) / C(T, p)

which is the chance that it is kept to the end for the last layer, and sums over the layers to its expected `left`. A
word of one piece is then kept with the text's own share of kept tokens. All statements are compared with this baseline.

Axes: N texts, W words of all of them, T tokens of a text, L layers.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from softprune.errors import SoftpruneError
from softprune.statistics.bootstrap import Floats
from softprune.token_pruning.loading import replace_surrogates
from softprune.token_pruning.model import TokenTrace

if TYPE_CHECKING:
    from spacy.language import Language

Ints = npt.NDArray[np.int64]

CONTEXT = 40  # characters behind the last token that was read, for the tagger
TRAIN = "train one with scripts/train_tagger.py and name its folder, or install a spaCy pipeline and name it"


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
        alone = unicodedata.category(character)[0] in "PS"  # Unicode's punctuation and symbols
        if start is not None and (alone or character.isspace()):
            yield Mark(start, place)
            start = None
        if alone:
            yield Mark(place, place + 1)
        elif start is None and not character.isspace():
            start = place
    if start is not None:
        yield Mark(start, len(text))


def find_words(trace: TokenTrace, marks: Sequence[Mark] | None = None) -> tuple[Word, ...]:
    """The words of a text that the model read, in order.

    A piece belongs to every word with which it shares a character, whatever the tokenizer: SentencePiece's may begin
    with a space, and one that covers two words counts for both. A word without a piece wasn't read (it was truncated,
    or the tokenizer doesn't know its characters), and isn't returned. Without `marks` (in order, without overlap),
    `split` finds the words.
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


class Tagger:
    """A spaCy pipeline that finds parts of speech."""

    def __init__(self, nlp: Language) -> None:
        performance: dict[str, Any] = nlp.meta.get("performance") or {}
        self.name = "_".join(str(nlp.meta[key]) for key in ("lang", "name") if nlp.meta.get(key))
        accuracy = performance.get("pos_acc")
        # share of universal tags that are right on its own test data; None where its meta doesn't say
        self.accuracy = float(accuracy) if isinstance(accuracy, int | float) else None
        self.measured_on = str(performance.get("test_file") or "")
        self.entities = "ner" in nlp.pipe_names or "entity_ruler" in nlp.pipe_names
        self._nlp = nlp

    def marks(self, texts: Iterable[str]) -> Iterator[tuple[Mark, ...]]:
        """The words of each text, in the texts' order; runs of spaces aren't words."""
        for doc in self._nlp.pipe(replace_surrogates(texts), batch_size=64):  # spaCy can't read them either
            marks = []
            for token in doc:
                if not token.is_space:
                    end = token.idx + len(token)
                    marks.append(Mark(token.idx, end, token.pos_ or "X", token.is_stop, token.ent_type_))
            yield tuple(marks)

    @property
    def accuracy_in_words(self) -> str:
        """The note beside every table of parts of speech."""
        if self.accuracy is None:
            return f"Tagger {self.name}: accuracy unknown"
        on = f" on {self.measured_on}" if self.measured_on else " on its own test data"
        return f"Tagger {self.name}: {100 * self.accuracy:.1f}% of tags right{on}"


def load_tagger(name: str | Path) -> Tagger:
    """A spaCy pipeline by the name of an installed package, or by its folder; it must find parts of speech."""
    try:
        import spacy
    except ImportError as error:
        raise SoftpruneError("spaCy for parts of speech", str(error), "pip install 'softprune[analysis]'") from error
    try:
        nlp = spacy.load(name)
    except (OSError, ValueError, KeyError) as error:
        found = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SoftpruneError("a tagger: a spaCy pipeline's name or folder", f"{name}: {found}", TRAIN) from error
    tagger = Tagger(nlp)
    (probe,) = nlp.pipe(["A small test."])
    if not any(token.pos_ for token in probe):
        found = f"{tagger.name}, of {', '.join(nlp.pipe_names) or 'no components'}, which leaves them empty"
        raise SoftpruneError("a pipeline that sets universal parts of speech (token.pos_)", found, TRAIN)
    return tagger


def random_survival(trace: TokenTrace, dropped_L: Floats | None = None) -> Floats:
    """P(left > l) of a word of p pieces under random dropping in a text: row p - 1 of `[T, L]`.

    `dropped_L` is m_l, which needn't be whole; None for what the model dropped in this very text.
    """
    if dropped_L is None:
        dropped_L = _count_dropped(trace)
    tokens = trace.special.count(False)
    places_T1 = np.arange(tokens)[:, None]
    all_dropped_TL = (np.maximum(dropped_L - places_T1, 0) / (tokens - places_T1)).cumprod(axis=0)
    return np.asarray(1 - all_dropped_TL, np.float64)


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
        chance_TL = random_survival(trace)
        even_TL = random_survival(trace, trace.special.count(False) * share_L)
        for place, word in enumerate(own):
            chance_L, even_L = chance_TL[len(word.pieces) - 1], even_TL[len(word.pieces) - 1]
            by_chance = (chance_L[-1], chance_L.sum(), even_L[-1], even_L.sum())
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
