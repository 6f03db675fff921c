"""ROUGE: how many words, pairs of words and words in order a written text shares with its reference.

F1 of precision and recall (Lin, ROUGE: A Package for Automatic Evaluation of Summaries, 2004), by the package
`rouge-score` with stemming, as CNN/DailyMail is usually reported. Words are those of any script (the package's own know
a to z and digits only); English text without accents has the same words either way.
"""

from __future__ import annotations

import unicodedata
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any

from softprune.errors import SoftpruneError

KINDS = ("rouge1", "rouge2", "rougeL")
NO_BLANKS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
"""Scripts that put no blanks between words, as Unicode's character names begin."""
CACHED_PAIRS = 2**16
"""Pairs of texts whose scores are cached: intervals and tests ask for the same ones again."""


@lru_cache(maxsize=CACHED_PAIRS)
def rouge(text: str, reference: str) -> tuple[float, float, float]:
    """ROUGE-1, ROUGE-2 and ROUGE-L of a text, F1 between 0 and 1; errors as `load_scorer`."""
    scores = load_scorer().score(reference, text)
    one, two, longest = (float(scores[kind].fmeasure) for kind in KINDS)
    return one, two, longest


def is_installed() -> bool:
    """Whether `rouge-score` is."""
    return find_spec("rouge_score") is not None


@cache
def load_scorer() -> Any:
    """What scores texts; a SoftpruneError where `rouge-score` isn't installed."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        do = "pip install 'softprune[summaries]'"
        raise SoftpruneError("the library rouge-score, to score written texts", str(error), do) from None
    from nltk.stem.porter import PorterStemmer  # which rouge-score brings

    stemmer = PorterStemmer()

    class Stems:
        """The tokenizer that a `RougeScorer` asks: stems of words, those of up to three letters as they are."""

        def tokenize(self, text: str) -> list[str]:
            return [stemmer.stem(word) if len(word) > 3 else word for word in words(text.casefold())]

    return RougeScorer(list(KINDS), tokenizer=Stems())


def words(text: str) -> list[str]:
    """Runs of letters, digits and their marks; where a script has no blanks between words, each character is one."""
    return "".join(map(_set_apart, unicodedata.normalize("NFC", text))).split()


@cache
def _set_apart(character: str) -> str:
    """A character, between blanks if it is a word by itself; a blank in place of one that is in no word."""
    if unicodedata.category(character)[0] not in "LMN":
        return " "
    return f" {character} " if unicodedata.name(character, "").startswith(NO_BLANKS) else character
