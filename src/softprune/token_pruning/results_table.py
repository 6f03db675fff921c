"""The results of a run of token pruning as a table, from run.json alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from softprune.errors import SoftpruneError
from softprune.terminal import Table

BY_EXAMPLE = "intervals cover the sampling of texts, not of training seeds: models of other seeds may differ"

_LABELS = {
    "constant": "best constant answer",
    "baseline": "unpruned model",
    "top-k": "top-k by importance",
    "manual": "thresholds, not learned",
    "first": "first tokens",
}


def read_results(run: Path) -> dict[str, Any]:
    """run.json of a run of token pruning.

    Raises:
        SoftpruneError: the folder holds none.
    """
    path = run / "run.json"
    try:
        info: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(info, dict):
            raise ValueError(f"{type(info).__name__} in it")
    except (OSError, ValueError) as error:
        raise SoftpruneError("the folder of a run", f"no readable run.json in {run}", "check the path") from error
    if info.get("kind") != "tokens":
        found = f"a run of kind {info.get('kind')}"
        raise SoftpruneError("a run of softprune tokens train", found, f"softprune report {run}")
    return info


def results_table(info: dict[str, Any]) -> Table:
    """One row a model: quality, difference to the unpruned model, operations, tokens kept to the end."""
    task, chosen = info["task"], (info.get("selection") or {}).get("chosen")
    table = Table(title=f"{task['title']}, {task['sizes']['report']} examples of report, in percent")
    table.add_column("")
    for name in (task["metric"], "95% CI", "macro F1", "to unpruned", "95% CI", "paper MACs", "executed MACs", "kept"):
        table.add_column(name, justify="right")
    rows = {name: row for name, row in info["results"].items() if row}
    order = sorted(rows, key=lambda name: (name != "constant", name != "baseline", not name.startswith("lambda")))
    for name in order:
        row = rows[name]
        style = "bold" if name == chosen else None
        table.add_row(_label(name) + (" *" if name == chosen else ""), *_cells(row), style=style)
    return table


def notes(info: dict[str, Any]) -> list[str]:
    """Notes below the table."""
    selection, task = info.get("selection") or {}, info["task"]
    lines = []
    if selection.get("chosen"):
        why = "fewest operations within the margin" if selection["within"] else "none is within the margin, so the best"
        lines.append(f"* chosen on {task['sizes']['select']} held-out examples of train: {why}")
    cut = task.get("cut_report") or {}
    if cut.get("examples"):
        lines.append(
            f"{cut['examples']} texts of report were longer than the limit: {cut['tokens']} tokens were cut off"
        )
    lines += _unequal(info.get("stages") or {})
    lines.append(BY_EXAMPLE)
    lines.append("MACs: share of the unpruned model's on the same real tokens (the paper's count; what was computed)")
    lines.append(
        "kept: input tokens that the last layer reads; the rules below the learned models aim at the chosen one's MACs"
    )
    return lines


def _unequal(stages: dict[str, Any]) -> list[str]:
    """Which baselines don't have the chosen model's operations."""
    missed = {name: stage for name, stage in stages.items() if stage.get("macs_reached") is False}
    if not missed:
        return []
    target = next(iter(missed.values()))["macs_target"]
    each = ", ".join(f"{_label(name)} {100 * stage['relative_macs']:.0f}%" for name, stage in missed.items())
    why = (
        "; rules that keep a share of the tokens leave the first layers whole"
        if any("rate" in stage for stage in missed.values())
        else ""
    )
    return [f"not at the chosen model's operations, {100 * target:.0f}% on the held-out set: {each}{why}"]


def _label(name: str) -> str:
    return _LABELS.get(name, name.replace("lambda-", "learned, lambda ").replace("random-", "random tokens, seed "))


def _cells(row: dict[str, Any]) -> list[str]:
    if "interval" not in row:
        return [f"{100 * row['value']:.1f}", *[""] * 7]
    low, high = row["interval"]
    against = row["difference"]
    return [
        f"{100 * row['value']:.1f}",
        f"{100 * low:.1f} to {100 * high:.1f}",
        f"{100 * row['macro_f1']:.1f}",
        f"{100 * against['value']:+.1f}",
        f"{100 * against['low']:+.1f} to {100 * against['high']:+.1f}",
        f"{100 * row['paper_macs']:.0f}",
        f"{100 * row['executed_macs']:.0f}",
        f"{100 * row['kept'][-2:][0]:.0f}",
    ]
