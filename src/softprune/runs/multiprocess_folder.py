"""A run folder that several processes share: only the first one reads and writes it, and it sends what it read.

Work that isn't stored yet is done by all of them together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softprune.runs.folder_checks import JSON
from softprune.runs.processes import Processes
from softprune.runs.record import Pin, RunRecord
from softprune.runs.run_folder import Checkpoint, RunFolder, Saved


def open_together(processes: Processes, path: Path, **options: Any) -> RunFolder:
    """Opens a run folder for each of the processes; see `RunFolder.open`."""
    if processes.size == 1:
        return RunFolder.open(path, **options)
    if processes.rank:
        return _Follower(path, processes, *processes.broadcast(None))
    run = _Leader.open(path, **options)
    run.processes = processes
    processes.broadcast((run.record, run.is_complete))
    return run


class _Leader(RunFolder):
    """The folder as the first process has it: it sends the others what it reads."""

    def pin(self, key: Pin, compute: Callable[[], JSON]) -> Any:
        value = super().pin(key, compute)
        return value if self.is_complete else self.processes.broadcast(value)

    def once(self, name: str, compute: Callable[[], Saved]) -> Saved:
        self.processes.broadcast(super().has(name))  # if it isn't stored, the others compute it, too
        saved: Saved = self.processes.broadcast(super().once(name, compute))
        return saved

    def has(self, name: str) -> bool:
        return bool(self.processes.broadcast(super().has(name)))

    def checkpoint(self, name: str) -> Checkpoint:
        alone = super().checkpoint(name)
        return _SharedCheckpoint(alone.path, alone.on_save, self.processes)


class _Follower(RunFolder):
    """The folder as the other processes have it: nothing is read or written here."""

    def __init__(self, path: Path, processes: Processes, record: RunRecord, complete: bool) -> None:
        self.path, self.processes = path, processes
        self.record, self._complete = record, complete
        self._counting = {}  # not the base class's __init__: there is no lock to hold here

    @property
    def is_complete(self) -> bool:
        return self._complete

    @property
    def has_work(self) -> bool:
        return True  # so that nothing is deleted here

    def pin(self, key: Pin, compute: Callable[[], JSON]) -> Any:
        value = self.processes.broadcast(None)
        return super().pin(key, lambda: value)  # into this process's own record, which code reads

    def once(self, name: str, compute: Callable[[], Saved]) -> Saved:
        if not self.processes.broadcast(None):
            compute()
        saved: Saved = self.processes.broadcast(None)
        return saved

    def has(self, name: str) -> bool:
        return bool(self.processes.broadcast(None))

    def checkpoint(self, name: str) -> Checkpoint:
        return _SharedCheckpoint(self.path, lambda: None, self.processes)

    def append_metrics(self, lines: Sequence[Mapping[str, Any]]) -> None: ...

    def trim_metrics(self, phase: str, candidate_ids: Sequence[str] | None, after_step: int) -> None: ...

    def _write_file(self, name: str, data: bytes) -> None: ...

    def complete(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class _SharedCheckpoint(Checkpoint):
    """A checkpoint that the first process reads, writes, and sends to the others."""

    processes: Processes

    def load(self) -> Saved | None:
        saved: Saved | None = self.processes.broadcast(None if self.processes.rank else super().load())
        return saved

    def save(self, saved: Saved) -> None:
        if not self.processes.rank:
            super().save(saved)

    def clear(self) -> None:
        if not self.processes.rank:
            super().clear()
