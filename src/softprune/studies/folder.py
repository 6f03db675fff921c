"""The folder of a study, which a kill at any point leaves whole.

resolved.yaml    the study with every key
study.json       how it stands, and in the end what it found
work/            finished pieces of work
table-*.md, .csv the tables
index.html       the page
COMPLETE         written last

Beside it, shared by all studies: runs/ (a run folder each) and files/ (masks and prompts that runs begin with).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from softprune.config import Study, load_study
from softprune.errors import SoftpruneError, of_the_machine
from softprune.runs import atomic_io
from softprune.runs.environment import hardware, versions
from softprune.runs.folder_checks import (
    SCHEMA,
    differing,
    free_beside,
    make_folder,
    read_info,
    told_apart,
    unfinished,
    write_resolved,
)
from softprune.runs.lock import LOCK, FolderLock
from softprune.studies.run_cache import RUNS

RECORD: Final = "study.json"
WORK: Final = "work"
"""Its own pieces of work."""


@contextmanager
def study_folder(path: Path, study: Study, command: str) -> Iterator[dict[str, Any] | None]:
    """Holds the folder meanwhile; gives what study.json has so far, None where the study is complete.

    What is raised within is noted in study.json; a study that failed before any run or work was made leaves nothing.

    Raises:
        SoftpruneError: the folder is another study's, something else's, or another live process's.
    """
    made, runs = make_folder(path, RECORD, "study"), _runs_beside(path)
    lock = FolderLock(path)
    try:
        atomic_io.remove_temporaries(path)
        if (path / RECORD).exists():
            _hold(path, study)
            info = read_info(path, RECORD)
        else:
            info = {"schema": SCHEMA, "kind": "study", "started": now(), "attempts": 0}
        if (path / "COMPLETE").exists():
            yield None
            return
        write_resolved(path, study.resolved())
        size = study.size
        info |= {"status": "running", "error": None, "command": command, "attempts": info["attempts"] + 1}
        info |= {"versions": versions(), "hardware": hardware(), "tasks": list(size.tasks), "backbone": size.backbone}
        record(path, info)
        try:
            yield info
        except Exception as error:
            found = error if isinstance(error, SoftpruneError) else of_the_machine(error) or error
            with suppress(OSError):  # a full disk may not even take the note
                if info["attempts"] > 1 or any((path / WORK).glob("*")) or _runs_beside(path) - runs:
                    record(path, info | {"status": "failed", "error": str(found)})
                else:
                    _discard(path, made)
            if found is error:
                raise
            raise found from error
    finally:
        lock.release()


def _runs_beside(path: Path) -> set[str]:
    """Names of the runs that are there, of any study."""
    return {file.parent.name for file in (path.parent / RUNS).glob("*/run.json")}


def _discard(path: Path, made: Sequence[Path]) -> None:
    """Removes what a study without a run and without work leaves, and the folders that were made for it."""
    for name in (RECORD, "resolved.yaml", LOCK):
        (path / name).unlink(missing_ok=True)
    with suppress(OSError):  # somebody else's files are in it
        for folder in reversed(made):
            folder.rmdir()


def _hold(path: Path, study: Study) -> None:
    """Hold a begun study to its settings, once anything lies in its folder that depends on them.

    Runs don't: each is named after its own recipe.

    Raises:
        SoftpruneError: it is to have other settings now.
    """
    if not (path / "COMPLETE").exists() and not any((path / WORK).glob("*")):
        return
    differ = differing(load_study(path / "resolved.yaml").matters, study.matters)
    if differ:
        do = f"choose another name in the same --out, such as --name {free_beside(path).name}: finished runs are shared"
        raise SoftpruneError(f"the settings that {path} was begun with", told_apart(differ), do)


def record(path: Path, info: dict[str, Any]) -> None:
    """Writes study.json."""
    atomic_io.write_bytes(path / RECORD, (atomic_io.json_text(info, indent=2) + "\n").encode())


def complete(path: Path, info: dict[str, Any]) -> None:
    """Ends the study: nothing is left to do."""
    record(path, info | {"status": "complete", "finished": now()})
    atomic_io.write_bytes(path / "COMPLETE", b"")


def read_study(path: Path) -> dict[str, Any]:
    """What the study.json of a finished study holds.

    Raises:
        SoftpruneError: there is none, or the study isn't finished.
    """
    if not (path / RECORD).is_file():
        raise SoftpruneError("the folder of a study", f"no {RECORD} in {path}", "give the folder that study run named")
    info = read_info(path, RECORD)
    if "findings" in info:
        return info
    raise unfinished(path, info, "study")


def now() -> str:
    """The time, for the record."""
    return datetime.now(UTC).isoformat(timespec="seconds")
