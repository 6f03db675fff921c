"""A few rows of each task, written for softprune: what a task looks like where its data can't be reached."""

from __future__ import annotations

from pathlib import Path

from softprune.data.row_files import read_rows
from softprune.data.task import Task
from softprune.data.template import examples_from
from softprune.types import Example

SAMPLES = Path(__file__).parent / "samples"


def load_sample(task: Task) -> tuple[Example, ...]:
    """The sample of a task that ships, as examples; none for your own tasks and for generated ones.

    Its rows stand in the row form of the official files, whatever their format.
    """
    path, source = SAMPLES / f"{task.id}.jsonl", task.definition.sources.official
    if source is None or not path.exists() or not task.ships:
        return ()
    return tuple(examples_from(task.definition, source, read_rows(path, "jsonl")))
