"""How much of a prompt XPrompt keeps: the paper's Table 3, with what the smaller prompt scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean

from softprune.studies.charts import bars
from softprune.studies.findings import Cell, Entry, Findings, Table
from softprune.studies.run_result import Made
from softprune.studies.score_rows import Runs, chances, difference_cell, outcome_of
from softprune.studies.study_context import Bench
from softprune.studies.variant_tables import CHOSEN_HERE, chosen_here
from softprune.studies.verdicts import corrected, paired_note

KEPT = "XPrompt, % of prompt tuning"


def conduct(bench: Bench) -> Findings:
    """XPrompt on every task and seed; the numbers that each way trains, and the difference that pruning made."""
    runs = bench.grid()
    sizes = Table("sizes", bench.study.title, ("trained numbers", *bench.tasks), _rows(bench, runs), _note(bench))
    chance = chances(bench, runs)
    less: list[Entry] = []
    for task in bench.tasks:
        made = [runs[task, seed] for seed in bench.seeds]
        winner, control = outcome_of(made, "winner"), outcome_of(made, "control")
        less.append(difference_cell(bench, task, winner, control, chance[task]))
    differences = corrected(less)
    note = f"{paired_note(len(bench.seeds))} A small ticket is worth what it still scores."
    if chosen_here(bench):
        note = f"{note} {CHOSEN_HERE.capitalize()}."
    worth = Table(
        "worth",
        "What pruning made of the score",
        ("points", *bench.tasks),
        (("XPrompt less control", *differences),),
        note,
    )
    figure = bars(sizes, "kept", "What survived", bench.tasks, what="numbers kept, % of the prompt", rows=(KEPT,))
    return Findings((sizes, worth), (figure,), tuple(_sentences(bench, runs)))


def share_of(made: Made) -> float:
    """The numbers that a run's winner keeps, as a fraction of the whole prompt's."""
    info = made.ticket.info
    return info.parameters / (info.prompt_tokens * info.hidden)


def _rows(bench: Bench, runs: Runs) -> tuple[tuple[Entry, ...], ...]:
    def line(label: str, of: Callable[[Made], float], unit: str = "count") -> tuple[Entry, ...]:
        return (label, *(_cell([of(runs[task, seed]) for seed in bench.seeds], unit) for task in bench.tasks))

    return (
        line("fine-tuning: all weights", lambda made: float(made.record.backbone.parameters or 0)),
        line("prompt tuning", lambda made: made.ticket.info.prompt_tokens * made.ticket.info.hidden),
        line("XPrompt", lambda made: made.ticket.info.parameters),
        line(KEPT, share_of, "percent"),
        line("XPrompt, tokens", lambda made: made.ticket.info.tokens, "number"),
        line("XPrompt, pieces", lambda made: made.ticket.info.pieces, "number"),
    )


def _cell(values: Sequence[float], unit: str) -> Cell:
    """The mean over seeds, and from where to where they lie where they aren't all the same."""
    if min(values) == max(values):
        return Cell(values[0], unit=unit)
    texts = {
        "percent": [f"{100 * value:.1f}" for value in values],
        "count": [f"{round(value):,}" for value in values],
    }
    return Cell(fmean(values), unit=unit, note=f"[{', '.join(texts.get(unit, [f'{value:g}' for value in values]))}]")


def _note(bench: Bench) -> str:
    objective = bench.spec(bench.tasks[0], bench.study.seed).recipe.selection.objective
    return f"Mean over seeds, in brackets those of each seed where they differ. The winner is chosen by {objective}."


def _sentences(bench: Bench, runs: Runs) -> list[str]:
    shares = {task: [share_of(runs[task, seed]) for seed in bench.seeds] for task in bench.tasks}
    every = [share for each in shares.values() for share in each]
    low, high = (f"{100 * share:.1f}%" for share in (min(every), max(every)))
    kept = low if low == high else f"from {low} to {high}"
    runs_told = f"{len(every)} {'run' if len(every) == 1 else 'runs'}"
    lines = [f"Winners keep {kept} of the prompt's numbers here ({runs_told})."]
    spreads = {task: max(each) - min(each) for task, each in shares.items()}
    if len(bench.seeds) > 1:
        told = ", ".join(f"{task} {100 * spread:.1f}" for task, spread in spreads.items())
        lines.append(f"Between seeds of one task the share differs by, in points: {told}.")
    return lines
