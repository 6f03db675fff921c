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
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import yaml

from softprune.errors import SoftpruneError
from softprune.runs import atomic
from softprune.runs.environment import hardware, versions
from softprune.runs.lock import LOCK, FolderLock

if TYPE_CHECKING:
    import torch

JSON: TypeAlias = Any  # null, a truth value, a number, a text, a list or a mapping of these

_SCHEMA = 1
_COST = ("seconds", "steps", "examples_per_second", "peak_memory_bytes", "trainable_parameters")
_RESULTS = ("constant", "zero_shot", "tuned", "control", "winner", "random")
_ABSENT = "(absent)"


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
    """The latest state of a piece of work that isn't finished: one file, replaced as a whole."""

    path: Path

    def load(self) -> Saved | None:
        """What was saved last, or None."""
        return _read_saved(self.path) if self.path.exists() else None

    def save(self, saved: Saved) -> None:
        """Replaces what was saved before."""
        _write_saved(self.path, saved)

    def clear(self) -> None:
        """Forgets it; nothing happens when there is none."""
        self.path.unlink(missing_ok=True)


class RunFolder:
    """A run's folder, held by this process until `close`; see the module's text for what lies in it."""

    def __init__(self, path: Path, lock: FolderLock, info: dict[str, Any]) -> None:
        self.path = path
        self._lock = lock
        self._info = info
        self._metrics = path / "metrics.jsonl"
        self._state = path / "state"

    @classmethod
    def open(
        cls, path: Path | str, *, recipe_text: str, resolved: dict[str, Any], kind: str, command: str
    ) -> RunFolder:
        """Creates the folder, or takes up the run that was begun in it.

        Args:
            path: the folder; its parents are made.
            recipe_text: the recipe as the user wrote it.
            resolved: every recipe key with its value; must equal what the folder was begun with.
            kind: the recipe's kind.
            command: the command line, for the record.

        Raises:
            SoftpruneError: the folder is another recipe's, something else's, or another live process's.
        """
        path = Path(path)
        _make_folder(path)
        lock = FolderLock(path)
        try:
            atomic.remove_temporaries(path)
            plain = json.loads(json.dumps(resolved))
            if (path / "run.json").exists():
                _check_same_recipe(path, plain)
                run = cls(path, lock, _read_info(path))
                run._resume(command)
            else:
                _write_recipe(path, recipe_text, plain)
                run = cls(path, lock, _first_info(kind, command, plain.get("seed")))
                run._write_info()
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
        _merge(self._info, json.loads(atomic.json_text(changes)))
        self._write_info()

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
        outer, start = self._info["phase"], time.perf_counter()
        self.record(phase=name)
        try:
            yield
        finally:
            seconds = self._info["cost"]["phases"].get(name, 0.0) + time.perf_counter() - start
            self.record(phase=outer, cost={"phases": {name: seconds}})

    def once(self, name: str, compute: Callable[[], Saved]) -> Saved:
        """The stored outcome of a piece of work, which is computed only when there is none.

        It is read back even when it was computed just now, so that a resumed run continues from the same
        bits. A checkpoint of the same name is forgotten.
        """
        path = self._state / _relative(f"{name}.safetensors")
        if not path.exists():
            _write_saved(path, compute())
        self.checkpoint(name).clear()
        return _read_saved(path)

    def checkpoint(self, name: str) -> Checkpoint:
        """The place for the state of a piece of work that isn't finished."""
        return Checkpoint(self._state / _relative(f"{name}.partial.safetensors"))

    def append_metrics(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Adds measurements to metrics.jsonl: mappings with `phase`, `step` and, if any, `candidate`."""
        if not lines:
            return
        with self._metrics.open("ab") as file:
            file.write(atomic.json_lines(lines))
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
        atomic.write_bytes(self._metrics, b"".join(kept))

    def write_json(self, name: str, value: JSON) -> None:
        """Writes a JSON file; NaN and infinities become null."""
        atomic.write_bytes(self.path / _relative(name), (atomic.json_text(value, indent=2) + "\n").encode())

    def write_jsonl(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Writes a file of JSON lines; NaN and infinities become null."""
        atomic.write_bytes(self.path / _relative(name), atomic.json_lines(rows))

    def write_tensors(self, name: str, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
        """Writes a safetensors file."""
        atomic.write_bytes(self.path / _relative(name), atomic.tensor_bytes(tensors, metadata))

    def complete(self) -> None:
        """Ends the run: nothing is left to do, and `state/` goes."""
        self.record(status="complete", phase=None, error=None, finished=_now())
        self._finish()

    def fail(self, error: str) -> None:
        """Notes why the run ended early; the same command takes it up again."""
        self.record(status="failed", error=error, finished=_now())

    @property
    def has_work(self) -> bool:
        """Whether any piece of work was begun; a run that failed before that holds nothing worth keeping."""
        return self.is_complete or self._state.exists() or bool(self._info["cost"]["phases"])

    def discard(self) -> None:
        """Removes the files that `open` made, and the folder if that leaves it empty."""
        for name in ("recipe.yaml", "resolved.yaml", "run.json", "metrics.jsonl", LOCK):
            (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):  # somebody else's files are in it
            self.path.rmdir()

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
            atomic.write_bytes(self.path / "COMPLETE", b"")

    def _resume(self, command: str) -> None:
        if self._info["status"] == "complete":  # killed between the last record and COMPLETE
            self._finish()
            return
        if self._metrics.exists():
            _drop_torn_line(self._metrics)
        attempt = {"started": _now(), "command": command, "versions": versions()}
        attempts = [*self._info["attempts"], attempt]
        self._info.update(status="running", phase=None, error=None, finished=None, attempts=attempts)
        self._write_info()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _first_info(kind: str, command: str, seed: JSON) -> dict[str, Any]:
    """run.json of a run that hasn't done anything; null is what isn't known yet."""
    started, found = _now(), versions()
    return {
        "schema": _SCHEMA,
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
        "results": dict.fromkeys(_RESULTS),
        "ticket": dict.fromkeys(("tokens", "pieces", "parameters")),
        "cost": {**dict.fromkeys(_COST), "phases": {}},
    }


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        names = {entry.name for entry in path.iterdir()}
    except (FileExistsError, NotADirectoryError) as error:
        found = f"{path} is, or lies under, a regular file"
        raise SoftpruneError("a folder for the run", found, "choose another --out") from error
    except OSError as error:
        do = "choose another --out, or mend its permissions"
        raise SoftpruneError("a folder for the run that can be written", f"{path}: {error.strerror}", do) from error
    # A process killed between its lock and its run.json leaves these and no more: that folder is ours.
    begun = {LOCK, "recipe.yaml", "resolved.yaml"}
    others = {name for name in names if not name.endswith(".tmp")}
    if "run.json" not in names and not others <= begun:
        raise SoftpruneError(
            "a new folder, or the folder of a run",
            f"{path} holds {len(names)} other things, such as {min(names)}",
            "choose another --out",
        )


def _write_recipe(path: Path, recipe_text: str, resolved: dict[str, Any]) -> None:
    atomic.write_bytes(path / "recipe.yaml", recipe_text.encode())
    text = yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)
    atomic.write_bytes(path / "resolved.yaml", text.encode())


def _read_info(path: Path) -> dict[str, Any]:
    try:
        info = json.loads((path / "run.json").read_text())
    except ValueError as error:
        raise _not_a_run(path, "its run.json isn't JSON") from error
    if not isinstance(info, dict) or info.get("schema") != _SCHEMA:
        raise _not_a_run(path, f"its run.json isn't of schema {_SCHEMA}")
    return info


def _not_a_run(path: Path, why: str) -> SoftpruneError:
    return SoftpruneError("the folder of a run", f"{path}: {why}", "choose another --out, or remove the folder")


def _check_same_recipe(path: Path, resolved: dict[str, Any]) -> None:
    try:
        begun = yaml.safe_load((path / "resolved.yaml").read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _not_a_run(path, "its resolved.yaml can't be read") from error
    there, now = _flat(begun), _flat(resolved)
    keys = [key for key in {**there, **now} if there.get(key, _ABSENT) != now.get(key, _ABSENT)]
    if keys:
        pairs = [f"{key}: {there.get(key, _ABSENT)} there, {now.get(key, _ABSENT)} now" for key in keys]
        raise SoftpruneError(
            f"the recipe that {path} was begun with",
            "; ".join(pairs),
            "choose another --out, or go back to that recipe to continue the run",
        )


def _flat(value: JSON, prefix: str = "") -> dict[str, JSON]:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    flat: dict[str, JSON] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
    return flat


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
    atomic.write_bytes(path, atomic.tensor_bytes(saved.tensors, {"meta": json.dumps(saved.meta)}))


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
        atomic.write_bytes(path, data[: data.rfind(b"\n") + 1])
