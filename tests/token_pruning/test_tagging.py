from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from softprune.errors import SoftpruneError
from softprune.token_pruning.analysis.words import Tagger, load_tagger


def test_words_tags_and_stop_words(make_tagger: Callable[..., Tagger]) -> None:
    (marks,) = make_tagger().marks(["The cat  runs."])
    assert [(m.start, m.end, m.pos, m.stop) for m in marks] == [
        (0, 3, "DET", True),
        (4, 7, "NOUN", False),
        (9, 13, "VERB", False),
        (13, 14, "PUNCT", False),
    ]


def test_entities(make_tagger: Callable[..., Tagger]) -> None:
    tagger = make_tagger(entities=("cat",))
    (marks,) = tagger.marks(["the cat"])
    assert tagger.entities
    assert [mark.entity for mark in marks] == ["", "THING"]


def test_texts_come_back_in_order(make_tagger: Callable[..., Tagger]) -> None:
    texts = [f"cat {'very ' * i}" for i in range(150)] + [""]
    assert [len(marks) for marks in make_tagger().marks(texts)] == [*range(1, 151), 0]


def test_half_a_surrogate_pair_moves_nothing(make_tagger: Callable[..., Tagger]) -> None:
    (marks,) = make_tagger().marks(["a \ud83d cat"])
    assert [(mark.start, mark.end) for mark in marks] == [(0, 1), (2, 3), (4, 7)]


def test_accuracy_is_read_from_the_meta(make_tagger: Callable[..., Tagger]) -> None:
    known = make_tagger(performance={"pos_acc": 0.9475, "test_file": "made.conllu"})
    assert known.accuracy_in_words == "Tagger en_by_rule: 94.8% of tags right on made.conllu"
    assert make_tagger(performance={"pos_acc": 0.9}).accuracy_in_words.endswith("on its own test data")
    assert make_tagger().accuracy_in_words == "Tagger en_by_rule: accuracy unknown"


@pytest.mark.parametrize("name", ["no_such_pipeline", "folder"])
def test_without_a_tagger_the_message_says_how_to_get_one(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(SoftpruneError, match=r"do:.*scripts/train_tagger\.py.*install a spaCy pipeline") as told:
        load_tagger(tmp_path / "folder" if name == "folder" else name)
    assert name in str(told.value)


def test_a_pipeline_without_parts_of_speech_is_refused(tmp_path: Path) -> None:
    import spacy

    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(SoftpruneError, match="leaves them empty"):
        load_tagger(tmp_path / "blank")


def test_without_spacy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(SoftpruneError, match=r"softprune\[analysis\]"):
        load_tagger("any")
