"""Tasks: where examples come from, how they read, what counts as right."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softprune.data.metrics import METRICS, Metric, answered, constant_answer, metric_named
    from softprune.data.splits import Selection, select_sets
    from softprune.data.task import Splits, Task, load_task, task_names

_HOMES = {
    "METRICS": "metrics",
    "Metric": "metrics",
    "Selection": "splits",
    "Splits": "task",
    "Task": "task",
    "answered": "metrics",
    "constant_answer": "metrics",
    "load_task": "task",
    "metric_named": "metrics",
    "select_sets": "splits",
    "task_names": "task",
}
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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
