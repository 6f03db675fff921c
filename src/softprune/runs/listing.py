"""The runs under a folder, each in one line, from their run.json alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from softprune.errors import SoftpruneError
from softprune.runs.lock import is_held

_OF_MANY = ("compare.json", "study.json")
"""Records of what is made of several runs."""


@dataclass(frozen=True)
class RunSummary:
    """One run. None is what isn't known or was not measured.

    Attributes:
        name: the folder, relative to where the listing began.
        kind: the recipe's kind.
        status: complete; running (a live process works in it); interrupted (nobody does); failed.
        task, backbone: their names.
        result: which prompt `metric` and `value` belong to: winner, or tuned where there is no winner; of token
            pruning, the chosen model.
        metric, value: its score on `report`.
        tokens, pieces, parameters: the size of the ticket.
        seconds: spent in all phases so far; of a study, on its own work, since its runs are listed themselves.
        modified: when run.json was last written.
    """

    name: str
    kind: str
    status: str
    task: str | None
    backbone: str | None
    result: str | None
    metric: str | None
    value: float | None
    tokens: int | None
    pieces: int | None
    parameters: int | None
    seconds: float
    modified: datetime


def list_runs(root: Path | str) -> list[RunSummary]:
    """All runs in and below `root`, by name.

    Raises:
        SoftpruneError: there is no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise SoftpruneError("a folder that holds runs", f"{root} is no folder", "give the folder that --out named")
    found = [_summary(root, path) for path in sorted(root.rglob("run.json"))]
    found += [_of_many(root, path) for name in _OF_MANY for path in sorted(root.rglob(name))]
    return sorted((summary for summary in found if summary is not None), key=lambda summary: summary.name)


def _of_many(root: Path, path: Path) -> RunSummary | None:
    """A comparison or a study, whose results are its runs'; None for another program's file."""
    read = _read(path)
    if read is None:
        return None
    info, modified = read
    tasks = info.get("tasks")
    return RunSummary(
        name=path.parent.relative_to(root).as_posix(),
        kind=info["kind"],
        status=_status(info["status"], path.parent),
        task=",".join(map(str, tasks)) if isinstance(tasks, list) else info.get("task"),
        backbone=info.get("backbone"),
        result=None,
        metric=None,
        value=None,
        tokens=None,
        pieces=None,
        parameters=None,
        seconds=float(sum(_mapping(info, "work").values())),
        modified=modified,
    )


def _read(path: Path) -> tuple[dict[str, Any], datetime] | None:
    """What a file of softprune's says, and when it was written; None for another program's."""
    try:
        info = json.loads(path.read_text())
        modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(info, dict) or not {"schema", "kind", "status"} <= info.keys():
        return None
    return info, modified


def _summary(root: Path, path: Path) -> RunSummary | None:
    """The run of one run.json, or None when it is some other program's file."""
    read = _read(path)
    if read is None:
        return None
    info, modified = read
    results, ticket, cost = (_mapping(info, key) for key in ("results", "ticket", "cost"))
    names = (
        ("winner", "tuned", "adapted")
        if info["kind"] != "tokens"
        else (_mapping(info, "selection").get("chosen"), "baseline")
    )
    best = next((name for name in names if name and results.get(name)), None)
    result = results[best] if best else {}
    return RunSummary(
        name=path.parent.relative_to(root).as_posix(),
        kind=info["kind"],
        status=_status(info["status"], path.parent),
        task=_mapping(info, "task").get("id"),
        backbone=_mapping(info, "backbone").get("name"),
        result=best,
        metric=result.get("metric"),
        value=result.get("value"),
        tokens=ticket.get("tokens"),
        pieces=ticket.get("pieces"),
        parameters=ticket.get("parameters"),
        seconds=_seconds(cost),
        modified=modified,
    )


def _mapping(info: dict[str, Any], key: str) -> dict[str, Any]:
    value = info.get(key)
    return value if isinstance(value, dict) else {}


def _status(recorded: str, folder: Path) -> str:
    if recorded != "running":
        return recorded
    return "running" if is_held(folder) else "interrupted"


def _seconds(cost: dict[str, Any]) -> float:
    if cost.get("seconds") is not None:
        return float(cost["seconds"])
    return float(sum(_mapping(cost, "phases").values()))
