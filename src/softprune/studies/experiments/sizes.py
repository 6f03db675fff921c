"""How much of a prompt XPrompt keeps: the paper's Table 3, with what the smaller prompt scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from softprune.studies.figures import bars
from softprune.studies.findings import Cell, Entry, Findings, Table
from softprune.studies.run_result import FinishedRun
from softprune.studies.score_rows import Runs, collect_row, difference_note, pair_table
from softprune.studies.study_context import StudyContext

KEPT = "XPrompt, % of prompt tuning"


def conduct(study: StudyContext) -> Findings:
    """XPrompt on every task and seed; the numbers that each way trains, and the difference that pruning made."""
    runs = study.grid()
    objective = study.spec(study.tasks[0], study.config.seed).recipe.selection.objective
    note = f"Mean over seeds, in brackets those of each seed where they differ. The winner is chosen by {objective}."
    head = ("trained numbers", *study.tasks)
    sizes = Table("sizes", study.config.title, head, _rows(study, runs), note)
    worth = pair_table(
        study,
        "worth",
        "What pruning made of the score",
        {result: collect_row(study, runs, result) for result in ("winner", "control")},
        {"XPrompt less control": ("winner", "control")},
        note=difference_note(study, "A small ticket is worth what it still scores."),
    )
    figure = bars(sizes, "kept", "What survived", study.tasks, what="numbers kept, % of the prompt", rows=(KEPT,))
    return Findings([sizes, worth], [figure], _sentences(study, runs))


def _rows(study: StudyContext, runs: Runs) -> list[list[Entry]]:
    def line(label: str, read: Callable[[FinishedRun], float], unit: str = "count") -> list[Entry]:
        return [label, *(_cell([read(runs[task, seed]) for seed in study.seeds], unit) for task in study.tasks)]

    return [
        line("fine-tuning: all weights", lambda run: float(run.record.backbone.parameters or 0)),
        line("prompt tuning", lambda run: run.ticket.info.prompt_tokens * run.ticket.info.hidden),
        line("XPrompt", lambda run: run.ticket.info.parameters),
        line(KEPT, lambda run: run.share_kept, "percent"),
        line("XPrompt, tokens", lambda run: run.ticket.info.tokens, "number"),
        line("XPrompt, pieces", lambda run: run.ticket.info.pieces, "number"),
    ]


def _cell(values: Sequence[float], unit: str) -> Cell:
    """The mean over seeds, with those of each seed where they aren't all the same."""
    if min(values) == max(values):
        return Cell(values[0], unit=unit)
    form = {"percent": lambda value: f"{100 * value:.1f}", "count": lambda value: f"{round(value):,}"}
    write = form.get(unit, lambda value: f"{value:g}")
    return Cell(fmean(values), unit=unit, note=f"[{', '.join(map(write, values))}]")


def _sentences(study: StudyContext, runs: Runs) -> list[str]:
    shares = {task: [runs[task, seed].share_kept for seed in study.seeds] for task in study.tasks}
    every = [share for each in shares.values() for share in each]
    low, high = (f"{100 * share:.1f}%" for share in (min(every), max(every)))
    kept = low if low == high else f"from {low} to {high}"
    count = f"{len(every)} {'run' if len(every) == 1 else 'runs'}"
    sentences = [f"Winners keep {kept} of the prompt's numbers here ({count})."]
    if len(study.seeds) > 1:
        spreads = ", ".join(f"{task} {100 * (max(each) - min(each)):.1f}" for task, each in shares.items())
        sentences.append(f"Between seeds of one task the share differs by, in points: {spreads}.")
    return sentences
