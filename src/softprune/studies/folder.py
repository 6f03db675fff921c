"""The folders of studies and comparisons, which a kill at any point leaves whole; see `runs.job_folder`.

work/     of a study: finished pieces of work
cells/    of a comparison: a run folder for each method and seed

Tables and the page lie there, too. Beside a study's folder, shared by all studies: runs/ (a run folder each) and files/
(masks and prompts that runs begin with).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import indent
from typing import Final, TypeVar

from softprune.errors import SoftpruneError
from softprune.runs import atomic_io
from softprune.runs.comparison_record import ComparisonRecord, StudyRecord
from softprune.runs.job_folder import FolderLock, JobFolder, is_held
from softprune.runs.record import read_record

RUNS: Final = "runs"  # beside the studies' folders
WORK: Final = "work"
CELLS: Final = "cells"

AnyFinished = TypeVar("AnyFinished", ComparisonRecord, StudyRecord)


class ComparisonFolder(JobFolder[ComparisonRecord]):
    """A comparison's folder, held by this process."""

    @property
    def has_work(self) -> bool:
        """Whether any run was begun."""
        return super().has_work or any((self.path / CELLS).glob("*/run.json"))


class StudyFolder(JobFolder[StudyRecord]):
    """A study's folder, held by this process."""

    def __init__(self, path: Path, lock: FolderLock, record: StudyRecord, made: Sequence[Path] = ()) -> None:
        super().__init__(path, lock, record, made)
        self._runs_before = self._list_runs()

    @property
    def has_work(self) -> bool:
        """Whether any run was begun since the folder was opened, or any piece of work is finished."""
        return super().has_work or any((self.path / WORK).glob("*")) or self._list_runs() != self._runs_before

    def _list_runs(self) -> set[Path]:
        return set((self.path.parent / RUNS).glob("*/run.json"))


def read_finished(path: Path, kind: type[AnyFinished]) -> AnyFinished:
    """The record of a study or a comparison that has its results.

    Raises:
        SoftpruneError: there is none, it can't be read, or the work isn't finished.
    """
    record = read_record(path, kind)
    if record.has_results:
        return record
    expected, go_on = f"a finished {kind.NOUN}", f"go on: {record.command}"
    if record.status == "failed":
        found = f"{path} failed:\n{indent(str(record.error), '  ')}"
        raise SoftpruneError(expected, found, f"fix that, then {go_on}")
    if is_held(path):
        raise SoftpruneError(expected, f"{path} is running", "wait until it ends")
    raise SoftpruneError(expected, f"{path} was interrupted", go_on)


def safe(name: str) -> str:
    """A name as a part of a file's."""
    return re.sub(r"[^\w.+]+", "-", name).strip("-.")


def write_texts(path: Path, texts: Mapping[str, str]) -> None:
    """Writes text files, by name, into a folder."""
    for name, text in texts.items():
        # A lone surrogate, which the user's data may hold, has no UTF-8.
        atomic_io.write_bytes(path / name, text.encode("utf-8", errors="replace"))
