"""The folder of a job: a run, a comparison or a study. It is begun once, resumed as often as needed, and completed.

recipe.yaml      the recipe as the user wrote it
resolved.yaml    every key with its value; a resumed job must have the same
run.json         what is known about the job so far; compare.json, study.json
COMPLETE         written last
.lock            held by the one process that works in the folder; the system lets go of it when that process ends
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Generic, Self, TypeAlias

import psutil
import yaml
from filelock import FileLock, Timeout

from softprune.config.yaml_io import yaml_text
from softprune.errors import SoftpruneError, explain_error
from softprune.runs import atomic_io
from softprune.runs.record import AnyRecord, now, read_record, versions
from softprune.runs.record_parts import Attempt

JSON: TypeAlias = Any  # null, a truth value, a number, a text, a list or a mapping of these

LOCK = ".lock"
# `is_held` takes the lock for an instant, so one refusal means nothing yet.
_PATIENCE_SECONDS = 0.25
_PAUSE_SECONDS = 0.05

_ABSENT = "(absent)"
_NOTHING = (None, _ABSENT)


class JobFolder(Generic[AnyRecord]):
    """A job's folder, held by this process until `close`; subclasses add what else lies in it."""

    own_files: ClassVar[tuple[str, ...]] = ()  # beside those of every job; they hold no work, so `discard` removes them
    record: AnyRecord  # changed within `editing`, which writes it

    def __init__(self, path: Path, lock: FolderLock | None, record: AnyRecord, made: Sequence[Path] = ()) -> None:
        self.path, self.record = path, record
        self._lock = lock
        self._made = made  # folders that weren't there before this job

    @classmethod
    def open_job(
        cls,
        path: Path,
        kind: type[AnyRecord],
        begin: Callable[[], AnyRecord],
        *,
        recipe_text: str | None,
        resolved: dict[str, Any],
        command: str,
        check: Callable[[Path, dict[str, Any]], dict[str, JSON]],
    ) -> Self:
        """Creates the folder, or resumes the job that was begun in it.

        `begin` makes the first record, of type `kind`. `recipe_text` is what the user wrote, None where resolved.yaml
        is all there is. `check` compares a begun folder with `resolved`, which has every recipe key; it returns what
        changed and may, by key, as [old, new].

        Raises:
            SoftpruneError: the folder is something else's, another live process's, or what `check` raises.
        """
        plain = json.loads(json.dumps(resolved))  # as resolved.yaml holds it: lists for tuples
        made = make_folder(path, kind.FILE, kind.NOUN)
        lock = FolderLock(path)
        try:
            atomic_io.remove_temporaries(path)
            if (path / kind.FILE).exists():
                folder = cls(path, lock, read_record(path, kind))
                folder._resume(command, check(path, plain), plain)
            else:
                folder = cls(path, lock, begin(), made)
                folder._begin(recipe_text, plain)
        except BaseException:
            lock.release()
            raise
        return folder

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        return (self.path / "COMPLETE").exists()

    @property
    def has_work(self) -> bool:
        """Whether there is anything to keep; by itself, a job that was there before counts as such."""
        return self.is_complete or len(self.record.attempts) > 1

    @contextmanager
    def editing(self) -> Iterator[AnyRecord]:
        """The record, to be changed; then it is written."""
        yield self.record
        self._write_record()

    def write_json(self, name: str, value: JSON) -> None:
        """Writes a JSON file; NaN and infinities become null."""
        self._write_file(name, (atomic_io.json_text(value, indent=2) + "\n").encode())

    def write_jsonl(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Writes a file of JSON lines; NaN and infinities become null."""
        self._write_file(name, atomic_io.json_lines(rows))

    def complete(self) -> None:
        """Ends the job: nothing is left to do."""
        with self.editing() as record:
            record.status, record.phase, record.error, record.finished = "complete", None, None, now()
        self._finish()

    def fail(self, error: str) -> None:
        """Notes why the job ended early; the same command resumes it."""
        with self.editing() as record:
            record.status, record.error, record.finished = "failed", error, now()

    def discard(self) -> None:
        """Removes what a job without work leaves, and the folders made for it unless they hold anything else."""
        # The record first: a kill in between then leaves a folder that the next command takes for a new one.
        for name in (self.record.FILE, "recipe.yaml", "resolved.yaml", *self.own_files, LOCK):
            atomic_io.remove(self.path / name)
        with suppress(OSError):  # somebody else's files are in it
            for folder in reversed(self._made):
                folder.rmdir()

    @contextmanager
    def hold(self, explain: Callable[[Exception], Exception] = explain_error) -> Iterator[None]:
        """Holds the folder until the work ends, and notes in its record why it ended early, in a user's words.

        A job that ends early without work to keep is removed.
        """
        try:
            yield
        except Exception as error:
            explained = explain(error)
            with suppress(OSError):  # a full disk may not even take the note
                if not self.is_complete:
                    if self.has_work:
                        self.fail(str(explained))
                    else:
                        self.discard()
            if explained is error:
                raise
            raise explained from error
        finally:
            self.close()

    def close(self) -> None:
        """Lets other processes work in the folder."""
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write_record(self) -> None:
        self.write_json(self.record.FILE, self.record.document())

    def _write_resolved(self, resolved: dict[str, Any]) -> None:
        self._write_file("resolved.yaml", yaml_text(resolved).encode())

    def _write_file(self, name: str, data: bytes) -> None:
        atomic_io.write_bytes(self.path / inside(name), data)

    def _finish(self) -> None:
        if not self.is_complete:
            atomic_io.write_bytes(self.path / "COMPLETE", b"")

    def _begin(self, recipe_text: str | None, resolved: dict[str, Any]) -> None:
        try:
            if recipe_text is not None:
                self._write_file("recipe.yaml", recipe_text.encode())
            self._write_resolved(resolved)
            self._write_record()
        except BaseException:
            self.discard()
            raise

    def _resume(self, command: str, changed: dict[str, JSON], resolved: dict[str, Any]) -> None:
        if self.record.status == "complete":  # killed between the last record and COMPLETE
            self._finish()
            return
        attempt = Attempt(started=now(), command=command, versions=versions())
        if changed:
            attempt.changed = changed
        with self.editing() as record:
            record.attempts = [*record.attempts, attempt]
            record.status, record.phase, record.error, record.finished = "running", None, None, None
        if changed:  # after the record: a kill in between records the change twice, never not at all
            self._write_resolved(resolved)


def inside(name: str) -> PurePosixPath:
    """A path inside a job's folder; a ValueError, which is a bug in softprune, where it leads out of it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"a name inside the run folder, not {name!r}")
    return path


# --- one process in a folder ---


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


# --- what a folder must be for a job to begin or to go on in it ---


def make_folder(path: Path, record: str, what: str) -> list[Path]:
    """Makes a job's folder; returns those of it and its parents that weren't there before, outermost first.

    `record` names the record's file, which a folder of this sort has, and `what` the sort, for messages.

    Raises:
        SoftpruneError: it can't be made, or holds something else than a run.
    """
    try:
        new_folders = [folder for folder in (*reversed(path.parents), path) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        names = {entry.name for entry in path.iterdir()}
    except (FileExistsError, NotADirectoryError) as error:
        found = f"{path} is, or lies under, a regular file"
        raise SoftpruneError("a folder for the run", found, "choose another --out") from error
    except OSError as error:
        do = "choose another --out, or fix its permissions"
        raise SoftpruneError("a folder for the run that can be written", f"{path}: {error.strerror}", do) from error
    # A process killed between its lock and its run.json leaves these and no more: that folder is ours.
    begun = {LOCK, "recipe.yaml", "resolved.yaml"}
    others = {name for name in names if not name.endswith(".tmp")}
    if record not in names and not others <= begun:
        raise SoftpruneError(
            f"a new folder, or the folder of a {what}",
            f"{path} holds {len(names)} other things, such as {min(names)}",
            "choose another --out",
        )
    return new_folders


def read_resolved(path: Path) -> JSON:
    """The keys that a folder was begun with; a SoftpruneError where they can't be read."""
    try:
        return yaml.safe_load((path / "resolved.yaml").read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        found, do = f"{path}: its resolved.yaml can't be read", "choose another --out, or remove the folder"
        raise SoftpruneError("the folder of a run", found, do) from error


def changed_keys(path: Path, resolved: dict[str, Any], may_change: Collection[str]) -> dict[str, JSON]:
    """The keys among `may_change` that ask for another value, each with the old and the new one; null asks for none.

    Raises:
        SoftpruneError: any other key differs: it is another recipe.
    """
    differ = find_differences(read_resolved(path), resolved)
    fixed = {key: pair for key, pair in differ.items() if key not in may_change}
    if "kind" in fixed:  # then nearly every key differs
        fixed = {"kind": fixed["kind"]}
    if fixed:
        raise SoftpruneError(
            f"the recipe that {path} was begun with",
            describe_differences(fixed),
            f"choose another --out, such as --out {find_free_path(path)}, or go back to that recipe",
        )
    return {key: [None if old == _ABSENT else old, new] for key, (old, new) in differ.items() if new not in _NOTHING}


def find_differences(there: JSON, now: JSON) -> dict[str, tuple[JSON, JSON]]:
    """The dotted keys of two mappings whose values differ, each with both values."""
    old, new = _flat(there), _flat(now)
    pairs = {key: (old.get(key, _ABSENT), new.get(key, _ABSENT)) for key in {**old, **new}}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def describe_differences(differ: Mapping[str, tuple[JSON, JSON]]) -> str:
    """The values that `find_differences` found, in words."""
    parts = []
    for key, pair in differ.items():
        old, new = ("none" if value is None else value for value in pair)
        parts.append(f"{key}: {old} there, {new} now")
    return "; ".join(parts)


def find_free_path(path: Path) -> Path:
    """The path with the first number from 2 behind it at which nothing exists."""
    return next(free for n in count(2) if not (free := path.with_name(f"{path.name}-{n}")).exists())


def _flat(value: JSON, prefix: str = "") -> dict[str, JSON]:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    flat: dict[str, JSON] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
    return flat
