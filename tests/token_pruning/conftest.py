"""A tagger without a download: spaCy's English tokenizer with parts of speech by rule."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from softprune.token_pruning.analysis.words import Tagger

if TYPE_CHECKING:
    from spacy.tokens import Doc

sys.path.insert(0, str(Path(__file__).parent))

from fakes import NOUNS

POS = dict.fromkeys(NOUNS, "NOUN") | {"runs": "VERB", "green": "ADJ", "good": "ADJ", "slowly": "ADV", "very": "ADV"}


@pytest.fixture(scope="session")
def make_tagger() -> Callable[..., Tagger]:
    """A tagger by rule; `entities` are words that its entity ruler knows, `performance` its meta."""
    import spacy
    from spacy.language import Language

    @Language.component("test_pos")
    def test_pos(doc: Doc) -> Doc:
        for token in doc:
            token.pos_ = "PUNCT" if token.is_punct else POS.get(token.lower_, "DET")
        return doc

    def make(entities: tuple[str, ...] = (), performance: dict[str, Any] | None = None) -> Tagger:
        nlp = spacy.blank("en")
        nlp.add_pipe("test_pos")
        if entities:
            ruler: Any = nlp.add_pipe("entity_ruler")
            ruler.add_patterns([{"label": "THING", "pattern": word} for word in entities])
        nlp.meta["name"] = "by_rule"
        nlp.meta["performance"] = performance or {}
        return Tagger(nlp)

    return make


@pytest.fixture
def tagger(make_tagger: Callable[..., Tagger]) -> Tagger:
    return make_tagger(performance={"pos_acc": 0.9475, "test_file": "made.conllu"})
