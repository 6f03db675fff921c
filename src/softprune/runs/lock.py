"""At most one live process works in a run folder; the kernel lets go of the lock when the process ends."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from softprune.errors import SoftpruneError

LOCK = ".lock"
_ATTEMPTS = 5
_PAUSE_SECONDS = 0.05


class FolderHeld(SoftpruneError):
    """Another live process works in the folder."""


class FolderLock:
    """An exclusive lock on `folder`, held until `release` or the end of the process.

    Raises:
        FolderHeld: by another live process.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor: int | None = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        self._held = False
        # A listing holds a shared lock for an instant, so one refusal means nothing yet.
        for _ in range(_ATTEMPTS):
            if _try_lock(self._descriptor, fcntl.LOCK_EX):
                self._held = True
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
                return
            time.sleep(_PAUSE_SECONDS)
        holder = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        self.release()
        raise FolderHeld(
            "a run folder that no other process works in",
            f"{folder} is held by the live process {holder}",
            "wait until it ends, or choose another --out",
        )

    def release(self) -> None:
        """Lets go; a second call does nothing."""
        if self._descriptor is not None:
            if self._held:  # a name that stands there is of a live process, or of one that was killed
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None


def is_held(folder: Path) -> bool:
    """Whether a live process works in `folder`."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
