"""Is what was pruned worse than what was kept? (XPrompt, section 7.1, Figure 5)

    XPrompt    the winner, as its run retrained it
    Reversed   the complement of the winner's mask over [P, S], rewound to the tuned values, retrained as tickets were
    Random     a random mask of as many tokens and pieces, rewound and retrained: the run's own `random`
    Length     a fresh prompt of as many tokens as survive, tuned; and trained twice, as the control is
    control    the whole prompt, tuned and retrained as tickets were

The complement has whole the tokens that were pruned, and of kept tokens the pieces that were pruned. So it is of
another size than the winner, most often a larger one, which the paper doesn't speak of. Sizes are in a table of their
own, and the complement is compared with a random mask of *its* size, retrained likewise: that comparison is of what was
pruned, not of how much. Where the winner prunes nothing, the complement is empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from softprune.prompts.prompt_io import mask_bytes
from softprune.pruning.masks import complement, random_mask
from softprune.studies.findings import Cell, Entry, Findings, Table, bars
from softprune.studies.run_result import FinishedRun
from softprune.studies.score_rows import Runs, chances, collect_row, difference_table, score_table
from softprune.studies.study_context import StudyContext
from softprune.studies.verdicts import ABOVE, BELOW, CHOSEN_HERE, correct_family, difference_verdict, interval_note
from softprune.types import Mask

Key = tuple[str, int]
WINNER, REVERSED, RANDOM, LENGTH = "XPrompt", "Reversed XPrompt", "Random Prompt", "Length Prompt"
ALIKE: Final = "random mask of Reversed's size"
TUNED, CONTROL, LENGTH_TWICE = "prompt tuning", "control: prompt tuning, trained twice", "Length Prompt, trained twice"
EMPTY: Final = "Reversed: where the winner prunes nothing, its complement is empty and not measured."


def conduct(study: StudyContext) -> Findings:
    """XPrompt and its reversed, random and shortened rivals, on every task and seed."""
    runs = study.grid()
    complements = {key: complement(run.mask) for key, run in runs.items()}
    rivals = _make_rivals(study, runs, complements)
    at_chance = chances(study, runs)
    rows = {}
    for name, result in {TUNED: "tuned", CONTROL: "control", WINNER: "winner"}.items():
        rows[name] = collect_row(study, runs, result, at_chance)
    for name in (REVERSED, ALIKE):
        rows[name] = collect_row(study, rivals[name], "tuned", at_chance)
    rows[RANDOM] = collect_row(study, runs, "random", at_chance)
    for name in (LENGTH, LENGTH_TWICE):
        rows[name] = collect_row(study, rivals[name], "tuned", at_chance)
    scores = score_table(study, "scores", study.config.title, rows)
    tables = {}
    for name, title, reference, compared in (
        ("to-tuning", "prompt tuning", TUNED, list(rows)),
        ("to-reversed", "Reversed XPrompt", REVERSED, [name for name in rows if name != TUNED]),
        ("to-control", "the control", CONTROL, [WINNER, REVERSED, LENGTH_TWICE, CONTROL]),
        ("to-random", "Random Prompt", RANDOM, [WINNER, CONTROL, RANDOM]),
    ):
        some = {label: rows[label] for label in compared}
        table = difference_table(study, name, f"Differences to {title}", some, reference)
        is_empty = REVERSED in compared and None in complements.values()
        tables[name] = replace(table, note=f"{table.note} {EMPTY}") if is_empty else table
    sizes = _size_table(runs, complements, rivals[LENGTH])
    figure = bars(scores, "bars", scores.title, study.tasks, what="accuracy or F1, %")
    return Findings([scores, *tables.values(), sizes], [figure], _sentences(study, tables))


def _make_rivals(
    study: StudyContext, runs: Runs, complements: Mapping[Key, Mask | None]
) -> dict[str, dict[Key, FinishedRun]]:
    """What XPrompt runs don't hold: reversed and as large random masks, retrained; shorter prompts, once and twice."""
    specs = {}
    for key, run in runs.items():
        specs[LENGTH, key] = study.spec(*key, {"kind": "tune", "prompt.tokens": run.mask.tokens})
        mask = complements[key]
        if mask is not None:
            alike = random_mask(mask, run.seed)
            specs[REVERSED, key] = study.spec(*key, under_mask(study, run, "reversed", mask))
            specs[ALIKE, key] = study.spec(*key, under_mask(study, run, "random-as-reversed", alike))
    rivals: dict[str, dict[Key, FinishedRun]] = {REVERSED: {}, ALIKE: {}, LENGTH: {}}
    for (name, key), run in study.make(specs).items():  # all at once
        rivals[name][key] = run
    twice = {key: study.spec(*key, retrained(study, run)) for key, run in rivals[LENGTH].items()}
    return rivals | {LENGTH_TWICE: study.make(twice)}


