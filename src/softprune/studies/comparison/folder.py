"""The folder of a comparison, which a kill at any point leaves whole.

recipe.yaml      the recipe as the user wrote it
resolved.yaml    every key with its value; a resumed comparison must have the same
compare.json     how it stands, and in the end everything that the tables show
cells/           a run folder for each method and seed
COMPLETE         written last
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import yaml

from softprune.config.comparison_schema import keys_of
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

RECORD: Final = "compare.json"
CELLS: Final = "cells"


class CompareFolder:
    """A comparison's folder, held by this process until `close`."""

    def __init__(self, path: Path, lock: FolderLock, info: dict[str, Any], made: Sequence[Path] = ()) -> None:
        self.path = path
        self._lock, self._info, self._made = lock, info, made

    @classmethod
    def open(
        cls, path: Path, *, recipe_text: str, resolved: dict[str, Any], command: str, may_change: Collection[str] = ()
    ) -> CompareFolder:
        """Creates the folder, or takes up the comparison that was begun in it; arguments as of `RunFolder.open`.

        Settings of a method that nothing was run with yet may be other ones: so they are fixed after a refusal.

        Raises:
            SoftpruneError: the folder is another recipe's, something else's, or another live process's.
        """
        plain = json.loads(json.dumps(resolved))
        made = make_folder(path, RECORD, "comparison")
        lock = FolderLock(path)
        try:
            atomic_io.remove_temporaries(path)
            if (path / RECORD).exists():
                fixable = _fixable(path, plain)
                changed = changed_keys(path, plain, {*may_change, *fixable})
                folder = cls(path, lock, read_info(path, RECORD))
                folder._resume(command, changed, plain)
                if fixable and not folder.is_complete:
                    write_resolved(path, plain)  # a key that is left out is no change to another value
            else:
                folder = cls(path, lock, _first_info(command), made)
                folder._begin(recipe_text, plain)
        except BaseException:
            lock.release()
            raise
        return folder

    @property
    def info(self) -> dict[str, Any]:
        """What compare.json holds, as a copy."""
        return deepcopy(self._info)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        return (self.path / "COMPLETE").exists()

    def record(self, **changes: JSON) -> None:
        """Puts values into compare.json, each in place of what was there."""
        self._info.update(json.loads(atomic_io.json_text(changes)))
        atomic_io.write_bytes(self.path / RECORD, (atomic_io.json_text(self._info, indent=2) + "\n").encode())

    def write(self, name: str, data: bytes) -> None:
        """Writes a file."""
        atomic_io.write_bytes(self.path / name, data)

    def complete(self) -> None:
        """Ends the comparison: nothing is left to do."""
        self.record(status="complete", error=None, finished=_now())
        atomic_io.write_bytes(self.path / "COMPLETE", b"")

    def fail(self, error: str) -> None:
        """Notes why it ended early; one that holds no run leaves nothing."""
        if any((self.path / CELLS).glob("*/run.json")) or len(self._info["attempts"]) > 1:
            self.record(status="failed", error=error, finished=_now())
        else:
            self._discard()

    def _begin(self, recipe_text: str, resolved: dict[str, Any]) -> None:
        try:
            write_recipe(self.path, recipe_text, resolved)
            self.record()
        except BaseException:
            self._discard()
            raise

    def _discard(self) -> None:
        """Removes what a comparison without a run leaves, and the folders that `open` made."""
        for name in (RECORD, "recipe.yaml", "resolved.yaml", LOCK):
            (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):  # somebody else's files are in it
            (self.path / CELLS).rmdir()
        with suppress(OSError):
            for folder in reversed(self._made):
                folder.rmdir()

    def close(self) -> None:
        """Lets other processes work in the folder."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _resume(self, command: str, changed: dict[str, JSON], resolved: dict[str, Any]) -> None:
        if self.is_complete:
            return
        attempt = {"started": _now(), "command": command, "versions": versions()}
        attempts = [*self._info["attempts"], attempt | ({"changed": changed} if changed else {})]
        self.record(status="running", error=None, finished=None, attempts=attempts)
        if changed:
            write_resolved(self.path, resolved)


def read_comparison(path: Path) -> dict[str, Any]:
    """What the compare.json of a folder holds.

    Raises:
        SoftpruneError: there is none, or it can't be read.
    """
    if not (path / RECORD).is_file():
        do = "give the folder that --out named"
        raise SoftpruneError("the folder of a comparison", f"no {RECORD} in {path}", do)
    return read_info(path, RECORD)


def _fixable(path: Path, resolved: Mapping[str, Any]) -> set[str]:
    """The keys in which `settings` differ of methods that nothing was run with yet; none of a complete comparison."""
    try:
        stored = yaml.safe_load((path / "resolved.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):  # told by whoever needs it
        return set()
    before, now = ((found.get("settings") if isinstance(found, dict) else None) or {} for found in (stored, resolved))
    if before == now or (path / "COMPLETE").exists():
        return set()
    free = [name for name in {**before, **now} if not any((path / CELLS).glob(f"{name}-[0-9]*/run.json"))]
    if not free:
        return set()
    keys = {"settings", *(f"settings.{name}" for name in free)}
    for settings in (before, now):
        keys.update(*(keys_of(settings[name], f"settings.{name}.") for name in free if name in settings))
    return keys


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _first_info(command: str) -> dict[str, Any]:
    started, found = _now(), versions()
    return {
        "schema": SCHEMA,
        "kind": "compare",
        "status": "running",
        "error": None,
        "command": command,
        "started": started,
        "finished": None,
        "attempts": [{"started": started, "command": command, "versions": found}],
        "versions": found,
        "hardware": hardware(),
        "cells": {},
    }
