"""What a run costs, the same way for every method: parameters, memory, time, and how long an answer takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch

from softprune.models.base import Backbone
from softprune.runs.run_folder import RunFolder
from softprune.training.memory import highest_resident
from softprune.training.scoring import ScoredSet
from softprune.types import Batch

SIZES = (1, 8, 32)  # examples of a batch whose latency is measured
CALLS, FEWEST, WARM = 30, 5, 2  # timed calls of each size, how many there are at least, and untimed ones before them
SECONDS = 20.0  # after which no size gets more calls than the fewest


def record_time(run: RunFolder, seconds: float) -> None:
    """Put steps, examples a second and wall time (of earlier attempts too) of a finished run into run.json."""
    with run.editing() as record:
        training = record.cost.training.values()
        spent = sum(piece.seconds for piece in training)
        record.cost.seconds = seconds
        record.cost.steps = sum(piece.steps for piece in training)
        record.cost.examples_per_second = None
        if spent:
            record.cost.examples_per_second = sum(piece.examples for piece in training) / spent


def record_totals(
    run: RunFolder, *, seconds: float, trainable: int, stored: int, steps_an_epoch: int, works: Sequence[str]
) -> None:
    """Put what a finished run cost into run.json; every piece of its work is in `cost.training`.

    `seconds` are of earlier attempts too; `trainable` and `stored` count the parameters that training changes, and that
    a user must keep beside the model's own. An epoch's seconds, with its evaluations on `select`, are of the method's
    own training: the pieces of work whose names begin with one of `works`. None where nothing was trained.
    """
    record_time(run, seconds)
    own = [piece for name, piece in run.record.cost.training.items() if name.startswith(tuple(works))]
    own_steps, seconds_an_epoch = sum(piece.steps for piece in own), None
    if own_steps:
        seconds_an_epoch = sum(piece.seconds for piece in own) * steps_an_epoch / own_steps
    peaks = [peak for peak in run.record.cost.peak_memory.values() if peak is not None]
    # Of the work outside of all phases too, such as drawing the report.
    if torch.cuda.is_available():
        peaks.append(int(torch.cuda.max_memory_allocated()))
    else:  # where the system keeps no peak (macOS), what is resident at the end of the run
        peaks.append(highest_resident() or psutil.Process().memory_info().rss)
    with run.editing() as record:
        cost = record.cost
        cost.seconds_per_epoch = seconds_an_epoch
        cost.peak_memory_bytes = max(peaks)
        cost.trainable_parameters = trainable
        cost.stored_parameters = stored


@dataclass(frozen=True, slots=True)
class Way:
    """A way to read batches: what is timed, and what it is done within, untimed."""

    read: Callable[[Batch], torch.Tensor]
    around: Callable[[], AbstractContextManager[object]] = nullcontext


def behind_prompt(
    backbone: Backbone, prompt_QH: torch.Tensor, around: Callable[[], AbstractContextManager[object]] = nullcontext
) -> Way:
    """Reads a batch behind a prompt; Q may be 0."""
    return Way(lambda batch: backbone.shared_sums(prompt_QH[None], batch), around)


def latency(
    backbone: Backbone,
    data: ScoredSet,
    ways: Mapping[str, Way],
    sizes: Sequence[int] = SIZES,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Seconds of each way to read real batches: the median and the 95th percentile of single calls.

    The ways take turns, and which goes first does too, so that none has the quieter moments. A call counts from token
    ids to scores in Python. Inputs are read in their order, again from the first where they run out. The result is, by
    size (as text), `{calls: n, name: {p50, p95}, ...}`.
    """
    by_size: dict[str, Any] = {}
    for size in sizes:
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        begun, names = clock(), list(ways)
        for call in range(-WARM, CALLS):
            if call >= FEWEST and clock() - begun > SECONDS:
                break
            indices = [(max(call, 0) * size + i) % len(data) for i in range(size)]
            for name in names if call % 2 else names[::-1]:
                with torch.inference_mode(), ways[name].around():
                    before = clock()
                    ways[name].read(data.batch(backbone, indices)).tolist()  # a list waits for a GPU
                    taken = clock() - before
                if call >= 0:
                    seconds[name].append(taken)
        by_size[str(size)] = {"calls": len(seconds[names[0]])}
        for name in names:
            p50, p95 = np.quantile(seconds[name], (0.5, 0.95))
            by_size[str(size)][name] = {"p50": float(p50), "p95": float(p95)}
    return by_size
