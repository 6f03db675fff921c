"""The run folder: everything that a run leaves, written so that a kill at any point loses one piece of work.

metrics.jsonl    one line a measurement, with its `phase`, `candidate` (or none) and `step`
state/           finished pieces of work and checkpoints; gone when the run is complete

and what every job's folder has; see `job_folder`.

Of several processes that make one run, the first alone reads and writes the folder, and it sends what it read. Work
that isn't stored yet is done by all of them together.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from softprune.errors import SoftpruneError
from softprune.runs import atomic_io
from softprune.runs.job_folder import JSON, FolderLock, JobFolder, changed_keys, inside
from softprune.runs.processes import ALONE, Processes
from softprune.runs.record import Kind, Pin, RunRecord, begin_run

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

TRACKERS = "trackers"  # what trackers write; they open this folder before there is any work


@dataclass(frozen=True)
class Saved:
    """What a finished piece of work left."""

    tensors: dict[str, torch.Tensor]  # on the CPU when read back
    meta: dict[str, Any]  # anything that JSON holds; tuples come back as lists


class RunFolder(JobFolder[RunRecord]):
    """A run's folder, held by this process until `close`; the module's docstring says what lies in it."""

    own_files = ("metrics.jsonl", TRACKERS)
    processes: Processes = ALONE  # those that make the run
    # For `cost.peak_memory`: the most bytes since the last call; None where that can't be measured.
    read_peak: Callable[[], int | None] | None = None

    def __init__(self, path: Path, lock: FolderLock | None, record: RunRecord, made: Sequence[Path] = ()) -> None:
        super().__init__(path, lock, record, made)
        self._metrics = path / "metrics.jsonl"
        self._counting: dict[str, float] = {}  # open phases, and since when their seconds aren't counted yet
        self._state = path / "state"

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        recipe_text: str,
        resolved: dict[str, Any],
        kind: Kind,
        command: str,
        may_change: Collection[str] = (),
        processes: Processes = ALONE,
    ) -> Self:
        """Creates the folder, or resumes the run that was begun in it; see `open_job`.

        `resolved` must equal what the folder was begun with, but for the dotted keys that `may_change`; run.json keeps
        what changed.

        Raises:
            SoftpruneError: the folder is another recipe's, something else's, or another live process's.
        """
        if processes.rank:
            run = cls(Path(path), None, processes.broadcast(None))
            run.processes = processes
            return run
        run = cls.open_job(
            Path(path),
            RunRecord,
            lambda: begin_run(kind, command, resolved.get("seed")),
            recipe_text=recipe_text,
            resolved=resolved,
            command=command,
            check=lambda begun, plain: changed_keys(begun, plain, may_change),
        )
        if processes.size > 1:
            run.processes = processes
            processes.broadcast(run.record)
        return run

    @contextmanager
    def editing(self) -> Iterator[RunRecord]:
        """The record, to be changed; then it is written, and new notes are logged."""
        known = self.record.notes
        with super().editing() as record:
            yield record
        for note in record.notes:
            if note not in known:
                logger.warning("%s: %s", self.path, note)

    def complete(self) -> None:
        """Ends the run, and deletes `state/`."""
        if not self.processes.rank:
            super().complete()
            logger.info("%s: complete", self.path)

    def pin(self, key: Pin, compute: Callable[[], JSON]) -> Any:
        """The value of a field of the record (dotted within a section); computed and written when it is null.

        Whatever the bits of a result depend on is pinned before the first step, so that a resumed run has it.
        """
        *sections, field = key.split(".")
        section = reduce(getattr, sections, self.record)
        if getattr(section, field) is None:
            value = self.processes.ask_first(compute)
            with self.editing():
                setattr(section, field, value)
        return getattr(section, field)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Names what the run does inside, and adds its wall seconds to `cost.phases`, also over resumes."""
        outer = self.record.phase
        logger.info("%s: %s", self.path, name)
        with self.editing() as record:
            self._measure_peak(outer)
            record.phase = name
        self._counting[name] = time.perf_counter()
        try:
            yield
        finally:
            self._count()
            del self._counting[name]
            with self.editing() as record:
                self._measure_peak(name)
                record.phase = outer

    def _count(self) -> None:
        """Adds to each open phase the seconds since the last count: what a kill can't take back any more."""
        if not self._counting:
            return
        now = time.perf_counter()
        with self.editing() as record:
            phases = record.cost.phases
            for name, since in self._counting.items():
                phases[name] = phases.get(name, 0.0) + now - since
        self._counting = dict.fromkeys(self._counting, now)

    def _measure_peak(self, phase: str | None) -> None:
        """Notes the peak of a phase that ends, or pauses for one inside it; outside of phases nothing is noted."""
        peak = None if self.read_peak is None else self.read_peak()
        if phase is not None and peak is not None:
            peaks = self.record.cost.peak_memory
            peaks[phase] = max(peak, peaks.get(phase) or 0)

    def once(self, name: str, compute: Callable[[], Saved]) -> Saved:
        """The stored outcome of a piece of work, which is computed only when there is none.

        It is read back even when it was computed just now, so that a resumed run continues from the same
        bits. A checkpoint of the same name is deleted.
        """
        path = self._state_file(name)
        if not self.has(name):
            made = compute()
            if not self.processes.rank:
                _write_saved(path, made)
                self._count()
        if not self.processes.rank:
            self._state_file(f"{name}.partial").unlink(missing_ok=True)
        return self.processes.ask_first(lambda: _read_saved(path))

    def has(self, name: str) -> bool:
        """Whether a piece of work is finished."""
        return self.processes.ask_first(self._state_file(name).exists)

    def load_checkpoint(self, name: str) -> Saved | None:
        """The last state of a piece of work that isn't finished; None where there is none."""
        path = self._state_file(f"{name}.partial")
        return self.processes.ask_first(lambda: _read_saved(path) if path.exists() else None)

    def save_checkpoint(self, name: str, saved: Saved) -> None:
        """Replaces the last state of a piece of work that isn't finished."""
        if not self.processes.rank:
            _write_saved(self._state_file(f"{name}.partial"), saved)
            self._count()

    def _state_file(self, name: str) -> Path:
        return self._state / inside(f"{name}.safetensors")

    def append_metrics(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Adds measurements to metrics.jsonl: mappings with `phase`, `step` and, if any, `candidate`."""
        if not lines or self.processes.rank:
            return
        with self._metrics.open("ab") as file:
            file.write(atomic_io.json_lines(lines))
            file.flush()
            os.fsync(file.fileno())

    def trim_metrics(self, phase: str, candidate_ids: Sequence[str] | None, after_step: int) -> None:
        """Drops a torn last line, and lines of `phase` with a `step` above `after_step`; they are made again.

        Other phases' lines stay, and those whose `candidate` isn't among `candidate_ids`; None takes every candidate.
        """
        if self.processes.rank or not self._metrics.exists():
            return
        early = []
        for text in self._metrics.read_bytes().split(b"\n")[:-1]:  # what follows the last line end is torn
            line = json.loads(text)
            is_ours = candidate_ids is None or line.get("candidate") in candidate_ids
            if line.get("phase") != phase or not is_ours or line.get("step", 0) <= after_step:
                early.append(text + b"\n")
        atomic_io.write_bytes(self._metrics, b"".join(early))

    def write_tensors(self, name: str, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
        """Writes a safetensors file."""
        self._write_file(name, atomic_io.tensor_bytes(tensors, metadata))

    @property
    def has_work(self) -> bool:
        """Whether any piece of work was begun, or the run is older than this process."""
        if self.processes.rank:  # the folder is the first process's to remove
            return True
        return super().has_work or self._state.exists() or bool(self.record.cost.phases)

    def _write_file(self, name: str, data: bytes) -> None:
        if not self.processes.rank:
            super()._write_file(name, data)

    def _finish(self) -> None:
        shutil.rmtree(self._state, ignore_errors=True)
        super()._finish()

    def _resume(self, command: str, changed: dict[str, JSON], resolved: dict[str, Any]) -> None:
        if self._metrics.exists() and self.record.status != "complete":
            data = self._metrics.read_bytes()
            if data and not data.endswith(b"\n"):  # torn by a kill
                atomic_io.write_bytes(self._metrics, data[: data.rfind(b"\n") + 1])
        super()._resume(command, changed, resolved)


def _write_saved(path: Path, saved: Saved) -> None:
    atomic_io.write_bytes(path, atomic_io.tensor_bytes(saved.tensors, {"meta": json.dumps(saved.meta)}))


def _read_saved(path: Path) -> Saved:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        return Saved(tensors, json.loads(metadata["meta"]))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        do = "delete that file and run the same command: only that piece of work is done again"
        raise SoftpruneError("a state file as softprune wrote it", f"{path}: {error}", do) from error
