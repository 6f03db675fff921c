"""Small studies on a random tiny model, with two tasks that need no data of the machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mood import write_mood
from softprune.config import Study
from softprune.studies.study_context import StudyContext

SMALL: dict[str, Any] = {
    "backbone": {"dtype": "float32", "device": "cpu", "threads": 1},
    "task": {"shots": 24, "limit_report": 12, "max_length": 48},
    "prompt": {"tokens": 4, "pieces": 4},
    "tuning": {"epochs": 2},
    "search": {"strategy": "sequential", "token_ratios": [0.5], "piece_ratios": [0.5], "group": 1},
    "selection": {"seeds": 0, "resamples": 200},
}


def small_bench(folder: Path, model: Path, experiment: str, keys: Mapping[str, Any], **changes: Any) -> StudyContext:
    """A study of two tasks and two seeds in `folder`; nothing is made yet."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks = ["demo", str(write_mood(folder, ("film", "meal", "river", "room")))]
    scale = {"backbone": str(model), "tasks": tasks, "seeds": 2, "keys": SMALL}
    values = {"title": "small", "experiment": experiment, "keys": dict(keys), "scales": {"smoke": scale}} | changes
    return StudyContext(Study.model_validate(values), folder, folder / "studies")
