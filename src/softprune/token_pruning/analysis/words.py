"""Words: how a text splits into them, which tokens make them up, and after which layer each was dropped.

**A word is there as long as any of its pieces is**: its `left` is the largest of theirs. Random dropping would
therefore keep long words more often than short ones; `word_table.RandomDropping` accounts for that.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprune.errors import SoftpruneError
from softprune.token_pruning.loading import replace_surrogates
from softprune.token_pruning.model import TokenTrace

if TYPE_CHECKING:
    from spacy.language import Language

TRAIN = "train one with scripts/train_tagger.py and name its folder, or install a spaCy pipeline and name it"

NAMES = {
    "ADJ": "adjective",
    "ADP": "adposition",
    "ADV": "adverb",
    "AUX": "auxiliary",
    "CCONJ": "coordinating conjunction",
    "DET": "determiner",
    "INTJ": "interjection",
    "NOUN": "noun",
    "NUM": "numeral",
    "PART": "particle",
    "PRON": "pronoun",
    "PROPN": "proper noun",
    "PUNCT": "punctuation",
    "SCONJ": "subordinating conjunction",
    "SYM": "symbol",
    "VERB": "verb",
    "X": "other",
}
"""The universal parts of speech (universaldependencies.org/u/pos) in words."""


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
