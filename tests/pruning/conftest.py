from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from whole_runs import Models, Run

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "tuning")]

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


@pytest.fixture(scope="session")
def run_of(tmp_path_factory: pytest.TempPathFactory, tiny_models: Models, task_file: Path) -> Callable[[str], Run]:
    """The finished run of each case, once a session."""
    from whole_runs import CASES, execute_one

    runs: dict[str, Run] = {}

    def run(case: str) -> Run:
        if case not in runs:
            out = tmp_path_factory.mktemp("runs") / "run"
            runs[case] = execute_one(tiny_models("sentence"), task_file, out, *CASES[case])
        return runs[case]

    return run
