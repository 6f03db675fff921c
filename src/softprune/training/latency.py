"""How long an answer takes: reading inputs and scoring their answers, with what was trained and without it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from softprune.models.base import Backbone, cross_with_batch
from softprune.prompts.soft_prompts import read_one
from softprune.training.jobs import Fitted
from softprune.training.scoring import ScoredSet
from softprune.training.session import Workspace
from softprune.types import Batch

SIZES = (1, 8, 32)
"""Examples of a batch."""
CALLS, FEWEST, WARM = 30, 5, 2
"""Timed calls of each size, how many there are at least, and untimed ones before them."""
SECONDS = 20.0
"""After which no size gets more calls than the fewest."""

Read = Callable[[Batch], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Way:
    """A way to read batches.

    Attributes:
        read: what is timed.
        around: what it is done within, untimed.
    """

    read: Read
    around: Callable[[], AbstractContextManager[object]] = nullcontext


def measure_latency(workspace: Workspace, fitted: Fitted) -> None:
    """Where the recipe asks for it, the latency of a prompt and of no prompt, once a run: `cost.latency`."""
    if not workspace.recipe.tuning.latency:
        return
    backbone, run = workspace.backbone, workspace.run
    prompt_QH = read_one(fitted.state, workspace.recipe.pruning.removal).to(backbone.device, backbone.prompt_dtype)
    reads = {"with": Way(prompted(backbone, prompt_QH)), "without": Way(prompted(backbone, prompt_QH[:0]))}
    with run.phase("latency"):
        run.pin("cost.latency", lambda: latency(backbone, workspace.select, reads))


def prompted(backbone: Backbone, prompt_QH: torch.Tensor) -> Read:
    """Reads a batch behind a prompt; Q may be 0."""

    def read(batch: Batch) -> torch.Tensor:
        return backbone.answer_sums(cross_with_batch(prompt_QH[None], len(batch)), batch)

    return read


def latency(
    backbone: Backbone,
    data: ScoredSet,
    reads: Mapping[str, Way],
    sizes: Sequence[int] = SIZES,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Seconds of each way to read real batches: the median and the 95th percentile of single calls.

    The ways take turns, and which goes first does too, so that none has the quieter moments. A call counts from token
    ids to scores in Python.

    Args:
        backbone: the model.
        data: whose inputs are read, in their order, again from the first where they run out.
        reads: ways to read a batch, such as `with` and `without` a prompt.
        sizes: examples of a batch.
        clock: what tells seconds.

    Returns:
        By size (as text), `{calls: n, name: {p50, p95}, ...}`.
    """
    found: dict[str, Any] = {}
    for size in sizes:
        seconds: dict[str, list[float]] = {name: [] for name in reads}
        begun, names = clock(), list(reads)
        for call in range(-WARM, CALLS):
            if call >= FEWEST and clock() - begun > SECONDS:
                break
            indices = [(max(call, 0) * size + i) % len(data) for i in range(size)]
            for name in names if call % 2 else names[::-1]:
                taken = _timed(backbone, data, indices, reads[name], clock)
                if call >= 0:
                    seconds[name].append(taken)
        found[str(size)] = {"calls": len(seconds[names[0]])} | {name: percentiles(s) for name, s in seconds.items()}
    return found


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile."""
    p50, p95 = np.quantile(seconds, (0.5, 0.95))
    return {"p50": float(p50), "p95": float(p95)}


def _timed(backbone: Backbone, data: ScoredSet, indices: Sequence[int], way: Way, clock: Callable[[], float]) -> float:
    with torch.inference_mode(), way.around():
        begun = clock()
        way.read(data.batch(backbone, indices)).tolist()  # a list waits for a GPU
        return clock() - begun
