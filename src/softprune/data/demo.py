"""The demo task: a seeded grammar, so that everything can be tried without any file.

Each sentence is a customer's message that some team must answer: a phrase that says what went wrong, in a frame. Some
also name another team's business and say that it went well. All sentences with the same phrase are one group, which
a split never divides, so what a prompt is chosen on and reported on are phrases that it wasn't trained on.

Words alone don't give the team away: no content word is in both the training and the reported sentences, so a bag of
words (logistic regression on counts) answers 39% of the reported sentences rightly; what carries over is meaning.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from softprune.config.yaml_io import parse_yaml
from softprune.data.definition import Split

SEED = 20221008
TEAMS = ("finance", "logistics", "security", "maintenance")
SENTENCES: dict[Split, int] = {"train": 1, "validation": 1}
"""How many sentences are made of each phrase."""
WITH_DISTRACTOR = 0.1
PHRASES = Path(__file__).with_name("demo_phrases.yaml")


def generate(seed: int = SEED) -> dict[Split, list[dict[str, Any]]]:
    """Rows with `text`, `label` (the team) and `phrase` (the group) for train and validation, balanced over teams."""
    return {split: _rows(split, np.random.default_rng([seed, i])) for i, split in enumerate(SENTENCES)}


def _rows(split: Split, generator: np.random.Generator) -> list[dict[str, Any]]:
    """The sentences of every phrase, all different, in random order."""
    words = _vocabulary()[split]
    rows = []
    for team in TEAMS:
        for phrase in words[team].splitlines():
            texts: dict[str, None] = {}  # a set that keeps its order
            while len(texts) < SENTENCES[split]:
                texts[_sentence(words, team, phrase, generator)] = None
            rows += [{"text": text, "label": team, "phrase": phrase} for text in texts]
    return [rows[i] for i in generator.permutation(len(rows))]


def _sentence(words: dict[str, Any], team: str, phrase: str, generator: np.random.Generator) -> str:
    if generator.random() >= WITH_DISTRACTOR:
        return _one(words["plain"].splitlines(), generator).format(phrase=phrase)
    other = _one([name for name in TEAMS if name != team], generator)
    thing = _one(words["things"][other].split(", "), generator)
    return _one(words["praise"].splitlines(), generator).format(phrase=phrase, thing=thing)


def _one(choices: list[str], generator: np.random.Generator) -> str:
    return choices[int(generator.integers(len(choices)))]


@cache
def _vocabulary() -> dict[str, Any]:
    """Per split: frames, things and phrases."""
    vocabulary: dict[str, Any] = parse_yaml(PHRASES.read_text(encoding="utf-8"))
    return vocabulary
