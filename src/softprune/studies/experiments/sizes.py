"""How much of a prompt XPrompt keeps: the paper's Table 3, with what the smaller prompt scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from softprune.studies.findings import Cell, Entry, Findings, Table, bars
from softprune.studies.run_result import FinishedRun
from softprune.studies.score_rows import collect_row, pair_table
from softprune.studies.study_context import StudyContext

KEPT = "XPrompt, % of prompt tuning"


def conduct(study: StudyContext) -> Findings:
    """XPrompt on every task and seed; the numbers that each way trains, and the difference that pruning made."""
    runs = study.grid()
    readers: dict[str, tuple[str, Callable[[FinishedRun], float]]] = {
        "fine-tuning: all weights": ("count", lambda run: float(run.record.backbone.parameters or 0)),
        "prompt tuning": ("count", lambda run: run.ticket.info.prompt_tokens * run.ticket.info.hidden),
        "XPrompt": ("count", lambda run: run.ticket.info.parameters),
        KEPT: ("percent", lambda run: run.share_kept),
        "XPrompt, tokens": ("number", lambda run: run.ticket.info.tokens),
        "XPrompt, pieces": ("number", lambda run: run.ticket.info.pieces),
    }
    rows: list[list[Entry]] = []
    for label, (unit, read) in readers.items():
        row: list[Entry] = [label]
        for task in study.tasks:
            row.append(_cell([read(runs[task, seed]) for seed in study.seeds], unit))
        rows.append(row)
    objective = study.recipe.selection.objective
    note = f"Mean over seeds, in brackets those of each seed where they differ. The winner is chosen by {objective}."
    sizes = Table("sizes", study.config.title, ("trained numbers", *study.tasks), rows, note)
    worth = pair_table(
        study,
        "worth",
        "What pruning made of the score",
        {result: collect_row(study, runs, result) for result in ("winner", "control")},
        {"XPrompt less control": ("winner", "control")},
        more="A small ticket is worth what it still scores.",
    )
    figure = bars(sizes, "kept", "What survived", study.tasks, what="numbers kept, % of the prompt", rows=(KEPT,))
    every = [run.share_kept for run in runs.values()]
    low, high = f"{100 * min(every):.1f}%", f"{100 * max(every):.1f}%"
    kept = low if low == high else f"from {low} to {high}"
    sentences = [f"Winners keep {kept} of the prompt's numbers here ({len(every)} run{'s' * (len(every) != 1)})."]
    if len(study.seeds) > 1:
        spreads = []
        for task in study.tasks:
            shares = [runs[task, seed].share_kept for seed in study.seeds]
            spreads.append(f"{task} {100 * (max(shares) - min(shares)):.1f}")
        sentences.append(f"Between seeds of one task the share differs by, in points: {', '.join(spreads)}.")
    return Findings([sizes, worth], [figure], sentences)


def _cell(values: Sequence[float], unit: str) -> Cell:
    """The mean over seeds, with those of each seed where they aren't all the same."""
    if min(values) == max(values):
        return Cell(values[0], unit=unit)
    forms = {"percent": [f"{100 * v:.1f}" for v in values], "count": [f"{round(v):,}" for v in values]}
    each = forms.get(unit, [f"{v:g}" for v in values])
    return Cell(fmean(values), unit=unit, note=f"[{', '.join(each)}]")
