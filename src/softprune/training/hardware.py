"""The machine that a run works on, settled once and kept when it goes on; and its backbone, loaded there."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol

import torch

from softprune.config.schema import Backbone as BackboneSettings
from softprune.models import load_backbone
from softprune.models.base import Backbone
from softprune.models.loading import resolve_device, resolve_dtype
from softprune.runs.folder_checks import JSON
from softprune.runs.record import Pin
from softprune.training.free_memory import keep_freed


class Pins(Protocol):
    """What keeps the values that bits depend on, as a run does; see `RunFolder.pin`."""

    def pin(self, key: Pin, compute: Callable[[], JSON]) -> Any:
        """The value of `key`; computed where there is none yet."""


def settle_machine(run: Pins, device: str, dtype: str, threads: int | None) -> tuple[torch.device, torch.dtype]:
    """Device and dtype, and what else the bits of a run depend on: pinned at first, the run's own after a resume.

    Args:
        run: whose they are.
        device, dtype: what was asked for; `auto` is settled here.
        threads: of a CPU; None for torch's own choice.
    """
    torch.set_num_threads(int(run.pin("threads", lambda: threads or torch.get_num_threads())))
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would write NaN over memory that is written again at once: a tenth of a step, and no result depends on it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    keep_freed()
    place = torch.device(str(run.pin("backbone.device", lambda: str(resolve_device(device)))))
    number = run.pin("backbone.dtype", lambda: str(resolve_dtype(dtype, place)).removeprefix("torch."))
    return place, resolve_dtype(str(number), place)


def load(settings: BackboneSettings, run: Pins, *, whole: bool) -> Backbone:
    """The backbone of a recipe.

    Args:
        settings: which one, and how it is loaded.
        run: whose machine it is loaded on.
        whole: whether its weights will be trained: then they are float32 (float64 where that was asked for).
    """
    device, dtype = settle_machine(run, settings.device, settings.dtype, settings.threads)
    if whole and dtype != torch.float64:
        dtype = torch.float32
    return load_backbone(
        settings.name,
        family=settings.family,
        dtype=str(dtype).removeprefix("torch."),
        device=str(device) if settings.device_map == "none" else "auto",
        revision=settings.revision,
        trust_remote_code=settings.trust_remote_code,
        device_map=settings.device_map,
        quantization=settings.quantization,
        checkpointing=settings.checkpointing,
    )
