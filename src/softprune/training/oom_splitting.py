"""Training that ran out of memory goes on in smaller groups; run.json keeps which, so that a resumed run does the same.

`K_history` holds an entry for each group that was parted: its name, K, the sizes of its parts, the step that they go on
from, whether memory ran out in it (or in an earlier group, so that it wasn't tried whole), and the attempt.
"""

from __future__ import annotations

import math

from softprune.runs.record_parts import ReducedK
from softprune.runs.worker_store import Store

MEMORY_KEYS = frozenset({"search.group", "tuning.eval_rows", "tuning.accumulate", "backbone.checkpointing"})
"""Recipe keys on which nothing but memory and time hang: a run may go on with other values of them."""


def side_by_side(run: Store) -> int | None:
    """The most candidates that may train side by side since memory ran out; None where it never did.

    What happened before a user changed a memory setting says nothing any more.
    """
    attempts = run.record.attempts
    changed = [at for at, attempt in enumerate(attempts) if not MEMORY_KEYS.isdisjoint(attempt.changed or {})]
    since = max(changed, default=0)
    known = [entry for entry in run.record.K_history if entry.out_of_memory and entry.attempt >= since]
    return min((max(entry.parts) for entry in known), default=None)


def parts_of(run: Store, work: str, count: int) -> list[int] | None:
    """The sizes that a piece of work of `count` candidates is to be trained in; None for whole."""
    for entry in run.record.K_history:
        if entry.work == work:
            return list(entry.parts)
    most = side_by_side(run)
    return None if most is None or count <= most else equal_parts(count, math.ceil(count / most))


def equal_parts(count: int, number: int) -> list[int]:
    """`count` as a sum of nearly equal sizes, larger ones first."""
    return [count // number + (at < count % number) for at in range(number)]


def note_parts(run: Store, work: str, parts: list[int], step: int, *, out_of_memory: bool) -> None:
    """Record how a piece of work was parted; once, but its note again where a resumed run began its notes again."""
    with run.editing() as record:
        entry = next((entry for entry in record.K_history if entry.work == work), None)
        if entry is None:
            entry = ReducedK(
                work=work,
                K=sum(parts),
                parts=parts,
                step=step,
                out_of_memory=out_of_memory,
                attempt=len(record.attempts) - 1,
            )
            record.K_history = [*record.K_history, entry]
        if entry.out_of_memory:
            sizes = " and ".join(map(str, entry.parts))
            note = f"memory ran out with {entry.K} candidates side by side ({work}); "
            record.add_notes(f"{note}they went on as {sizes} from step {entry.step}")
