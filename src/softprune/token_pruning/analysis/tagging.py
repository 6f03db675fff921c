"""Parts of speech, stop words and named entities, by any installed spaCy pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprune.errors import SoftpruneError
from softprune.token_pruning.analysis.words import Mark
from softprune.token_pruning.loading import replace_surrogates

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
    """A spaCy pipeline by the name of an installed package, or by its folder.

    Raises:
        SoftpruneError: without spaCy, for a pipeline that isn't there or isn't readable, and for one that
            doesn't find parts of speech.
    """
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
