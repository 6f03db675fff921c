"""At most one live process works in a run folder; the system releases the lock when the process ends or is killed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from softprune.errors import SoftpruneError

LOCK = ".lock"
# `is_held` takes the lock for an instant, so one refusal means nothing yet.
_PATIENCE_SECONDS = 0.25
_PAUSE_SECONDS = 0.05


class FolderHeld(SoftpruneError):
    """Another live process works in the folder."""


class FolderLock:
    """An exclusive lock on `folder`, held until `release` or the end of the process.

    Raises:
        FolderHeld: by another live process.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        self._lock = FileLock(self._path, thread_local=False)
        try:
            self._lock.acquire(timeout=_PATIENCE_SECONDS, poll_interval=_PAUSE_SECONDS)
        except Timeout:
            raise FolderHeld(
                "a run folder that no other process works in",
                f"{folder} is held by the live process {_holder(self._path) or 'of an unknown number'}",
                "wait until it ends, or choose another --out",
            ) from None
        with suppress(OSError):  # Windows lets nobody write to a locked file
            self._path.write_text(f"{os.getpid()}\n", encoding="ascii")

    def release(self) -> None:
        """Lets go; a second call does nothing."""
        if self._lock.is_locked:
            with suppress(OSError):  # a number that is left there is of a live process, or of one that was killed
                os.truncate(self._path, 0)
            self._lock.release()


def is_held(folder: Path) -> bool:
    """Whether a live process works in `folder`."""
    path = folder / LOCK
    if not path.exists():
        return False
    try:
        with FileLock(path).acquire(timeout=2 * _PAUSE_SECONDS, poll_interval=_PAUSE_SECONDS / 5):
            return False
    except Timeout:
        return True
    except OSError:  # somebody else's folder, which this user can only read
        return bool(psutil.pid_exists(_holder(path) or -1))


def _holder(path: Path) -> int | None:
    """The number of the process that holds, or was killed holding, a lock."""
    with suppress(OSError, ValueError):
        return int(path.read_text(encoding="ascii"))
    return None
