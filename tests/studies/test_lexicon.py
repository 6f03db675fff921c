from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from softprune.interpret.displacement import norm_rms
from softprune.models.base import Backbone
from softprune.studies.experiments.neighbours import Lexicon, flat, mean_shared

WORDS = {"a": ["Name", "team", "..."], "b": ["name", "film"], "c": ["film", "NAME", "film"]}


@pytest.fixture(scope="module")
def lexicon(backbone_of: Callable[..., Backbone]) -> Lexicon:
    return Lexicon(backbone_of("sentence"), 2)


def test_words_are_shared_whatever_their_case() -> None:
    assert [mean_shared([WORDS], least) for least in (2, 3, 4)] == [2, 1, 0]
    assert mean_shared([WORDS, {"a": ["x"], "b": ["y"]}], 2) == 1.0


def test_flat_has_each_word_once_in_order() -> None:
    assert flat([["b", "a"], [], ["a", "c"]]) == ["b", "a", "c"]


def test_an_embedding_is_nearest_to_its_own_word(lexicon: Lexicon) -> None:
    ids = list(lexicon.vocabulary.pool[5:8])
    near = lexicon.near(lexicon.table_VH[ids])
    assert [words[0] for words in near] == list(map(lexicon.vocabulary.shown, ids))
    assert all(len(words) == 2 for words in near)
    assert lexicon.near(torch.zeros(1, lexicon.table_VH.shape[1])) == [[]]


def test_what_became_of_a_prompt(lexicon: Lexicon) -> None:
    ids = list(lexicon.vocabulary.pool[5:8])
    start_PH = lexicon.table_VH[ids].float()
    end_PH = start_PH.clone()
    end_PH[1] = lexicon.table_VH[lexicon.vocabulary.pool[9]]
    found = lexicon.describe_run(start_PH, end_PH)
    apart = float((end_PH[1] - start_PH[1]).norm()) / norm_rms(lexicon.table_VH)
    assert found["moved"] == pytest.approx([0.0, apart, 0.0])
    for measure in ("centred", "cosine", "euclidean"):
        pairs = zip(found["start"][measure], found["end"][measure], strict=True)
        assert [before[0] == after[0] for before, after in pairs] == [True, False, True]


def test_chance_is_drawn_alike_each_time_and_apart_by_task(lexicon: Lexicon) -> None:
    lengths = {"a": torch.ones(3), "b": torch.ones(3)}
    first = lexicon.by_chance(lengths, 2)
    assert first == lexicon.by_chance(lengths, 2)
    assert first[0] != first[1]
    assert first[0]["a"] != first[0]["b"]
