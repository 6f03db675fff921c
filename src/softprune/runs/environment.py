"""What a run ran on: versions and hardware."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

import psutil

_PACKAGES = ("softprune", "torch", "transformers", "numpy")


@cache  # reading packages' metadata takes 25 ms, and a study asks for it in every run
def versions() -> dict[str, str | None]:
    """Python's version and those of the packages that numbers depend on; None where not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def hardware() -> dict[str, str | int | None]:
    """The processor, its cores that this process may use, memory in bytes, and the first GPU's name."""
    return {"cpu": _cpu_model(), "cores": _cores(), "memory_bytes": psutil.virtual_memory().total, "gpu": _gpu_name()}


def _cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine() or None


def _cores() -> int | None:
    if hasattr(os, "sched_getaffinity"):  # Linux alone has it
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _gpu_name() -> str | None:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
