"""The runs under a folder, each in one line, from their run.json alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from softprune.errors import SoftpruneError
from softprune.runs.comparison_record import ComparisonRecord, StudyRecord
from softprune.runs.job_folder import is_held
from softprune.runs.record import JobRecord, RunRecord, read_record


@dataclass(frozen=True)
class RunSummary:
    """One run. None is what isn't known or was not measured."""

    name: str  # the folder, relative to where the listing began
    kind: str
    status: str  # complete; running (a live process works in it); interrupted (none does); failed
    modified: datetime  # when the record was last written
    task: str | None = None
    backbone: str | None = None
    seconds: float = 0.0  # in all phases so far; of a study, on its own work, since its runs are listed themselves
    result: str | None = None  # the row of `metric` and `value`: winner, else tuned; of token pruning, its model
    metric: str | None = None
    value: float | None = None  # on `report`
    tokens: int | None = None  # the ticket's size, as are pieces and parameters
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
    summaries = []
    kinds: tuple[type[JobRecord], ...] = (RunRecord, ComparisonRecord, StudyRecord)
    for kind in kinds:
        for path in sorted(root.rglob(kind.FILE)):
            try:
                record = read_record(path.parent, kind)
            except SoftpruneError:
                continue  # another program's file, or one that can't be read
            summaries.append(_summarise(root, path, record))
    return sorted(summaries, key=lambda summary: summary.name)


def _summarise(root: Path, path: Path, record: JobRecord) -> RunSummary:
    status: str = record.status
    if status == "running" and not is_held(path.parent):
        status = "interrupted"
    summary = RunSummary(
        name=path.parent.relative_to(root).as_posix(),
        kind=record.kind,
        status=status,
        modified=datetime.fromtimestamp(path.stat().st_mtime, UTC),
    )
    # A comparison's or a study's results are its runs'.
    if isinstance(record, ComparisonRecord):
        return replace(summary, task=record.task, backbone=record.backbone)
    if isinstance(record, StudyRecord):
        seconds = sum(record.work.values())
        return replace(summary, task=",".join(record.tasks), backbone=record.backbone, seconds=seconds)
    assert isinstance(record, RunRecord)
    cost, ticket = record.cost, record.ticket
    summary = replace(
        summary,
        task=record.task.id,
        backbone=record.backbone.name,
        seconds=sum(cost.phases.values()) if cost.seconds is None else cost.seconds,
        tokens=ticket.tokens,
        pieces=ticket.pieces,
        parameters=ticket.parameters,
    )
    names = ["winner", "tuned", "adapted"]
    if record.kind == "tokens":
        names = ["baseline"]
        if record.selection is not None and record.selection.chosen:
            names.insert(0, record.selection.chosen)
    for name in names:
        row = record.results.get(name)
        if row is not None:
            return replace(summary, result=name, metric=row.metric, value=row.value)
    return summary
