"""The demo task: a seeded grammar, so that everything can be tried without any file.

Each sentence names a person by trade and, mostly, something of another trade's world; the question is which
field the person works in. Words alone don't answer it: no content word stands in both the training and the
reported sentences, so a bag of words learns nothing that helps, and an encoder that isn't steered is drawn
by whichever field is named last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from softprune.tasks.schema import Split

SEED = 20221008
FIELDS = ("medicine", "food", "music", "sport")
SIZES: dict[Split, int] = {"train": 480, "validation": 600}
WITH_DISTRACTOR = 0.8


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The content words and frames of one split.

    Attributes:
        people: per field, people who work in it, between blanks.
        things: per field, things of its world, between blanks.
        frames: sentences with a `{person}` and a `{thing}` of another field.
        plain: sentences with a `{person}` only.
    """

    people: tuple[str, ...]
    things: tuple[str, ...]
    frames: tuple[str, ...]
    plain: tuple[str, ...]


TRAIN = Vocabulary(
    people=(
        "nurse surgeon dentist paramedic midwife pharmacist "
        "optician veterinarian dermatologist neurologist medic hygienist",
        "chef baker waiter butcher barista brewer "
        "dishwasher waitress cheesemonger chocolatier innkeeper restaurateur",
        "violinist drummer pianist composer guitarist soprano "
        "bandleader fiddler rapper tenor clarinetist accordionist",
        "goalkeeper boxer sprinter swimmer gymnast wrestler "
        "jockey referee striker hurdler fencer snowboarder",
    ),
    things=(
        "fever bandage vaccine headache painkiller thermometer rash ambulance",
        "soup bread sandwich pancake salad cheese oven restaurant",
        "opera melody ballad orchestra microphone chorus accordion jazz",
        "soccer tennis marathon stadium medal racket penalty basketball",
    ),
    frames=(
        "the {person} told us a long story about the {thing}",
        "after the {thing} there was little that the {person} wanted",
        "somebody brought the {person} a picture of the {thing}",
        "because of the {thing} our {person} arrived late",
        "nobody knew what the {person} thought of the {thing}",
        "it was the {thing} that made the {person} laugh",
        "the {thing} in the window belonged to the {person}",
        "my neighbour the {person} dreams about the {thing} at night",
        "the {person} wrote a letter to the newspaper about the {thing}",
        "when we talked of the {thing} the {person} left the room",
    ),
    plain=(
        "the {person} lives in the yellow house near the river",
        "we met a friendly {person} on the train to the coast",
        "her cousin became a {person} after many years abroad",
    ),
)
VALIDATION = Vocabulary(
    people=(
        "doctor physician cardiologist therapist radiologist paediatrician "
        "psychiatrist orthodontist pathologist oncologist physiotherapist anaesthetist",
        "cook caterer confectioner sommelier winemaker bartender "
        "grocer fishmonger greengrocer vintner cheesemaker brewmaster",
        "cellist trumpeter singer organist saxophonist harpist "
        "songwriter flautist vocalist percussionist bassist trombonist",
        "golfer cyclist footballer skier cricketer rower "
        "quarterback athlete surfer skater weightlifter midfielder",
    ),
    things=(
        "flu antibiotic cough stethoscope hospital syringe allergy pill",
        "pasta omelette dessert sausage kitchen curry recipe cake",
        "symphony song concert choir trombone rhythm banjo album",
        "rugby hockey baseball tournament trophy volleyball olympics badminton",
    ),
    frames=(
        "this {person} asked them for some news of the {thing}",
        "before the {thing} someone had seen the {person} alone",
        "the children gave their {person} a drawing of a {thing}",
        "since the {thing} his uncle the {person} stays home",
        "who remembers whether the {person} ever liked the {thing}",
        "only the {thing} could surprise that old {person}",
        "a {thing} on the table reminded the {person} of summer",
        "your friend the {person} often jokes about the {thing}",
        "the {person} bought a thick book about the {thing}",
        "while they argued over the {thing} the {person} fell asleep",
    ),
    plain=(
        "the {person} moved into a small flat behind the station",
        "they sat beside a quiet {person} on the bus this morning",
        "his sister hopes to marry a {person} from the village",
    ),
)


def generate(seed: int = SEED) -> dict[Split, list[dict[str, Any]]]:
    """Rows with `text` and `label` (the field's name) for train and validation, balanced over the fields."""
    return {
        "train": _rows(TRAIN, SIZES["train"], np.random.default_rng([seed, 0])),
        "validation": _rows(VALIDATION, SIZES["validation"], np.random.default_rng([seed, 1])),
    }


def _rows(words: Vocabulary, n: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """n different sentences in random order, the fields by turns."""
    seen: dict[str, str] = {}
    while len(seen) < n:
        field = len(seen) % len(FIELDS)
        text = _sentence(words, field, generator)
        if text not in seen:
            seen[text] = FIELDS[field]
    rows = [{"text": text, "label": label} for text, label in seen.items()]
    return [rows[i] for i in generator.permutation(n)]


def _sentence(words: Vocabulary, field: int, generator: np.random.Generator) -> str:
    person = _one(words.people[field].split(), generator)
    if generator.random() >= WITH_DISTRACTOR:
        return _one(words.plain, generator).format(person=person)
    other = (field + 1 + int(generator.integers(len(FIELDS) - 1))) % len(FIELDS)
    thing = _one(words.things[other].split(), generator)
    return _one(words.frames, generator).format(person=person, thing=thing)


def _one(choices: Sequence[str], generator: np.random.Generator) -> str:
    return choices[int(generator.integers(len(choices)))]
