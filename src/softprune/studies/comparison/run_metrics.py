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
from softprune.runs.record import RunRecord, read_record
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
    record, name = read_record(cell.path, RunRecord), ROWS[cell.recipe.kind]
    found = _row(cell.path, record, name, metric)
    if found is None:
        raise SoftpruneError(f"a result named {name}", f"none in {cell.path}", "remove that folder, and run again")
    cost, sweep = record.cost, record.sweep
    phases, peaks = cost.phases, cost.peak_memory
    return replace(
        found,
        lr=None if record.settings is None else record.settings.lr,
        multiple=next((multiple for multiple, row in sweep.items() if row.chosen), None),
        trainable=cost.trainable_parameters,
        stored=cost.stored_parameters,
        seconds=sum(phases[phase] for phase in TRAINING if phase in phases) or None,
        seconds_per_epoch=cost.seconds_per_epoch,
        examples_per_second=cost.examples_per_second,
        peak_memory=max((peak for phase in TRAINING if (peak := peaks.get(phase))), default=None),
        latency=cost.document()["latency"] if cost.latency else None,
    )


def control(cell: Cell, metric: Metric) -> Measured | None:
    """The unpruned prompt that an XPrompt run retrains as it does its tickets; None where there is none."""
    record = read_record(cell.path, RunRecord)
    found, row = _row(cell.path, record, "control", metric), record.results.get("control")
    if found is None or row is None:
        return None
    return replace(
        found,
        lr=None if record.settings is None else record.settings.lr,
        trainable=record.cost.trainable_parameters,
        stored=row.parameters,
        seconds=None if row.seconds is None else row.seconds + _other_rates(record),
    )


def floors(cell: Cell, metric: Metric) -> dict[str, Measured]:
    """What nothing is trained for: the model as it comes, and the best constant answer."""
    record = read_record(cell.path, RunRecord)
    found = {name: _row(cell.path, record, name, metric) for name in ("zero_shot", "constant")}
    return {name: row for name, row in found.items() if row is not None}


def _other_rates(record: RunRecord) -> float:
    """Seconds of the learning rates that a sweep tried and didn't choose; the chosen one's are the tuned prompt's."""
    pieces = record.cost.training
    others = [work_of(float(name)) for name, row in record.sweep.items() if not row.chosen]
    return float(sum(pieces[work].seconds for work in others if work in pieces))


def _row(path: Path, record: RunRecord, name: str, metric: Metric) -> Measured | None:
    row = record.results.get(name)
    if row is None or row.value is None:
        return None
    others = {key: value for key in TEXTS if (value := getattr(row, key)) is not None}
    scored = scored_of(path / "predictions" / f"{name}.jsonl", metric)
    return Measured(row.value, row.interval, scored=scored, others=others, answer=row.answer)


def scored_of(path: Path, metric: Metric) -> Scored | None:
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