def retrained(study: StudyContext, run: FinishedRun) -> dict[str, Any]:
    """The keys of a run that starts from a run's tuned prompt, and trains it as tickets are retrained."""
    recipe = study.spec(run.task, run.seed).recipe
    epochs = recipe.search.epochs or recipe.tuning.epochs
    # A prompt from a file and under a mask is what rewinding and retraining are.
    keys: dict[str, Any] = {"kind": "tune", "prompt": {"init": "file", "file": str(run.prompt_file("tuned"))}}
    return keys if epochs is None else keys | {"tuning.epochs": epochs}


def under_mask(study: StudyContext, run: FinishedRun, name: str, mask: Mask) -> dict[str, Any]:
    """The same under a mask: what it prunes stays zero, the rest is rewound and retrained. `name` is of its file."""
    keys = retrained(study, run)
    file = study.keep(f"{name}-{run.path.name}.safetensors", mask_bytes(mask))
    return keys | {"prompt": {**keys["prompt"], "mask": str(file)}}


def _size_table(runs: Runs, complements: Mapping[Key, Mask | None], lengths: Runs) -> Table:
    rows: list[list[Entry]] = []
    for key, run in runs.items():
        tokens, hidden = run.prompt("tuned").shape
        row: list[Entry] = [run.label]
        for mask in (run.mask, complements[key]):
            row.append(Cell(None if mask is None else mask.tokens, unit="count"))
            row.append(Cell(None if mask is None else mask.parameters(hidden), unit="count"))
        for length in (lengths[key].mask.tokens, tokens):
            row += [Cell(length, unit="count"), Cell(length * hidden, unit="count")]
        rows.append(row)
    columns = ["run"]
    for kind in ("XPrompt and Random", "Reversed and random of its size", LENGTH, "prompt tuning and control"):
        columns += [f"{kind}: tokens", f"{kind}: numbers"]
    note = "A kept token that lost pieces counts in both XPrompt and Reversed, with other pieces."
    return Table("sizes", "Sizes of the prompts", columns, rows, note)


def _sentences(study: StudyContext, tables: Mapping[str, Table]) -> list[str]:
    """What the source says of Figure 5, each claim beside our intervals; all are one family of tests."""
    claims = (
        ("XPrompt is better than prompt tuning", "to-tuning", WINNER, ABOVE),
        ("XPrompt is better than Random Prompt", "to-random", WINNER, ABOVE),
        ("Reversed XPrompt is worse than prompt tuning", "to-tuning", REVERSED, BELOW),
        ("Random Prompt is better than Reversed XPrompt", "to-reversed", RANDOM, ABOVE),
        ("Length Prompt is better than Reversed XPrompt", "to-reversed", LENGTH, ABOVE),
        ("XPrompt is better than Reversed XPrompt", "to-reversed", WINNER, ABOVE),
        ("Length Prompt is worse than prompt tuning", "to-tuning", LENGTH, BELOW),
    )
    # What the source compares was not all trained as often; these were, or are of one size.
    ours = (
        ("A random mask of Reversed's size is better than Reversed", "to-reversed", ALIKE, ABOVE),
        ("XPrompt is better than the control", "to-control", WINNER, ABOVE),
        ("Reversed XPrompt is worse than the control", "to-control", REVERSED, BELOW),
        ("Length Prompt, trained twice, is better than Reversed XPrompt", "to-reversed", LENGTH_TWICE, ABOVE),
    )
    family: dict[tuple[str, str], Entry] = {}
    for claim, table, label, _ in (*claims, *ours):
        (row,) = [row for row in tables[table].rows if row[0] == label]
        for task, entry in zip(study.tasks, row[1:], strict=True):
            family[claim, task] = entry
    tested = correct_family(family)
    sentences = []
    for group, whose in ((claims, "the source"), (ours, "not in the source")):
        for claim, _, _, side in group:
            # A claim holds on one side of 0.
            words = {ABOVE: "the opposite is shown", BELOW: "the opposite is shown", side: "shown"}
            parts = []
            for task in study.tasks:
                cell = tested[claim, task]
                if isinstance(cell, Cell):
                    said = difference_verdict(cell)
                    parts.append(f"{task}: {words.get(said, said)}")
            said = CHOSEN_HERE if study.chosen_on_report else "; ".join(parts)
            sentences.append(f"{claim} ({whose}): {said}.")
    if not study.chosen_on_report:
        family_note = "These claims are one family of tests, corrected by Holm."
        sentences.append(f"{interval_note(len(study.seeds))} {family_note}")
    return sentences
