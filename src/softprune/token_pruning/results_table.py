"""The results of a run of token pruning as a table, from run.json alone."""

from __future__ import annotations

from pathlib import Path

from softprune.errors import SoftpruneError
from softprune.runs.record import RunRecord, read_record
from softprune.runs.record_parts import ResultRow, StageRecord
from softprune.terminal import Table

BY_EXAMPLE = "intervals cover the sampling of texts, not of training seeds: models of other seeds may differ"

_LABELS = {
    "constant": "best constant answer",
    "baseline": "unpruned model",
    "top-k": "top-k by importance",
    "manual": "thresholds, not learned",
    "first": "first tokens",
}


def read_results(run: Path) -> RunRecord:
    """run.json of a run of token pruning.

    Raises:
        SoftpruneError: the folder holds none.
    """
    record = read_record(run, RunRecord)
    if record.kind != "tokens":
        found = f"a run of kind {record.kind}"
        raise SoftpruneError("a run of softprune tokens train", found, f"softprune report {run}")
    return record


def results_table(record: RunRecord) -> Table:
    """One row a model: quality, difference to the unpruned model, operations, tokens kept to the end."""
    task, chosen = record.task, _chosen(record)
    examples = "" if task.sizes is None else f", {task.sizes.report} examples of report"
    table = Table(title=f"{task.title}{examples}, in percent")
    table.add_column("")
    headings = ("95% CI", "macro F1", "to unpruned", "95% CI", "paper MACs", "executed MACs", "kept")
    for name in (task.metric or "score", *headings):
        table.add_column(name, justify="right")
    rows = {name: row for name, row in record.results.items() if row is not None}
    order = sorted(rows, key=lambda name: (name != "constant", name != "baseline", not name.startswith("lambda")))
    for name in order:
        style = "bold" if name == chosen else None
        table.add_row(_label(name) + (" *" if name == chosen else ""), *_cells(rows[name]), style=style)
    return table


def notes(record: RunRecord) -> list[str]:
    """What stands under the table."""
    selection, task = record.selection, record.task
    said = []
    if selection is not None and selection.chosen and task.sizes is not None:
        why = "fewest operations within the margin" if selection.within else "none is within the margin; the best"
        said.append(f"* chosen on {task.sizes.select} held-out examples of train: {why}")
    cut = task.cut_report
    if cut is not None and cut.examples:
        said.append(f"{cut.examples} texts of report were longer than the limit: {cut.tokens} tokens were cut off")
    said += _unequal(record.stages)
    said.append(BY_EXAMPLE)
    said.append("MACs: share of the unpruned model's on the same real tokens (the paper's count; what was computed)")
    said.append(
        "kept: tokens that the last layer reads; rules below the learned models were sought at the chosen one's MACs"
    )
    return said


def _chosen(record: RunRecord) -> str | None:
    return None if record.selection is None else record.selection.chosen


def _unequal(stages: dict[str, StageRecord]) -> list[str]:
    """Which baselines don't have the chosen model's operations."""
    missed = {name: stage for name, stage in stages.items() if stage.macs_reached is False}
    if not missed:
        return []
    target = next(iter(missed.values())).macs_target
    each = ", ".join(f"{_label(name)} {_percent(stage.relative_macs)}%" for name, stage in missed.items())
    why = (
        "; the rules that keep a share of the tokens leave the first layers whole"
        if any(stage.rate is not None for stage in missed.values())
        else ""
    )
    return [f"not at the chosen model's operations, {_percent(target)}% on the held-out set: {each}{why}"]


def _label(name: str) -> str:
    return _LABELS.get(name, name.replace("lambda-", "learned, lambda ").replace("random-", "random tokens, seed "))


def _percent(fraction: float | None, form: str = ".0f") -> str:
    return "" if fraction is None else format(100 * fraction, form)


def _cells(row: ResultRow) -> list[str]:
    if row.interval is None or row.difference is None or row.kept is None:  # the constant answer
        return [_percent(row.value, ".1f"), *[""] * 7]
    low, high = row.interval
    against = row.difference
    return [
        _percent(row.value, ".1f"),
        f"{_percent(low, '.1f')} to {_percent(high, '.1f')}",
        _percent(row.macro_f1, ".1f"),
        _percent(against.value, "+.1f"),
        f"{_percent(against.low, '+.1f')} to {_percent(against.high, '+.1f')}",
        _percent(row.paper_macs),
        _percent(row.executed_macs),
        _percent(row.kept[-2:][0]),
    ]
