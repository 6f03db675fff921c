"""What the runs of a comparison left, read from their folders alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from softprune.data import Metric, answered
from softprune.errors import SoftpruneError
from softprune.statistics.methods_over_seeds import Floats, Scored
from softprune.studies.comparison.cells import Cell
from softprune.training.lr_sweep import work_of
from softprune.types import Scores

ROWS: Final = {"tune": "tuned", "xprompt": "winner", "adapt": "adapted"}
"""By kind of run, the row of its results that stands for the method."""
TRAINING: Final = ("sweep", "tune", "adapt", "importance", "gates", "rank", "retrain")
"""Phases that make what is used in the end; the rest compares, writes and reports."""
MEASURED: Final = ("seconds", "seconds_per_epoch", "examples_per_second", "peak_memory")
"""Measured by a clock or as memory, like `latency`; all else is the same bit by bit, also after interruptions."""
TEXTS: Final = ("loss", "rouge1", "rouge2", "rougeL")
"""What rows of tasks whose targets are texts have beside their metric."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run says of one row; None where it wasn't measured.

    Attributes:
        value: the metric on `report`.
        interval: its own, as the run has it.
        scored: the counts of every example, for intervals.
        others: further metrics of the row.
        answer: the constant one, or what stands in its place where texts are written.
        lr: the learning rate that counted.
        multiple: of the method's rate, as the sweep chose it; None where nothing was swept.
        trainable, stored: parameters.
        seconds: of training, everything that the method needs.
        seconds_per_epoch, examples_per_second: of it.
        peak_memory: bytes while training.
        latency: by batch size, `{with: {p50, p95}, without: ...}`.
    """

    value: float
    interval: tuple[float, float] | None = None
    scored: Scored | None = None
    others: Mapping[str, float] | None = None
    answer: str | None = None
    lr: float | None = None
    multiple: str | None = None
    trainable: int | None = None
    stored: int | None = None
    seconds: float | None = None
    seconds_per_epoch: float | None = None
    examples_per_second: float | None = None
    peak_memory: int | None = None
    latency: Mapping[str, Any] | None = None


def measured(cell: Cell, metric: Metric) -> Measured:
    """What a finished run says of its method.

    Raises:
        SoftpruneError: where its files aren't as softprune wrote them.
    """
    info, name = read_info(cell.path), ROWS[cell.recipe.kind]
    found = _row(cell.path, info, name, metric)
    if found is None:
        raise SoftpruneError(f"a result named {name}", f"none in {cell.path}", "remove that folder, and run again")
    cost = info["cost"]
    phases, peaks = cost.get("phases") or {}, cost.get("peak_memory") or {}
    sweep = info.get("sweep") or {}
    return replace(
        found,
        lr=(info.get("settings") or {}).get("lr"),
        multiple=next((multiple for multiple, row in sweep.items() if row.get("chosen")), None),
        trainable=cost.get("trainable_parameters"),
        stored=cost.get("stored_parameters"),
        seconds=sum(phases[phase] for phase in TRAINING if phase in phases) or None,
        seconds_per_epoch=cost.get("seconds_per_epoch"),
        examples_per_second=cost.get("examples_per_second"),
        peak_memory=max((peaks[phase] for phase in TRAINING if peaks.get(phase)), default=None),
        latency=cost.get("latency"),
    )


def control(cell: Cell, metric: Metric) -> Measured | None:
    """The unpruned prompt that an XPrompt run retrains as it does its tickets; None where there is none."""
    info = read_info(cell.path)
    found = _row(cell.path, info, "control", metric)
    if found is None:
        return None
    row, cost = info["results"]["control"], info["cost"]
    return replace(
        found,
        lr=(info.get("settings") or {}).get("lr"),
        trainable=cost.get("trainable_parameters"),
        stored=row.get("parameters"),
        seconds=None if row.get("seconds") is None else row["seconds"] + _other_rates(info),
    )


def floors(cell: Cell, metric: Metric) -> dict[str, Measured]:
    """What nothing is trained for: the model as it comes, and the best constant answer."""
    info = read_info(cell.path)
    found = {name: _row(cell.path, info, name, metric) for name in ("zero_shot", "constant")}
    return {name: row for name, row in found.items() if row is not None}


def read_info(path: Path) -> dict[str, Any]:
    """A run's run.json.

    Raises:
        SoftpruneError: it can't be read.
    """
    try:
        info: dict[str, Any] = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SoftpruneError(
            "a run that can be read", f"{path}: {error}", "remove that folder, and run again"
        ) from error
    return info


def _other_rates(info: Mapping[str, Any]) -> float:
    """Seconds of the learning rates that a sweep tried and didn't choose; the chosen one's are the tuned prompt's."""
    pieces = info["cost"].get("training") or {}
    others = [work_of(float(name)) for name, row in (info.get("sweep") or {}).items() if not row.get("chosen")]
    return float(sum(pieces[work]["seconds"] for work in others if work in pieces))


def _row(path: Path, info: Mapping[str, Any], name: str, metric: Metric) -> Measured | None:
    row = (info.get("results") or {}).get(name)
    if not row or row.get("value") is None:
        return None
    others = {key: row[key] for key in TEXTS if row.get(key) is not None}
    low, high = row.get("interval") or (None, None)
    interval = None if low is None or high is None else (float(low), float(high))
    scored = read_scored(path / "predictions" / f"{name}.jsonl", metric)
    return Measured(row["value"], interval, scored=scored, others=others, answer=row.get("answer"))


def read_scored(path: Path, metric: Metric) -> Scored | None:
    """The counts of each example: of answers by the metric, of texts their own scores."""
    if not path.is_file():
        return None
    # Not splitlines: a text may hold a line separator of Unicode, which JSON leaves as it is.
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    counts = _counts(lines, metric) if lines else None
    if counts is None:
        return None
    ids = tuple(str(line["id"]) for line in lines)
    return Scored(counts, ids, tuple(line.get("group") for line in lines))


def _counts(lines: Sequence[Mapping[str, Any]], metric: Metric) -> Floats | None:
    if all(isinstance(line.get("predicted"), int) and isinstance(line.get("gold"), int) for line in lines):
        return metric.counts(answered([line["predicted"] for line in lines], [line["gold"] for line in lines]))
    if all(isinstance(line.get(metric.name), int | float) for line in lines):
        return np.array([[line[metric.name], 1.0] for line in lines])
    if all(isinstance(line.get(name), str) for line in lines for name in ("written", "reference")):
        texts, references = (tuple(line[name] for line in lines) for name in ("written", "reference"))
        return metric.counts(Scores(texts=texts, references=references))
    return None
