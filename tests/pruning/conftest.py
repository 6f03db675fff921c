from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tuning"))

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


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Runs pin threads and determinism for the whole process: put both back."""
    import torch

    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(scope="session")
def task_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task of one's own: 24 training texts and 15 that are reported on, all different."""
    folder = tmp_path_factory.mktemp("mood")
    (folder / "mood.yaml").write_text(TASK)
    opinions = {"good": "a slow and quiet joy", "bad": "a dull plot that never wakes up", "so": "a red box"}
    subjects = ("the film", "the meal", "the river", "the room", "she said", "the cold wind", "he", "a heavy box")
    rows = [(f"{subject} was {text}", label) for subject in subjects for label, text in opinions.items()]
    reported = [(f"{text} , the {thing} it was", label) for thing in CAST for label, text in opinions.items()]
    for name, lines in (("train", rows), ("validation", reported)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *lines])
    return folder / "mood.yaml"


CAST = ("cast", "scene", "window", "children", "cheese")
