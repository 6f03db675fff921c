"""How much memory is free: of a GPU, or of the machine and of the control group that this process is held to.

And what of it the C library keeps from one step to the next.
"""

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
    available memory and what the control groups leave of their limits.

    Args:
        device: where the model runs.
        root: of the file system.
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


def _left_of_groups(root: Path) -> Iterator[int]:
    """What this process's control groups leave, and all groups above them.

    In a container the path that the kernel names may lie outside of what is mounted; its root is the own group then.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        version, top = (1, root / "sys/fs/cgroup/memory") if controllers else (2, root / "sys/fs/cgroup")
        own = top / path.lstrip("/")
        for folder in (own, *own.parents):
            yield from _left(folder, version)
            if folder == top:
                break


def _left(folder: Path, version: int) -> Iterator[int]:
    limit, used, droppable = _FILES[version]
    texts = [_read(folder / name).strip() for name in (limit, used)]
    if not all(text.isdigit() for text in texts):  # no such group, or `max`: without a limit
        return
    stat = dict(line.split(maxsplit=1) for line in _read(folder / "memory.stat").splitlines() if " " in line)
    yield max(0, int(texts[0]) - int(texts[1]) + int(stat.get(droppable, 0)))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
