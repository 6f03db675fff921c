"""Several learning rates, the best of which on `select` counts. Each is a piece of work; none is trained twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from softprune.runs.record_parts import SettingsRecord, SweepRow
from softprune.runs.worker_store import Store
from softprune.training.loop import Evaluation
from softprune.training.nan_checks import NotFinite


def best_rate(run: Store, lr: float, multiples: Sequence[float], train: Callable[[float, str], Evaluation]) -> float:
    """Train with every multiple of a learning rate and choose: the best score on `select`, then the lower loss.

    The run keeps `sweep`, by multiple the rate, its score and loss, and whether it was `chosen`; and `settings.lr`. A
    rate at which losses stop being numbers has no score, and can't be chosen. Ties go to the multiple named first.

    Args:
        run: where it is noted.
        lr: what is multiplied.
        multiples: at least one.
        train: trains with a rate, as a piece of work of that name, and says how `select` judges what came of it.

    Returns:
        The rate.

    Raises:
        NotFinite: where no rate gives numbers.
    """
    found: dict[float, Evaluation] = {}
    lost: list[NotFinite] = []
    for multiple in multiples:
        try:
            found[multiple] = train(lr * multiple, work_of(multiple))
        except NotFinite as error:
            lost.append(error)
    if not found:
        raise lost[0]
    chosen = max(found, key=lambda multiple: (found[multiple].score, -found[multiple].loss))
    rows = {
        f"{multiple:g}": SweepRow(
            lr=lr * multiple,
            score=found[multiple].score if multiple in found else None,
            loss=found[multiple].loss if multiple in found else None,
            chosen=multiple == chosen,
        )
        for multiple in multiples
    }
    with run.editing() as record:
        record.sweep = rows
        record.settings = record.settings or SettingsRecord()
        record.settings.lr = lr * chosen
    return lr * chosen


def work_of(multiple: float) -> str:
    """The name of the piece of work that trains with a multiple."""
    return f"sweep-{multiple:g}"


def candidate_of(work: str) -> str:
    """What such a training is called in metrics.jsonl."""
    return work.replace("sweep-", "rate-x", 1)


def chosen_work(run: Store) -> str | None:
    """The piece of work that trained with the chosen rate; None where nothing was swept."""
    rows = run.record.sweep
    return next((work_of(float(multiple)) for multiple, row in rows.items() if row.chosen), None)
