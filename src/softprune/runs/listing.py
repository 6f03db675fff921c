"""The runs under a folder, each in one line, from their run.json alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from softprune.errors import SoftpruneError
from softprune.runs.comparison_record import ComparisonRecord, StudyRecord
from softprune.runs.lock import is_held
from softprune.runs.record import AnyRecord, RunRecord, read_record


@dataclass(frozen=True)
class RunSummary:
    """One run. None is what isn't known or was not measured.

    Attributes:
        name: the folder, relative to where the listing began.
        kind: the recipe's kind.
        status: complete; running (a live process works in it); interrupted (nobody does); failed.
        task, backbone: their names.
        seconds: spent in all phases so far; of a study, on its own work, since its runs are listed themselves.
        modified: when run.json was last written.
        result: which prompt `metric` and `value` belong to: winner, or tuned where there is no winner; of token
            pruning, the chosen model.
        metric, value: its score on `report`.
        tokens, pieces, parameters: the size of the ticket.
    """

    name: str
    kind: str
    status: str
    task: str | None
    backbone: str | None
    seconds: float
    modified: datetime
    result: str | None = None
    metric: str | None = None
    value: float | None = None
    tokens: int | None = None
    pieces: int | None = None
    parameters: int | None = None


def list_runs(root: Path | str) -> list[RunSummary]:
    """All runs in and below `root`, by name.

    Raises:
        SoftpruneError: there is no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise SoftpruneError("a folder that holds runs", f"{root} is no folder", "give the folder that --out named")
    found = [_run(root, path) for path in sorted(root.rglob(RunRecord.FILE))]
    for kind in (ComparisonRecord, StudyRecord):
        found += [_of_many(root, path, kind) for path in sorted(root.rglob(kind.FILE))]
    return sorted((summary for summary in found if summary is not None), key=lambda summary: summary.name)


def _run(root: Path, path: Path) -> RunSummary | None:
    record = _read(path, RunRecord)
    if record is None:
        return None
    cost, ticket = record.cost, record.ticket
    names: tuple[str, ...] = ("winner", "tuned", "adapted")
    if record.kind == "tokens":
        names = ((record.selection.chosen if record.selection else None) or "baseline", "baseline")
    best = next((name for name in names if record.results.get(name)), None)
    result = record.results[best] if best else None
    return RunSummary(
        name=path.parent.relative_to(root).as_posix(),
        kind=record.kind,
        status=_status(record.status, path.parent),
        task=record.task.id,
        backbone=record.backbone.name,
        result=best,
        metric=result.metric if result else None,
        value=result.value if result else None,
        tokens=ticket.tokens,
        pieces=ticket.pieces,
        parameters=ticket.parameters,
        seconds=sum(cost.phases.values()) if cost.seconds is None else cost.seconds,
        modified=_modified(path),
    )


def _of_many(root: Path, path: Path, kind: type[ComparisonRecord] | type[StudyRecord]) -> RunSummary | None:
    """A comparison or a study, whose results are its runs'."""
    record = _read(path, kind)
    if record is None:
        return None
    task, seconds = (
        (",".join(record.tasks), sum(record.work.values())) if isinstance(record, StudyRecord) else (record.task, 0.0)
    )
    return RunSummary(
        name=path.parent.relative_to(root).as_posix(),
        kind=record.kind,
        status=_status(record.status, path.parent),
        task=task,
        backbone=record.backbone,
        seconds=seconds,
        modified=_modified(path),
    )


def _read(path: Path, kind: type[AnyRecord]) -> AnyRecord | None:
    """A record; None for the file of another program, or one that can't be read."""
    try:
        return read_record(path.parent, kind)
    except SoftpruneError:
        return None


def _modified(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def _status(recorded: str, folder: Path) -> str:
    if recorded != "running":
        return recorded
    return "running" if is_held(folder) else "interrupted"
