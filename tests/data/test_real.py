"""The real data in the folder that SOFTPRUNE_DATA names: sizes, labels and ids of every task."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from softprune.data import constant_answer, load_task

pytestmark = pytest.mark.real
SIZES = {
    "boolq": (32, 32, 3270),
    "cb": (32, 32, 56),
    "copa": (32, 32, 100),
    "multirc": (154, 167, None),
    "rte": (32, 32, 277),
    "wic": (32, 32, 638),
    "wsc": (32, 32, None),
    "ag_news": (4000, None, 1000),
    "imdb": (8000, None, 2000),
    "sentence_polarity": (8000, None, 1000),
    "trec": (5452, None, 500),
}


@pytest.fixture(scope="module")
def data():
    return Path(os.environ["SOFTPRUNE_DATA"])


@pytest.mark.parametrize("task", SIZES)
def test_sizes_and_ids(task, data):
    splits = load_task(task).load(data)
    held = (splits.train, splits.dev, splits.validation)
    assert tuple(examples and len(examples) for examples in held) == SIZES[task]
    assert (splits.layout, splits.verified) == ("official", True)
    for examples in filter(None, held):
        assert len({example.id for example in examples}) == len(examples)
        assert all(example.text and all(example.answers) for example in examples)


def test_known_majorities(data):
    for task, value in {
        "boolq": 2033 / 3270,
        "cb": 28 / 56,
        "rte": 146 / 277,
        "wic": 0.5,
        "copa": 0.55,
    }.items():
        loaded = load_task(task)
        gold = [example.gold for example in loaded.load(data).validation]
        assert constant_answer(gold, loaded.n_answers, loaded.metric).value == pytest.approx(value)


def test_passages_of_multirc(data):
    groups = Counter(example.group for example in load_task("multirc").load(data).train)
    assert len(groups) == 32
