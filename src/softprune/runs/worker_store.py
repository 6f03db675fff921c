"""A run folder on a worker: only the driver writes the run's files, so a worker collects what is to be stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from softprune.runs.job_folder import JSON
from softprune.runs.record import Pin, RunRecord, begin_run
from softprune.runs.run_folder import RunFolder, Saved


@dataclass(frozen=True, slots=True)
class WorkerOutput:
    """What a worker computed, for the driver to store."""

    pieces: dict[str, Saved] = field(default_factory=dict)  # finished pieces of work by name
    trims: list[tuple[str, Sequence[str] | None, int]] = field(default_factory=list)  # arguments of `trim_metrics`
    lines: list[Mapping[str, Any]] = field(default_factory=list)  # of metrics

    def store(self, run: RunFolder) -> None:
        """Writes to the run what the same work would have written in this process."""
        for trim in self.trims:
            run.trim_metrics(*trim)
        run.append_metrics(self.lines)
        # Last: after a kill before this, the next try trims the lines.
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


class StandIn(RunFolder):
    """A run folder for one piece of work on a worker; `begun` is the state that it goes on from, if there is one."""

    def __init__(self, path: Path, known: Pinned, begun: Saved | None = None) -> None:
        super().__init__(path, None, begin_run("xprompt", "on a worker", None))  # the driver's path is for messages
        self.record.threads, self.record.K, self.record.inputs = known.threads, known.K, known.inputs
        self.record.backbone.device, self.record.backbone.dtype = known.device, known.dtype
        self.output = WorkerOutput()
        self._begun = begun

    @contextmanager
    def editing(self) -> Iterator[RunRecord]:
        """The worker's own record, which is never written: the driver makes the same changes in its own."""
        yield self.record

    def pin(self, key: Pin, compute: Callable[[], JSON]) -> Any:
        """The driver's value; a RuntimeError, which is a bug in softprune, where the driver sent none."""

        def refuse() -> NoReturn:
            raise RuntimeError(f"the driver sent its workers no {key}")

        return super().pin(key, refuse)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Nothing: the driver measures its phases."""
        yield

    def has(self, name: str) -> bool:
        """Whether this piece was computed here."""
        return name in self.output.pieces

    def once(self, name: str, compute: Callable[[], Saved]) -> Saved:
        """Computes it, once."""
        if name not in self.output.pieces:
            self.output.pieces[name] = compute()
        return self.output.pieces[name]

    def load_checkpoint(self, name: str) -> Saved | None:
        """The state that the driver sent."""
        return self._begun

    def save_checkpoint(self, name: str, saved: Saved) -> None:
        """Nothing: the driver gets the whole piece, or none of it; if the worker dies, it begins again."""

    def append_metrics(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Keeps them for the driver."""
        self.output.lines.extend(lines)

    def trim_metrics(self, phase: str, candidate_ids: Sequence[str] | None, after_step: int) -> None:
        """Leaves it to the driver."""
        self.output.trims.append((phase, candidate_ids, after_step))

    def _write_file(self, name: str, data: bytes) -> NoReturn:
        raise RuntimeError(f"only the driver writes {name}")
