"""Tasks: where examples come from, how they read, what counts as right."""

from __future__ import annotations

from softprune.data.metrics import METRICS, Metric, answered, constant_answer, metric_named
from softprune.data.splits import Selection, Splits, select_sets
from softprune.data.task import Task, load_task, task_names

__all__ = [
    "METRICS",
    "Metric",
    "Selection",
    "Splits",
    "Task",
    "answered",
    "constant_answer",
    "load_task",
    "metric_named",
    "select_sets",
    "task_names",
]
