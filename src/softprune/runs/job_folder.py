"""The folder of a job: a run, a comparison or a study. It is begun once, resumed as often as needed, and completed.

recipe.yaml      the recipe as the user wrote it
resolved.yaml    every key with its value; a resumed job must have the same
run.json         what is known about the job so far; compare.json, study.json
COMPLETE         written last
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Generic, Self

from softprune.config.yaml_io import yaml_text
from softprune.errors import explain_error
from softprune.runs import atomic_io
from softprune.runs.folder_checks import JSON, make_folder
from softprune.runs.lock import LOCK, FolderLock
from softprune.runs.record import AnyRecord, now, read_record


class JobFolder(Generic[AnyRecord]):
    """A job's folder, held by this process until `close`; subclasses add what else lies in it."""

    own_files: ClassVar[tuple[str, ...]] = ()  # beside those of every job; they hold no work, so `discard` removes them
    record: AnyRecord  # changed within `editing`, which writes it

    def __init__(self, path: Path, lock: FolderLock, record: AnyRecord, made: Sequence[Path] = ()) -> None:
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

        Args:
            path: the folder; its parents are made.
            kind: of its record.
            begin: makes the first record.
            recipe_text: the recipe as the user wrote it; None where resolved.yaml is all there is.
            resolved: every recipe key with its value.
            command: the command line, for the record.
            check: compares a begun folder with `resolved`; returns what changed and may, by key, as [old, new].

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
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
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
        with self.editing() as record:
            record.resume(command, changed)
        if changed:  # after the record: a kill in between records the change twice, never not at all
            self._write_resolved(resolved)


def inside(name: str) -> PurePosixPath:
    """A path inside a job's folder; a ValueError, which is a bug in softprune, where it leads out of it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"a name inside the run folder, not {name!r}")
    return path
