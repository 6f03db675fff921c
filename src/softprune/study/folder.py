"""The folder of a study, which a kill at any point leaves whole.

resolved.yaml    the study with every key; a resumed one must have the same
study.json       how it stands, and in the end what it found
work/            finished pieces of work
table-*.md, .csv the tables
index.html       the page
COMPLETE         written last

Beside it, shared by all studies: runs/ (a run folder each) and files/ (masks and prompts that runs begin with).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from softprune.errors import SoftpruneError, of_the_machine
from softprune.recipe import Study
from softprune.runs import atomic
from softprune.runs.begin import SCHEMA, changed_keys, make_folder, read_info, write_resolved
from softprune.runs.environment import hardware, versions
from softprune.runs.lock import FolderLock

RECORD: Final = "study.json"
_MAY_CHANGE: Final = frozenset(
    ("executor", "cluster.address", "cluster.cpus", "cluster.gpus", "cluster.retries", "published", "title", "question")
)


@contextmanager
def study_folder(path: Path, study: Study, command: str) -> Iterator[dict[str, Any] | None]:
    """Holds the folder meanwhile; gives what study.json has so far, None where the study is complete.

    What is raised within is noted in study.json.

    Raises:
        SoftpruneError: the folder is another study's, something else's, or another live process's.
    """
    resolved = json.loads(json.dumps(study.resolved()))
    make_folder(path, RECORD, "study")
    lock = FolderLock(path)
    try:
        atomic.remove_temporaries(path)
        if (path / RECORD).exists():
            changed_keys(path, resolved, _MAY_CHANGE)
            info = read_info(path, RECORD)
        else:
            write_resolved(path, resolved)
            info = {"schema": SCHEMA, "kind": "study", "started": now(), "attempts": 0, "seconds": 0.0}
        if (path / "COMPLETE").exists():
            yield None
            return
        info |= {"status": "running", "error": None, "command": command, "attempts": info["attempts"] + 1}
        info |= {"versions": versions(), "hardware": hardware()}
        record(path, info)
        try:
            yield info
        except Exception as error:
            found = error if isinstance(error, SoftpruneError) else of_the_machine(error) or error
            with suppress(OSError):  # a full disk may not even take the note
                record(path, info | {"status": "failed", "error": str(found)})
            if found is error:
                raise
            raise found from error
    finally:
        lock.release()


def record(path: Path, info: dict[str, Any]) -> None:
    """Writes study.json."""
    atomic.write_bytes(path / RECORD, (atomic.json_text(info, indent=2) + "\n").encode())


def complete(path: Path, info: dict[str, Any]) -> None:
    """Ends the study: nothing is left to do."""
    record(path, info | {"status": "complete", "finished": now()})
    atomic.write_bytes(path / "COMPLETE", b"")


def read_study(path: Path) -> dict[str, Any]:
    """What the study.json of a finished study holds.

    Raises:
        SoftpruneError: there is none, or the study isn't finished.
    """
    if not (path / RECORD).is_file():
        raise SoftpruneError("the folder of a study", f"no {RECORD} in {path}", "give the folder that study run named")
    info = read_info(path, RECORD)
    if "findings" not in info:
        found = f"{path} is {info.get('status')}{': ' + str(info['error']) if info.get('error') else ''}"
        raise SoftpruneError("a finished study", found, f"go on: {info.get('command')}")
    return info


def now() -> str:
    """The time, for the record."""
    return datetime.now(UTC).isoformat(timespec="seconds")
