"""Training that ran out of memory goes on in smaller groups; run.json keeps which, so that a resumed run does the same.

`K_history` holds an entry for each group that was parted: its name, K, the sizes of its parts, the step that they go on
from, whether memory ran out in it (or in an earlier group, so that it wasn't tried whole), and the attempt.
"""

from __future__ import annotations

import math
from typing import Any

from softprune.runs.worker_store import Store

MEMORY_KEYS = frozenset({"search.group", "tuning.eval_rows", "tuning.accumulate", "backbone.checkpointing"})
"""Recipe keys on which nothing but memory and time hang: a run may go on with other values of them."""


def side_by_side(run: Store) -> int | None:
    """The most candidates that may train side by side since memory ran out; None where it never did.

    What happened before a user changed a memory setting says nothing any more.
    """
    attempts = run.info["attempts"]
    changed = [at for at, attempt in enumerate(attempts) if not MEMORY_KEYS.isdisjoint(attempt.get("changed") or {})]
    history = run.info.get("K_history") or []
    known = [entry for entry in history if entry["out_of_memory"] and entry["attempt"] >= max(changed, default=0)]
    return min((max(entry["parts"]) for entry in known), default=None)


def parts_of(run: Store, work: str, count: int) -> list[int] | None:
    """The sizes that a piece of work of `count` candidates is to be trained in; None for whole."""
    for entry in run.info.get("K_history") or []:
        if entry["work"] == work:
            return list(entry["parts"])
    most = side_by_side(run)
    return None if most is None or count <= most else equal_parts(count, math.ceil(count / most))


def equal_parts(count: int, number: int) -> list[int]:
    """`count` as a sum of nearly equal sizes, larger ones first."""
    return [count // number + (at < count % number) for at in range(number)]


def note_parts(run: Store, work: str, parts: list[int], step: int, *, out_of_memory: bool) -> None:
    """Record how a piece of work was parted; once, but its note again where a resumed run began its notes again."""
    info = run.info
    history: list[dict[str, Any]] = info.get("K_history") or []
    entry = next((entry for entry in history if entry["work"] == work), None)
    if entry is None:
        entry = {"work": work, "K": sum(parts), "parts": parts, "step": step, "out_of_memory": out_of_memory}
        entry["attempt"] = len(info["attempts"]) - 1
        run.record(K_history=[*history, entry])
    sizes = " and ".join(map(str, entry["parts"]))
    note = f"memory ran out with {entry['K']} candidates side by side ({work}); "
    note += f"they went on as {sizes} from step {entry['step']}"
    notes = list(info.get("notes") or [])
    if entry["out_of_memory"] and note not in notes:
        run.record(notes=[*notes, note])
