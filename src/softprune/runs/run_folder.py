"""The run folder: everything that a run leaves, written so that a kill at any point loses one piece of work.

recipe.yaml      the recipe as the user wrote it
resolved.yaml    every key with its value; a resumed run must have the same
run.json         what is known about the run so far
metrics.jsonl    one line a measurement, with its `phase`, `candidate` (or none) and `step`
state/           finished pieces of work and checkpoints; gone when the run is complete
COMPLETE         written last
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol, Self

from softprune.errors import SoftpruneError
from softprune.runs import atomic_io
from softprune.runs.environment import hardware, versions
from softprune.runs.folder_checks import (
    JSON,
    SCHEMA,
    changed_keys,
    make_folder,
    read_info,
    write_recipe,
    write_resolved,
)
from softprune.runs.lock import LOCK, FolderLock
from softprune.runs.processes import ALONE, Processes

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_COST = ("seconds", "steps", "examples_per_second", "peak_memory_bytes", "trainable_parameters")
TRACKERS = "trackers"
"""The folder in a run's for what trackers write; they open theirs before there is any work."""
_RESULTS = ("constant", "zero_shot", "instruction", "tuned", "control", "winner", "random")


@dataclass(frozen=True)
class Saved:
    """What a finished piece of work left.

    Attributes:
        tensors: by name, on the CPU when read back.
        meta: anything JSON holds; tuples come back as lists.
    """

    tensors: dict[str, torch.Tensor]
    meta: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """The latest state of a piece of work that isn't finished: one file, replaced as a whole.

    Attributes:
        path: the file.
        told: called when there is a new state.
    """

    path: Path
    told: Callable[[], None]

    def load(self) -> Saved | None:
        """What was saved last, or None."""
        return _read_saved(self.path) if self.path.exists() else None

    def save(self, saved: Saved) -> None:
        """Replaces what was saved before."""
        _write_saved(self.path, saved)
        self.told()

    def clear(self) -> None:
        """Forgets it; nothing happens when there is none."""
        self.path.unlink(missing_ok=True)


class Meter(Protocol):
    """What is measured of each phase of a run."""

    def lap(self) -> int | None:
        """The most since the last lap; None where nobody can tell."""


