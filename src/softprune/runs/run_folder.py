"""The run folder: everything that a run leaves, written so that a kill at any point loses one piece of work.

metrics.jsonl    one line a measurement, with its `phase`, `candidate` (or none) and `step`
state/           finished pieces of work and checkpoints; gone when the run is complete

and what every job's folder has; see `job_folder`.
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
from softprune.runs.folder_checks import JSON, changed_keys
from softprune.runs.job_folder import JobFolder, inside
from softprune.runs.lock import FolderLock
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


@dataclass(frozen=True)
class Checkpoint:
    """The latest state of a piece of work that isn't finished: one file, replaced as a whole."""

    path: Path
    on_save: Callable[[], None]

    def load(self) -> Saved | None:
        """What was saved last, or None."""
        return _read_saved(self.path) if self.path.exists() else None

    def save(self, saved: Saved) -> None:
        """Replaces what was saved before."""
        _write_saved(self.path, saved)
        self.on_save()

    def clear(self) -> None:
        """Deletes it, if there is one."""
        self.path.unlink(missing_ok=True)


class RunFolder(JobFolder[RunRecord]):
    """A run's folder, held by this process until `close`; the module's docstring says what lies in it."""

    own_files = ("metrics.jsonl", TRACKERS)
    processes: Processes = ALONE  # those that work on the run; see `softprune.runs.multiprocess_folder`
    # For `cost.peak_memory`: the most bytes since the last call; None where that can't be measured.
    read_peak: Callable[[], int | None] | None = None

    def __init__(self, path: Path, lock: FolderLock, record: RunRecord, made: Sequence[Path] = ()) -> None:
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
    ) -> Self:
        """Creates the folder, or resumes the run that was begun in it; arguments as of `open_job`.

        Args:
            path, recipe_text, kind, command: as there.
            resolved: every recipe key with its value; must equal what the folder was begun with.
            may_change: dotted keys that a resumed run may have another value of; run.json keeps what changed.

        Raises:
            SoftpruneError: the folder is another recipe's, something else's, or another live process's.
        """
        return cls.open_job(
            Path(path),
            RunRecord,
            lambda: begin_run(kind, command, resolved.get("seed")),
            recipe_text=recipe_text,
            resolved=resolved,
            command=command,
            check=lambda begun, plain: changed_keys(begun, plain, may_change),
        )

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
        super().complete()
        logger.info("%s: complete", self.path)

    def pin(self, key: Pin, compute: Callable[[], JSON]) -> Any:
        """The value of a field of the record (dotted within a section); computed and written when it is null.

        Whatever the bits of a result depend on is pinned before the first step, so that a resumed run has it.
        """
        *sections, field = key.split(".")
        section = reduce(getattr, sections, self.record)
        if getattr(section, field) is None:
            value = compute()
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
        path = self._state / inside(f"{name}.safetensors")
        if not path.exists():
            _write_saved(path, compute())
            self._count()
        self.checkpoint(name).clear()
        return _read_saved(path)

    def has(self, name: str) -> bool:
        """Whether a piece of work is finished."""
        return (self._state / inside(f"{name}.safetensors")).exists()

    def checkpoint(self, name: str) -> Checkpoint:
        """Where the state of a piece of work that isn't finished is kept."""
        return Checkpoint(self._state / inside(f"{name}.partial.safetensors"), self._count)

    def append_metrics(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Adds measurements to metrics.jsonl: mappings with `phase`, `step` and, if any, `candidate`."""
        if not lines:
            return
        with self._metrics.open("ab") as file:
            file.write(atomic_io.json_lines(lines))
            file.flush()
            os.fsync(file.fileno())

    def trim_metrics(self, phase: str, candidate_ids: Sequence[str] | None, after_step: int) -> None:
        """Drops a torn last line, and lines of `phase` with a `step` above `after_step`; they are made again.

        Args:
            phase: lines of other phases stay.
            candidate_ids: lines whose `candidate` isn't among them stay; None takes every line of the phase.
            after_step: the step of the checkpoint that the work goes on from.
        """
        if not self._metrics.exists():
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
        return super().has_work or self._state.exists() or bool(self.record.cost.phases)

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
