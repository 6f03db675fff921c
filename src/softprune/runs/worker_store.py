"""What stages ask of a run folder, and what takes its place on a worker: only the driver writes the folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from softprune.runs.folder_checks import JSON
from softprune.runs.processes import ALONE, Processes
from softprune.runs.record import Pin, RunRecord, begin_run
from softprune.runs.run_folder import Meter, RunFolder, Saved

if TYPE_CHECKING:
    import torch


class Unfinished(Protocol):
    """The state of a piece of work that isn't finished."""

    def load(self) -> Saved | None:
        """What was saved last, or None."""

    def save(self, saved: Saved) -> None:
        """Replaces what was saved before."""


class Store(Protocol):
    """A run as its stages see it; each method as in `RunFolder`."""

    path: Path
    processes: Processes
    """Which work through it together."""
    meter: Meter | None
    """What is measured of each phase."""

    record: RunRecord
    """What is known about the run."""

    def editing(self) -> AbstractContextManager[RunRecord]:
        """The record, to be changed."""

    def pin(self, key: Pin, compute: Callable[[], JSON]) -> Any:
        """What results depend on: computed once."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """What the run does inside."""

    def has(self, name: str) -> bool:
        """Whether a piece of work is finished."""

    def once(self, name: str, compute: Callable[[], Saved]) -> Saved:
        """A piece of work, done once."""

    def checkpoint(self, name: str) -> Unfinished:
        """Its state while it isn't finished."""

    def append_metrics(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Adds measurements."""

    def trim_metrics(self, phase: str, candidate_ids: Sequence[str] | None, after_step: int) -> None:
        """Drops measurements that are made again."""

    def write_json(self, name: str, value: JSON) -> None:
        """Writes a file."""

    def write_jsonl(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Writes a file."""

    def write_tensors(self, name: str, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
        """Writes a file."""


@dataclass(frozen=True, slots=True)
class WorkerOutput:
    """What a worker computed, for the driver to store.

    Attributes:
        pieces: finished pieces of work by name.
        trims: of metrics, as `trim_metrics` takes them; they come before the lines.
        lines: of metrics.
    """

    pieces: dict[str, Saved]
    trims: tuple[tuple[str, Sequence[str] | None, int], ...]
    lines: tuple[Mapping[str, Any], ...]

    def store(self, run: Store) -> None:
        """Write to the run what the same work would have written in this process.

        A kill before the pieces are written leaves lines that the next try trims.
        """
        for trim in self.trims:
            run.trim_metrics(*trim)
        run.append_metrics(self.lines)
        for name, saved in self.pieces.items():
            run.once(name, lambda saved=saved: saved)  # type: ignore[misc]


@dataclass(frozen=True, slots=True)
class Pinned:
    """What the driver's record has pinned; see `RunFolder.pin`."""

    threads: int
    device: str
    dtype: str
    K: int
    inputs: dict[str, str]


class InMemory:
    """Unfinished work that is kept nowhere: a worker that dies begins again, from where the driver sent it."""

    def __init__(self, begun: Saved | None) -> None:
        self._begun = begun

    def load(self) -> Saved | None:
        """What the driver had."""
        return self._begun

    def save(self, saved: Saved) -> None:
        """Nothing: the whole piece comes back, or none of it."""


class StandIn:
    """A run folder for one piece of work on a worker: it writes no file, and keeps what the driver is to store.

    Args:
        path: the driver's folder, for messages.
        known: what results depend on and the driver has pinned.
        begun: the state to go on from, if there is one.
    """

    processes: Processes = ALONE
    meter: Meter | None = None

    def __init__(self, path: Path, known: Pinned, begun: Saved | None = None) -> None:
        self.path = path
        self.record = begin_run("xprompt", "on a worker", None)
        self.record.threads, self.record.K, self.record.inputs = known.threads, known.K, known.inputs
        self.record.backbone.device, self.record.backbone.dtype = known.device, known.dtype
        self._begun = begun
        self._pieces: dict[str, Saved] = {}
        self._trims: list[tuple[str, Sequence[str] | None, int]] = []
        self._lines: list[Mapping[str, Any]] = []

    @property
    def output(self) -> WorkerOutput:
        """What was computed so far."""
        return WorkerOutput(dict(self._pieces), tuple(self._trims), tuple(self._lines))

    @contextmanager
    def editing(self) -> Iterator[RunRecord]:
        """The worker's own record, which nobody reads: the driver's gets the same changes there."""
        yield self.record

    def pin(self, key: Pin, compute: Callable[[], JSON]) -> Any:
        """The driver's value.

        Raises:
            RuntimeError: the driver has none, so that results could differ. A bug in softprune.
        """
        value = reduce(getattr, key.split("."), self.record)
        if value is None:
            raise RuntimeError(f"the driver sent its workers no {key}")
        return value

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """The driver's business."""
        yield

    def has(self, name: str) -> bool:
        """Whether this piece was made here."""
        return name in self._pieces

    def once(self, name: str, compute: Callable[[], Saved]) -> Saved:
        """Computes it."""
        if name not in self._pieces:
            self._pieces[name] = compute()
        return self._pieces[name]

    def checkpoint(self, name: str) -> InMemory:
        """Where the driver left off."""
        return InMemory(self._begun)

    def append_metrics(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Keeps them for the driver."""
        self._lines += lines

    def trim_metrics(self, phase: str, candidate_ids: Sequence[str] | None, after_step: int) -> None:
        """Asks the driver to."""
        self._trims.append((phase, candidate_ids, after_step))

    def _refuse(self, name: str, *_: object, **__: object) -> NoReturn:
        raise RuntimeError(f"only the driver writes {name}")

    write_json = write_jsonl = write_tensors = _refuse


if TYPE_CHECKING:
    _FOLDER: type[Store] = RunFolder
    _STAND_IN: type[Store] = StandIn