class RunFolder:
    """A run's folder, held by this process until `close`; see the module's text for what lies in it."""

    keeps = True
    processes: Processes = ALONE
    """Which work through it; see `softprune.runs.multiprocess_folder`."""
    meter: Meter | None = None
    """Of `cost.peak_memory`, the bytes that each phase takes at most."""

    def __init__(self, path: Path, lock: FolderLock, info: dict[str, Any], made: Sequence[Path] = ()) -> None:
        self.path = path
        self._lock = lock
        self._info = info
        self._made = made  # folders that weren't there before this run
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
        kind: str,
        command: str,
        may_change: Collection[str] = (),
    ) -> RunFolder:
        """Creates the folder, or takes up the run that was begun in it.

        Args:
            path: the folder; its parents are made.
            recipe_text: the recipe as the user wrote it.
            resolved: every recipe key with its value; must equal what the folder was begun with.
            kind: the recipe's kind.
            command: the command line, for the record.
            may_change: dotted keys that a resumed run may have another value of; run.json keeps what changed.

        Raises:
            SoftpruneError: the folder is another recipe's, something else's, or another live process's.
        """
        path, plain = Path(path), json.loads(json.dumps(resolved))
        made = make_folder(path)
        lock = FolderLock(path)
        try:
            atomic_io.remove_temporaries(path)
            if (path / "run.json").exists():
                changed = changed_keys(path, plain, may_change)
                run = cls(path, lock, read_info(path))
                run._resume(command, changed, plain)
            else:
                run = cls(path, lock, _first_info(kind, command, plain.get("seed")), made)
                run._begin(recipe_text, plain)
        except BaseException:
            lock.release()
            raise
        return run

    @property
    def info(self) -> dict[str, Any]:
        """What run.json holds, as a copy."""
        return deepcopy(self._info)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        return (self.path / "COMPLETE").exists()

    def record(self, **changes: JSON) -> None:
        """Merges `changes` into run.json: mappings key by key, anything else by replacement."""
        known = self._info.get("notes") or []
        _merge(self._info, json.loads(atomic_io.json_text(changes)))
        self._write_info()
        for note in self._info.get("notes") or []:
            if note not in known:
                logger.warning("%s: %s", self.path, note)

    def pin(self, key: str, compute: Callable[[], JSON]) -> JSON:
        """The value of `key` (dotted for a nested one) in run.json; computed and written when it is null.

        Whatever the bits of a result depend on is pinned before the first step, so that a resumed run has it.
        """
        value: JSON = self._info
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is None:
            value = json.loads(json.dumps(compute()))
            changes = value
            for part in reversed(key.split(".")):
                changes = {part: changes}
            self.record(**changes)
        return deepcopy(value)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Names what the run does inside, and adds its wall seconds to `cost.phases`, also over resumes."""
        outer = self._info["phase"]
        logger.info("%s: %s", self.path, name)
        self.record(phase=name, cost=self._peak(outer))
        self._counting[name] = time.perf_counter()
        try:
            yield
        finally:
            self._count()
            del self._counting[name]
            self.record(phase=outer, cost=self._peak(name))

    def _count(self) -> None:
        """Adds to each open phase the seconds since the last count: what a kill can't take back any more."""
        now, known = time.perf_counter(), self._info["cost"]["phases"]
        counted = {name: known.get(name, 0.0) + now - since for name, since in self._counting.items()}
        self._counting = dict.fromkeys(self._counting, now)
        if counted:
            self.record(cost={"phases": counted})

    def _peak(self, phase: str | None) -> dict[str, Any]:
        """What the meter says of a phase that ends, or rests; what happens outside of phases is nobody's."""
        peak = None if self.meter is None else self.meter.lap()
        if phase is None or peak is None:
            return {}
        peaks = self._info["cost"].get("peak_memory") or {}
        return {"peak_memory": {phase: max(peak, peaks.get(phase) or 0)}}

    def once(self, name: str, compute: Callable[[], Saved]) -> Saved:
        """The stored outcome of a piece of work, which is computed only when there is none.

        It is read back even when it was computed just now, so that a resumed run continues from the same
        bits. A checkpoint of the same name is forgotten.
        """
        path = self._state / _relative(f"{name}.safetensors")
        if not path.exists():
            _write_saved(path, compute())
            self._count()
        self.checkpoint(name).clear()
        return _read_saved(path)

    def has(self, name: str) -> bool:
        """Whether a piece of work is finished."""
        return (self._state / _relative(f"{name}.safetensors")).exists()

    def checkpoint(self, name: str) -> Checkpoint:
        """The place for the state of a piece of work that isn't finished."""
        return Checkpoint(self._state / _relative(f"{name}.partial.safetensors"), self._count)

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

        def is_late(line: dict[str, Any]) -> bool:
            ours = candidate_ids is None or line.get("candidate") in candidate_ids
            return line.get("phase") == phase and ours and line.get("step", 0) > after_step

        whole = self._metrics.read_bytes().split(b"\n")[:-1]  # what follows the last line end is torn
        kept = [line + b"\n" for line in whole if not is_late(json.loads(line))]
        atomic_io.write_bytes(self._metrics, b"".join(kept))

    def write_json(self, name: str, value: JSON) -> None:
        """Writes a JSON file; NaN and infinities become null."""
        atomic_io.write_bytes(self.path / _relative(name), (atomic_io.json_text(value, indent=2) + "\n").encode())

    def write_jsonl(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Writes a file of JSON lines; NaN and infinities become null."""
        atomic_io.write_bytes(self.path / _relative(name), atomic_io.json_lines(rows))

    def write_tensors(self, name: str, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
        """Writes a safetensors file."""
        atomic_io.write_bytes(self.path / _relative(name), atomic_io.tensor_bytes(tensors, metadata))

    def complete(self) -> None:
        """Ends the run: nothing is left to do, and `state/` goes."""
        self.record(status="complete", phase=None, error=None, finished=_now())
        logger.info("%s: complete", self.path)
        self._finish()

    def fail(self, error: str) -> None:
        """Notes why the run ended early; the same command takes it up again."""
        self.record(status="failed", error=error, finished=_now())

    @property
    def has_work(self) -> bool:
        """Whether any piece of work was begun, or the run was there before: only another one holds nothing to keep."""
        begun = self._state.exists() or bool(self._info["cost"]["phases"])
        return self.is_complete or begun or len(self._info["attempts"]) > 1

    def discard(self) -> None:
        """Removes what a run without work leaves, and the folders that `open` made unless they hold anything else."""
        shutil.rmtree(self.path / TRACKERS, ignore_errors=True)
        # run.json first: without it a folder of the others begins again; it alone is no run.
        for name in ("run.json", "recipe.yaml", "resolved.yaml", "metrics.jsonl", LOCK):
            (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):  # somebody else's files are in it
            for folder in reversed(self._made):
                folder.rmdir()

    def close(self) -> None:
        """Lets other processes work in the folder."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write_info(self) -> None:
        self.write_json("run.json", self._info)

    def _finish(self) -> None:
        shutil.rmtree(self._state, ignore_errors=True)
        if not self.is_complete:
            atomic_io.write_bytes(self.path / "COMPLETE", b"")

    def _begin(self, recipe_text: str, resolved: dict[str, Any]) -> None:
        try:
            write_recipe(self.path, recipe_text, resolved)
            self._write_info()
        except BaseException:
            self.discard()
            raise

    def _resume(self, command: str, changed: dict[str, JSON], resolved: dict[str, Any]) -> None:
        if self._info["status"] == "complete":  # killed between the last record and COMPLETE
            self._finish()
            return
        if self._metrics.exists():
            _drop_torn_line(self._metrics)
        attempt = {"started": _now(), "command": command, "versions": versions()}
        if changed:
            attempt["changed"] = changed
        attempts = [*self._info["attempts"], attempt]
        self._info.update(status="running", phase=None, error=None, finished=None, attempts=attempts)
        self._write_info()
        if changed:  # after run.json: a kill in between records the change twice, never not at all
            write_resolved(self.path, resolved)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _first_info(kind: str, command: str, seed: JSON) -> dict[str, Any]:
    """run.json of a run that hasn't done anything; null is what isn't known yet."""
    started, found = _now(), versions()
    verdict = {"verdict": None} if kind == "xprompt" else {}
    return {
        **verdict,  # what a reader of the file looks for first
        "schema": SCHEMA,
        "kind": kind,
        "status": "running",
        "phase": None,
        "error": None,
        "command": command,
        "seed": seed,
        "started": started,
        "finished": None,
        "attempts": [{"started": started, "command": command, "versions": found}],
        "versions": found,
        "hardware": hardware(),
        "threads": None,
        "backbone": dict.fromkeys(("name", "family", "fingerprint", "dtype", "device")),
        "task": dict.fromkeys(("id", "version", "indices", "truncated")),
        "selection": None,
        "removal": None,
        "K": None,
        "processes": None,
        "results": dict.fromkeys(_RESULTS),
        "ticket": dict.fromkeys(("tokens", "pieces", "parameters")),
        "cost": {**dict.fromkeys(_COST), "phases": {}},
    }


def _merge(target: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value


def _relative(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"a name inside the run folder, not {name!r}")
    return path


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


def _drop_torn_line(path: Path) -> None:
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        atomic_io.write_bytes(path, data[: data.rfind(b"\n") + 1])
