"""The folder of a study or a comparison, which a kill at any point leaves whole.

resolved.yaml    every key with its value
study.json       of a study: its status, and in the end its findings
compare.json     of a comparison: its status, and in the end everything that the tables show
recipe.yaml      of a comparison: the recipe as the user wrote it
work/            of a study: finished pieces of work
cells/           of a comparison: a run folder for each method and seed
COMPLETE         written last

Tables and the page lie there, too. Beside a study's folder, shared by all studies: runs/ (a run folder each) and files/
(masks and prompts that runs begin with).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from softprune.errors import SoftpruneError, explain_system_error
from softprune.runs import atomic_io
from softprune.runs.folder_checks import JSON, make_folder, read_info, unfinished
from softprune.runs.lock import LOCK, FolderLock

RUNS: Final = "runs"
"""The folder of all runs of studies, beside the studies' own."""
WORK: Final = "work"
"""A study's own pieces of work."""
CELLS: Final = "cells"
"""The runs of a comparison."""
_COMPLETE: Final = "COMPLETE"


@dataclass(frozen=True, slots=True)
class Sort:
    """A sort of folder.

    Attributes:
        name: for messages.
        record: the file with its status and results.
        results: of that record, the key that a finished one has.
    """

    name: str
    record: str
    results: str


STUDY: Final = Sort("study", "study.json", "findings")
COMPARISON: Final = Sort("comparison", "compare.json", "rows")


class StudyFolder:
    """A folder with its record, held by this process; it is begun as soon as this process records anything."""

    def __init__(self, path: Path, sort: Sort) -> None:
        self.path, self._sort = path, sort
        self.is_begun = False
        self.info: dict[str, Any] = read_info(path, sort.record) if (path / sort.record).exists() else {}

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        return (self.path / _COMPLETE).exists()

    def record(self, **changes: JSON) -> None:
        """Puts values into the record, each in place of what was there."""
        self.is_begun = True
        self.info.update(json.loads(atomic_io.json_text(changes)))
        text = atomic_io.json_text(self.info, indent=2) + "\n"
        atomic_io.write_bytes(self.path / self._sort.record, text.encode())

    def complete(self) -> None:
        """Ends the work: nothing is left to do."""
        self.record(status="complete", error=None, finished=now())
        atomic_io.write_bytes(self.path / _COMPLETE, b"")


@contextmanager
def hold_folder(
    path: Path, sort: Sort, begin: Callable[[StudyFolder], None], has_results: Callable[[], bool]
) -> Iterator[StudyFolder]:
    """Holds the folder, made where it isn't there; the caller asks it whether it is complete.

    An error is noted in the record; one before there are any results leaves nothing of a new folder.

    Args:
        path: where.
        sort: what it is the folder of.
        begin: checks the settings of a folder that was begun before, and records a new attempt.
        has_results: whether anything was done that is worth keeping.

    Raises:
        SoftpruneError: the folder is something else's, or another live process's.
    """
    created = make_folder(path, sort.record, sort.name)
    lock = FolderLock(path)
    try:
        atomic_io.remove_temporaries(path)
        folder = StudyFolder(path, sort)
        is_new = not folder.info
        try:
            begin(folder)
            yield folder
        except Exception as error:
            user_error = error if isinstance(error, SoftpruneError) else explain_system_error(error) or error
            with suppress(OSError):  # a full disk may not even take the note
                if is_new and not has_results():
                    _discard(path, sort, created)
                elif folder.is_begun:  # else it was refused before this attempt began
                    folder.record(status="failed", error=str(user_error), finished=now())
            if user_error is error:
                raise
            raise user_error from error
    finally:
        lock.release()


def _discard(path: Path, sort: Sort, created: Sequence[Path]) -> None:
    """Removes what work without a result leaves, and the folders that were made for it."""
    for name in (sort.record, "recipe.yaml", "resolved.yaml", LOCK):
        (path / name).unlink(missing_ok=True)
    with suppress(OSError):  # somebody else's files are in it
        (path / CELLS).rmdir()
    with suppress(OSError):
        for folder in reversed(created):
            folder.rmdir()


def read_record(path: Path, sort: Sort) -> dict[str, Any]:
    """What the record of a finished study or comparison holds.

    Raises:
        SoftpruneError: there is none, it can't be read, or the work isn't finished.
    """
    if not (path / sort.record).is_file():
        do = "give the folder that --out named, or that study run named"
        raise SoftpruneError(f"the folder of a {sort.name}", f"no {sort.record} in {path}", do)
    info = read_info(path, sort.record)
    if sort.results not in info:
        raise unfinished(path, info, sort.name)
    return info


def now() -> str:
    """The time, for the record."""
    return datetime.now(UTC).isoformat(timespec="seconds")
