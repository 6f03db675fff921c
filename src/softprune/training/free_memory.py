"""Memory of a GPU, or of this process and its machine: free, held, the most held at once, and kept between steps."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import torch

# Limit, use, and in memory.stat the file pages that the kernel gives back when asked; by version of control groups.
_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}
# Of glibc's malloc.h. 32 MB is the most that it takes for the first.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST = 32 << 20
# Linux: 5 written there makes the highest resident size the present one (proc(5)).
_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def keep_freed(most: int = 1 << 30) -> bool:
    """Have the C library keep so many freed bytes of a step for the next one; false where it isn't glibc.

    By default it gives a step's tensors back to the kernel, which clears each page again before the next step has it:
    a tenth of a step of 16 candidates.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST) and mallopt(_TRIM_THRESHOLD, most))


def give_back() -> None:
    """Have the C library give back what it kept of freed memory, as far as it is glibc."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def free_bytes(device: torch.device, root: Path = Path("/")) -> int | None:
    """Bytes that a step may take on a device; None for one that is neither a GPU of CUDA nor a CPU.

    On a GPU, what is free there and what torch's allocator holds unused. On a CPU, the smaller of the machine's
    available memory and what the control groups leave of their limits; `root` is that of the file system.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    if device.type != "cpu":
        return None
    return min((int(psutil.virtual_memory().available), *_left_of_groups(root)))


def held_bytes(device: torch.device) -> int:
    """Bytes that this process holds: on a GPU, or resident in memory."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return int(psutil.Process().memory_info().rss)


class PeakMemory:
    """The most memory held at once between two laps: torch's allocator's on GPUs, this process's elsewhere.

    A process's peak takes everything in, libraries and the model too, and whatever it held before.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"

    def lap(self) -> int | None:
        """Bytes at most since the last lap; None where the system doesn't tell, or can't begin again."""
        if self._on_gpu:
            devices = range(torch.cuda.device_count())
            peaks = sum(torch.cuda.max_memory_allocated(device) for device in devices)
            for device in devices:
                torch.cuda.reset_peak_memory_stats(device)
            return int(peaks)
        peak = highest_resident()
        try:
            _CLEAR.write_text("5")
        except OSError:
            return None
        return peak


def highest_resident() -> int | None:
    """The most bytes of memory that this process held; None where the system doesn't tell (macOS)."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return getattr(psutil.Process().memory_info(), "peak_wset", None)  # Windows
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


def _left_of_groups(root: Path) -> Iterator[int]:
    """What this process's control groups leave, and all groups above them.

    In a container the path that the kernel names may lie outside of what is mounted; its root is the own group then.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        version, top = (1, root / "sys/fs/cgroup/memory") if controllers else (2, root / "sys/fs/cgroup")
        limit_file, used_file, droppable = _FILES[version]
        own = top / path.lstrip("/")
        for folder in (own, *own.parents):
            limit, used = _read(folder / limit_file).strip(), _read(folder / used_file).strip()
            if limit.isdigit() and used.isdigit():  # else there is no such group, or it has no limit: `max`
                stat = _read(folder / "memory.stat").splitlines()
                cached = [int(line.split()[1]) for line in stat if line.startswith(f"{droppable} ")]
                yield max(0, int(limit) - int(used) + sum(cached))
            if folder == top:
                break


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
