"""ROUGE by hand, the metrics made of it, and what is said where the library is absent."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from softprune.data import metric_named, rouge
from softprune.data.metrics import Loss
from softprune.errors import SoftpruneError
from softprune.types import Scores

PAIRS = (
    # Text, reference; ROUGE-1, ROUGE-2, ROUGE-L.
    ("the cat sat", "the cat sat down", (6 / 7, 4 / 5, 6 / 7)),  # all 3 of 3, 3 of 4; pairs 2 of 2, 2 of 3
    ("sat the cat", "the cat sat", (1.0, 1 / 2, 2 / 3)),  # one pair and two words in order survive
    ("Cats running!", "cat runs", (1.0, 1.0, 1.0)),  # stems, case and marks
    ("nothing shared", "a red box", (0.0, 0.0, 0.0)),
    ("", "a red box", (0.0, 0.0, 0.0)),
)


@pytest.mark.parametrize(("text", "reference", "expected"), PAIRS)
def test_by_hand(text, reference, expected):
    assert rouge.rouge(text, reference) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "half"),
    [
        ("Кошка сидит", "Кошка спит"),
        ("Η γάτα", "Η αυλή"),
        ("قطة صغيرة", "قطة كبيرة"),
        ("बिल्ली सोई", "बिल्ली गई"),
        ("猫坐", "猫睡"),
        ("cafés ouverts", "cafés fermés"),
        ("고양이 잔다", "고양이 간다"),
    ],
)
def test_every_script_has_words(text, half):
    assert rouge.rouge(text, text) == pytest.approx((1.0, 1.0, 1.0), rel=1e-12)
    assert rouge.rouge(text.upper(), half) == pytest.approx((0.5, 0.0, 0.5), rel=1e-12)


def test_english_words_are_those_of_the_package():
    from rouge_score.rouge_scorer import RougeScorer

    text, reference = "It's 3.50: re-opened_files, ran BADLY!", "The files (3) were reopened; its run's bad."
    theirs = RougeScorer(list(rouge.KINDS), use_stemmer=True).score(reference, text)
    assert rouge.rouge(text, reference) == pytest.approx([theirs[k].fmeasure for k in rouge.KINDS], rel=1e-12)


def test_a_composed_letter_is_the_letter_and_its_mark():
    assert rouge.rouge("un caf\u00e9", "un cafe\u0301") == (1.0, 1.0, 1.0)


def test_a_metric_is_the_mean_over_texts():
    texts, references, values = zip(*PAIRS, strict=True)
    scores = Scores(texts=texts, references=references)
    for at, kind in enumerate(rouge.KINDS):
        metric = metric_named(kind)
        assert metric.name == kind
        assert metric.value(scores) == pytest.approx(np.mean([value[at] for value in values]), rel=1e-12)
        assert metric.counts(scores).shape == (len(PAIRS), 2)
    shuffled = Scores(texts=texts[1:] + texts[:1], references=references)
    assert metric_named("rougeL").value(shuffled) != pytest.approx(metric_named("rougeL").value(scores), rel=1e-3)


def test_minus_the_loss():
    scores = Scores(losses=(1.0, 2.0, 6.0))
    assert Loss().value(scores) == -3.0
    assert Loss().score(Loss().counts(scores)).tolist() == [-1.0, -2.0, -6.0]
    assert Loss().grain == metric_named("rougeL").grain == 0
    assert metric_named("accuracy").grain == 1


def test_what_was_not_measured_has_no_value():
    with pytest.raises(SoftpruneError, match="one generated text per example"):
        metric_named("rouge1").value(Scores(references=("a red box",)))
    with pytest.raises(SoftpruneError, match="at least one example"):
        Loss().value(Scores())


def test_without_the_library(monkeypatch):
    rouge.load_scorer.cache_clear()
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(SoftpruneError, match=r"pip install 'softprune\[summaries\]'"):
        rouge.load_scorer()
    monkeypatch.undo()
    rouge.load_scorer()
    assert rouge.is_installed()
