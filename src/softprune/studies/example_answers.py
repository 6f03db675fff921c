"""What a run's prompts answered to each example of `report`, as its predictions files keep it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, TypeAlias

from softprune.data import Metric, answered
from softprune.errors import SoftpruneError
from softprune.statistics.methods_over_seeds import Scored
from softprune.studies.run_result import FinishedRun

Line: TypeAlias = "Mapping[str, Any]"
"""Of a predictions file: id, group, gold, predicted, scores."""


def read_answers(made: FinishedRun, row: str, task: str = "") -> list[Line]:
    """What one of a run's prompts answered.

    Args:
        made: the run.
        row: which of its results.
        task: of a run on several tasks, the one whose examples are meant, their ids as in a run of that task alone.

    Raises:
        SoftpruneError: the file isn't there.
    """
    path = made.path / "predictions" / f"{row}.jsonl"
    if not path.is_file():
        raise SoftpruneError(f"what {row} answered", f"no file {path}", "remove that run's folder, and run again")
    # Not splitlines: a text may hold a line separator of Unicode, which JSON leaves as it is.
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    if not task:
        return lines
    before = f"{task}:"
    return [_renamed(line, before) for line in lines if line["id"].startswith(before)]


def scored_lines(lines: Sequence[Line], metric: Metric) -> Scored:
    """The counts of every example."""
    counts_NC = metric.counts(answered([line["predicted"] for line in lines], [line["gold"] for line in lines]))
    return Scored(counts_NC, tuple(line["id"] for line in lines), tuple(line.get("group") for line in lines))


def agreement(parts: Sequence[Sequence[Line]]) -> float:
    """The share of examples to which all prompts give the same answer."""
    return fmean(len({line["predicted"] for line in lines}) == 1 for lines in zip(*parts, strict=True))


def _renamed(line: Line, before: str) -> Line:
    group = {"group": line["group"].removeprefix(before)} if line.get("group") else {}
    return {**line, **group, "id": line["id"].removeprefix(before)}
