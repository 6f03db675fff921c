"""The machine that a run works on, settled once and kept when it goes on; and its backbone, loaded there."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import Any, Literal, Protocol

import torch

from softprune.config import BackboneConfig
from softprune.models import load_backbone
from softprune.models.base import Backbone
from softprune.models.description import BackboneDescription
from softprune.models.loading import resolve_device, resolve_dtype
from softprune.runs.job_folder import JSON
from softprune.runs.record import Pin
from softprune.training.memory import keep_freed

# More threads must win by a margin: then the same machine chooses alike in nearly all runs, whose bits depend on it.
CLEARLY_FASTER = 0.9
# Timed steps at each number of threads, and seconds after which no further one is begun.
TIMED_STEPS, SECONDS = 5, 0.2


class Pins(Protocol):
    """What keeps the values that bits depend on, as a run does; see `RunFolder.pin`."""

    def pin(self, key: Pin, compute: Callable[[], JSON]) -> Any:
        """The value of `key`; computed where there is none yet."""


def settle_machine(
    run: Pins, device: str, dtype: str, threads: int | Literal["auto"] | None
) -> tuple[torch.device, torch.dtype]:
    """Device and dtype, and what else the bits of a run depend on: pinned at first, the run's own after a resume.

    Threads None are torch's own choice; `auto` ones are left to `choose_threads`, which must follow.
    """
    if threads != "auto":
        torch.set_num_threads(int(run.pin("threads", lambda: threads or torch.get_num_threads())))
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would write NaN over memory that is written again at once: a tenth of a step, and no result depends on it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    keep_freed()
    place = torch.device(str(run.pin("backbone.device", lambda: str(resolve_device(device)))))
    number = run.pin("backbone.dtype", lambda: str(resolve_dtype(dtype, place)).removeprefix("torch."))
    return place, resolve_dtype(str(number), place)


def choose_threads(run: Pins, device: torch.device, step: Callable[[], object]) -> str | None:
    """Settle the CPU threads of a run by timing a step on one thread and on all that torch would take.

    Small models wait longer for their threads than these save: on `tiny` a step took 142 ms on two, and 57 on one.
    Returns what was measured, for the run's notes; None on a GPU, on one core, or where a run has settled them before.
    """
    most = torch.get_num_threads()
    notes: list[str] = []

    def measure() -> int:
        if device.type != "cpu" or most == 1:
            return most
        one, all_of_them = _fastest_step(step, 1), _fastest_step(step, most)
        best = most if all_of_them < CLEARLY_FASTER * one else 1
        took = f"a step took {1000 * one:.0f} ms on one and {1000 * all_of_them:.0f} ms on {most}"
        notes.append(f"CPU threads: {best}, since {took}")
        return best

    torch.set_num_threads(int(run.pin("threads", measure)))
    return notes[0] if notes else None


def _fastest_step(step: Callable[[], object], threads: int) -> float:
    torch.set_num_threads(threads)
    step()  # the first one also makes what later ones find: buffers, kernels, the threads themselves
    begun, fastest = time.perf_counter(), math.inf
    for _ in range(TIMED_STEPS):
        before = time.perf_counter()
        step()
        fastest = min(fastest, time.perf_counter() - before)
        if time.perf_counter() - begun > SECONDS:
            break
    return fastest


def load(settings: BackboneConfig, described: BackboneDescription, run: Pins, *, whole: bool) -> Backbone:
    """The backbone of a recipe, on the run's machine.

    Where its weights will be trained (`whole`) they are float32, or float64 where that was asked for.
    """
    device, dtype = settle_machine(run, settings.device, settings.dtype, settings.threads)
    if whole and dtype != torch.float64:
        dtype = torch.float32
    return load_backbone(
        described,
        dtype=str(dtype).removeprefix("torch."),
        device=str(device) if settings.device_map == "none" else "auto",
        device_map=settings.device_map,
        quantization=settings.quantization,
        checkpointing=settings.checkpointing,
    )
