from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from softprune.backbone.base import Backbone
    from softprune.methods.deep import DeepPrompt

sys.path.insert(0, str(Path(__file__).parent))

TASK = """
id: mood
version: 1
title: Mood
instruction: Tell the mood of a text.
fields: {text: {shortenable: true}}
template: "{text} . it was {mask}"
answers: [positive, negative, neutral]
sources:
  file:
    format: csv
    files: {train: train.csv, validation: validation.csv}
    labels: {good: positive, bad: negative, so: neutral}
"""
THINGS = ("cast", "scene", "window", "children")


@pytest.fixture(scope="session")
def task_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task of one's own: 24 training texts and 12 that are reported on, all different."""
    folder = tmp_path_factory.mktemp("mood")
    (folder / "mood.yaml").write_text(TASK)
    opinions = {"good": "a slow and quiet joy", "bad": "a dull plot that never wakes up", "so": "a red box"}
    subjects = ("the film", "the meal", "the river", "the room", "she said", "the cold wind", "he", "a heavy box")
    rows = [(f"{subject} was {text}", label) for subject in subjects for label, text in opinions.items()]
    reported = [(f"{text} , the {thing} it was", label) for thing in THINGS for label, text in opinions.items()]
    for name, lines in (("train", rows), ("validation", reported)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *lines])
    return folder / "mood.yaml"


@pytest.fixture
def attached() -> Iterator[Callable[..., DeepPrompt]]:
    """`attach_prefix` that detaches when the test is over: backbones are shared by the session."""
    from softprune.methods.deep import attach_prefix

    made: list[DeepPrompt] = []

    def attach(backbone: Backbone, project: bool = False, seed: int = 0, hidden: int | None = 24) -> DeepPrompt:
        made.append(attach_prefix(backbone, 5, project=project, hidden=hidden, seed=seed))
        return made[-1]

    yield attach
    for prefix in made:
        prefix.detach()
