"""A small task of one's own in a folder: the mood of a text."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

TASK = """
id: mood
version: 1
title: Mood
instruction: Tell the mood of a text.
fields: {text: {shortenable: true}}
template: "{text} . it was {mask}"
answers: [positive, negative, neutral]
metric: accuracy
sources:
  file:
    format: csv
    files: {train: train.csv, validation: validation.csv}
    labels: {good: positive, bad: negative, so: neutral}
"""


def write_mood(folder: Path, things: Sequence[str]) -> Path:
    """24 training texts and three for each thing that are reported on, all different; the task's YAML."""
    (folder / "mood.yaml").write_text(TASK)
    opinions = {"good": "a slow and quiet joy", "bad": "a dull plot that never wakes up", "so": "a red box"}
    subjects = ("the film", "the meal", "the river", "the room", "she said", "the cold wind", "he", "a heavy box")
    rows = [(f"{subject} was {text}", label) for subject in subjects for label, text in opinions.items()]
    reported = [(f"{text} , the {thing} it was", label) for thing in things for label, text in opinions.items()]
    for name, lines in (("train", rows), ("validation", reported)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *lines])
    return folder / "mood.yaml"
