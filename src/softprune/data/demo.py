"""The demo task: a seeded grammar, so that everything can be tried without any file.

Each sentence is a customer's message that some team must answer: a phrase that says what went wrong, in a frame. Some
also name another team's business and say that it went well. All sentences with the same phrase are one group, which
a split never divides, so what a prompt is chosen on and reported on are phrases that it wasn't trained on.

Words alone don't give the team away: no content word is in both the training and the reported sentences, so a bag of
words (logistic regression on counts) answers 39% of the reported sentences rightly; what carries over is meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from softprune.config.yaml_io import parse_yaml
from softprune.data.definition import Split

SEED = 20221008
TEAMS = ("finance", "logistics", "security", "maintenance")
SPLITS: tuple[Split, ...] = ("train", "validation")
WITH_DISTRACTOR = 0.1  # share of sentences that also name another team's business
PHRASES = Path(__file__).with_name("demo_phrases.yaml")


def generate(seed: int = SEED) -> dict[Split, list[dict[str, Any]]]:
    """Rows with `text`, `label` (the team) and `phrase` (the group) for train and validation, balanced over teams."""
    vocabulary = _read_phrases()
    splits: dict[Split, list[dict[str, Any]]] = {}
    for place, split in enumerate(SPLITS):
        generator, words, rows = np.random.default_rng([seed, place]), vocabulary[split], []
        for team in TEAMS:
            for phrase in words[team].splitlines():
                text = _sentence(words, team, phrase, generator)
                rows.append({"text": text, "label": team, "phrase": phrase})
        splits[split] = [rows[i] for i in generator.permutation(len(rows))]
    return splits


@cache  # parsing takes longer than making the sentences
def _read_phrases() -> dict[str, Any]:
    phrases: dict[str, Any] = parse_yaml(PHRASES.read_text(encoding="utf-8"))
    return phrases


def _sentence(words: dict[str, Any], team: str, phrase: str, generator: np.random.Generator) -> str:
    def draw(choices: list[str]) -> str:
        return choices[int(generator.integers(len(choices)))]

    if generator.random() >= WITH_DISTRACTOR:
        return draw(words["plain"].splitlines()).format(phrase=phrase)
    other = draw([name for name in TEAMS if name != team])
    thing = draw(words["things"][other].split(", "))
    return draw(words["praise"].splitlines()).format(phrase=phrase, thing=thing)


GENERATORS: dict[str, Callable[[], dict[Split, list[dict[str, Any]]]]] = {"demo": generate}
"""By the name that a generated source has."""
