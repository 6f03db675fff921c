"""Small studies of several tasks on a random tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mood import write_mood
from softprune.config import Study, load_study
from softprune.studies.findings import Cell, Findings
from softprune.studies.study_context import StudyContext

YAML = """
kind: study
title: Small
experiment: {experiment}
keys:
  kind: xprompt
  backbone: {{dtype: float32, device: cpu, threads: 1}}
  task: {{shots: 12, limit_report: 12, max_length: 32}}
  prompt: {{tokens: 4, pieces: 4}}
  tuning: {{epochs: 1, batch_size: 8, latency: false}}
  search: {{strategy: grid, token_ratios: [0.5], piece_ratios: [0.5], epochs: 1, group: 2}}
  selection: {{seeds: 0, resamples: 200}}
scales:
  smoke: {{backbone: "{model}", tasks: {tasks}, seeds: {seeds}, options: {{timed: 4, repeats: 1}}}}
"""


def study_of(experiment: str, model: Path, folder: Path, tasks: list[str], seeds: int = 1) -> Study:
    file = folder / "study.yaml"
    file.write_text(YAML.format(experiment=experiment, model=model, tasks=tasks, seeds=seeds))
    return load_study(file)


def bench_of(study: Study, folder: Path) -> StudyContext:
    return StudyContext(study, folder, folder / "studies")


def moods(folder: Path) -> list[str]:
    """Two tasks with the same answers in another order, on other texts, read otherwise."""
    for name in ("one", "two"):
        (folder / name).mkdir()
    first, second = write_mood(folder / "one", ("cast", "scene", "window")), write_mood(folder / "two", ("mood", "man"))
    text = second.read_text().replace("id: mood", "id: tone").replace(". it was {mask}", ", so {mask}")
    second.write_text(text.replace("[positive, negative, neutral]", "[neutral, negative, positive]"))
    return [str(first), str(second)]


def column(found: Findings, table: str, head: str) -> dict[str, Any]:
    """The cells of a column by the names of their rows."""
    (wanted,) = [each for each in found.tables if each.name == table]
    at = wanted.columns.index(head)
    return {str(row[0]): row[at] for row in wanted.rows}


def value(entry: Cell | str) -> float:
    assert isinstance(entry, Cell)
    assert entry.value is not None
    return entry.value
