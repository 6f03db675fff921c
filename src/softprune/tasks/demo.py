"""The demo task: a seeded grammar, so that everything can be tried without any file.

Each sentence is a customer's message that some team must answer, and some of them also name another team's
business and say that it went well. Words alone don't give the team away: no content word stands in both the
training and the reported sentences, so a bag of words learns next to nothing; what carries over is meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from softprune.tasks.schema import Split

SEED = 20221008
TEAMS = ("finance", "logistics", "security", "maintenance")
SIZES: dict[Split, int] = {"train": 480, "validation": 600}
WITH_DISTRACTOR = 0.2


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The content words and frames of one split.

    Attributes:
        things: per team, what its messages are about, between blanks.
        troubles: per team, what went wrong with any of these.
        praise: frames for a `{thing}` of another team that went well, before or after the `{trouble}`.
        plain: frames for the `{trouble}` alone.
    """

    things: tuple[str, ...]
    troubles: tuple[tuple[str, ...], ...]
    praise: tuple[str, ...]
    plain: tuple[str, ...]


TRAIN = Vocabulary(
    things=(
        "invoice fee receipt tax price subscription surcharge deposit",
        "parcel courier delivery postman envelope van letter crate",
        "login password profile username membership nickname avatar settings",
        "screen battery handle hinge engine zipper cable button",
    ),
    troubles=(
        (
            "is higher than agreed",
            "shows a wrong total",
            "was charged to my card twice",
            "is far too steep",
            "ate half of my salary",
            "adds eleven dollars for nothing",
        ),
        (
            "never arrived at my doorstep",
            "went to the wrong street",
            "is three weeks late",
            "got lost in transit",
            "waits at the depot",
            "did not ring or knock",
        ),
        (
            "is rejected each time",
            "was locked after one attempt",
            "cannot be reset",
            "disappeared from the website",
            "was stolen by a hacker",
            "shows somebody else online",
        ),
        (
            "is cracked",
            "stopped working overnight",
            "makes a grinding noise",
            "came loose and fell off",
            "gets hot and leaks",
            "has rusted through",
        ),
    ),
    praise=(
        "the {thing} is fine but the {trouble}",
        "the {trouble} even though the {thing} is perfect",
        "nothing against the {thing} only the {trouble}",
    ),
    plain=(
        "hello there i think the {trouble}",
        "please help me because the {trouble}",
        "once again my {trouble}",
        "yesterday i noticed that the {trouble}",
        "what shall i do if the {trouble}",
    ),
)
VALIDATION = Vocabulary(
    things=(
        "bill payment refund discount cost transaction bank loan",
        "package shipment driver mail carrier freight box truck",
        "registration passcode verification authentication signup email user identity",
        "motor display lid charger wheel pump keyboard switch",
    ),
    troubles=(
        (
            "took double from our wallet",
            "does not match the quote",
            "costs us extra money",
            "seems expensive",
            "left our savings empty",
            "contains ninety euros of interest",
        ),
        (
            "has not reached our house",
            "was left with a stranger",
            "remains stuck in another town",
            "keeps being postponed",
            "drove past our gate",
            "sits in some warehouse",
        ),
        (
            "does not let us sign in",
            "has expired in the app",
            "blocks every visitor",
            "says our name remains unknown",
            "was deleted by accident",
            "asks for a forgotten code",
        ),
        (
            "broke on day one",
            "smells of smoke",
            "looks dented and bent",
            "no longer turns",
            "rattles and drips",
            "snapped into two pieces",
        ),
    ),
    praise=(
        "our {thing} was good yet the {trouble}",
        "this {trouble} while the {thing} worked well",
        "we liked the {thing} except that the {trouble}",
    ),
    plain=(
        "dear team it looks as though the {trouble}",
        "can someone explain why our {trouble}",
        "we must complain since the {trouble}",
        "today we found out that the {trouble}",
        "sorry to bother you with this the {trouble}",
    ),
)


def generate(seed: int = SEED) -> dict[Split, list[dict[str, Any]]]:
    """Rows with `text` and `label` (the team) for train and validation, balanced over the teams."""
    return {
        "train": _rows(TRAIN, SIZES["train"], np.random.default_rng([seed, 0])),
        "validation": _rows(VALIDATION, SIZES["validation"], np.random.default_rng([seed, 1])),
    }


def _rows(words: Vocabulary, n: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """n different sentences in random order, the teams by turns."""
    seen: dict[str, str] = {}
    while len(seen) < n:
        team = len(seen) % len(TEAMS)
        text = _sentence(words, team, generator)
        if text not in seen:
            seen[text] = TEAMS[team]
    rows = [{"text": text, "label": label} for text, label in seen.items()]
    return [rows[i] for i in generator.permutation(n)]


def _sentence(words: Vocabulary, team: int, generator: np.random.Generator) -> str:
    trouble = f"{_one(words.things[team].split(), generator)} {_one(words.troubles[team], generator)}"
    if generator.random() >= WITH_DISTRACTOR:
        return _one(words.plain, generator).format(trouble=trouble)
    other = (team + 1 + int(generator.integers(len(TEAMS) - 1))) % len(TEAMS)
    thing = _one(words.things[other].split(), generator)
    return _one(words.praise, generator).format(trouble=trouble, thing=thing)


def _one(choices: Sequence[str], generator: np.random.Generator) -> str:
    return choices[int(generator.integers(len(choices)))]
