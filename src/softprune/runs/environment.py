"""What a run ran on: versions and hardware."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
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
    import torch

    cpu: str | None = platform.processor() or platform.machine() or None
    with suppress(OSError):  # Linux alone has this file, and says no more than "x86_64" elsewhere
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
    cores = os.cpu_count()
    if hasattr(os, "sched_getaffinity"):  # Linux alone has it
        cores = len(os.sched_getaffinity(0))
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {"cpu": cpu, "cores": cores, "memory_bytes": psutil.virtual_memory().total, "gpu": gpu}
