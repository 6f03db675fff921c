"""What a run costs, the same way for every method: parameters, memory by phase, time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import torch

from softprune.runs.record_parts import CostRecord, TrainingCost
from softprune.runs.worker_store import Store

# Linux: 5 written there makes the highest resident size the present one (proc(5)).
_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class PeakMemory:
    """The most memory held at once between two laps: torch's allocator's on GPUs, this process's elsewhere.

    A process's peak takes everything in, libraries and the model too, and whatever it held before.

    Args:
        device: where the model runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"

    def lap(self) -> int | None:
        """Bytes at most since the last lap; None where the system doesn't tell, or can't begin again."""
        if not self._on_gpu:
            peak = _highest_resident()
            return peak if _forget_highest() else None
        devices = range(torch.cuda.device_count())
        peaks = sum(torch.cuda.max_memory_allocated(device) for device in devices)
        for device in devices:
            torch.cuda.reset_peak_memory_stats(device)
        return int(peaks)


def record_totals(
    run: Store, *, seconds: float, trainable: int, stored: int, steps_an_epoch: int, works: Sequence[str]
) -> None:
    """Put what a finished run cost into run.json.

    Args:
        run: with every piece of work in `cost.training`.
        seconds: wall time, of earlier attempts too.
        trainable: parameters that training changes.
        stored: parameters that a user must keep, beside the model's own, to use what was trained.
        steps_an_epoch: optimiser steps of a pass over the training set.
        works: what the pieces of the method's own training begin with; an epoch's seconds are of these.
    """
    training = run.record.cost.training
    examples = sum(piece.examples for piece in training.values())
    spent = sum(piece.seconds for piece in training.values())
    own = {name: piece for name, piece in training.items() if name.startswith(tuple(works))}
    with run.editing() as record:
        cost = record.cost
        cost.seconds = seconds
        cost.steps = sum(piece.steps for piece in training.values())
        cost.examples_per_second = examples / spent if spent else None
        cost.seconds_per_epoch = seconds_per_epoch(own, steps_an_epoch)
        cost.peak_memory_bytes = _peak_bytes(cost)
        cost.trainable_parameters = trainable
        cost.stored_parameters = stored


def seconds_per_epoch(training: Mapping[str, TrainingCost], steps_an_epoch: int) -> float | None:
    """Mean seconds of a pass over the training set, evaluations on `select` included; None where nothing was trained.

    Args:
        training: pieces of work.
        steps_an_epoch: steps of a pass.
    """
    steps = sum(piece.steps for piece in training.values())
    return sum(piece.seconds for piece in training.values()) * steps_an_epoch / steps if steps else None


def _peak_bytes(cost: CostRecord) -> int:
    """The most of all phases and of what was outside of them, such as drawing the report."""
    known = [int(peak) for peak in cost.peak_memory.values() if peak is not None]
    if torch.cuda.is_available():
        return max([*known, int(torch.cuda.max_memory_allocated())])
    # Where the system keeps no peak (macOS), what is resident at the end of the run.
    return max([*known, _highest_resident() or psutil.Process().memory_info().rss])


def _highest_resident() -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return getattr(psutil.Process().memory_info(), "peak_wset", None)  # Windows
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


def _forget_highest() -> bool:
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True
