"""Is what was pruned worse than what was kept? (XPrompt, section 7.1, Figure 5)

    XPrompt    the winner, as its run retrained it
    Reversed   the complement of the winner's mask over [P, S], rewound to the tuned values, retrained as tickets were
    Random     a random mask of as many tokens and pieces, rewound and retrained: the run's own `random`
    Length     a fresh prompt of as many tokens as survive, tuned; and trained twice, as the control is
    control    the whole prompt, tuned and retrained as tickets were

The complement has whole the tokens that were pruned, and of kept tokens the pieces that were pruned. So it is of
another size than the winner, most often a larger one, which the paper doesn't speak of. Sizes stand in a table of their
own, and beside the complement stands a random mask of *its* size, retrained likewise: that comparison is of what was
pruned, not of how much. Where the winner prunes nothing, the complement is empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from softprune.prompts.prompt_io import mask_bytes
from softprune.pruning.masks import complement, random_mask
from softprune.studies.findings import Cell, Entry, Figure, Findings, Table
from softprune.studies.run_result import FinishedRun
from softprune.studies.score_rows import Row, chances, collect_outcome, collect_row, difference_table, score_table
from softprune.studies.study_context import StudyContext
from softprune.studies.variant_tables import CHOSEN_HERE, chosen_here
from softprune.studies.verdicts import ABOVE, AT_CHANCE, BELOW, corrected_table, interval_note, verdict
from softprune.types import Mask

Key = tuple[str, int]
WINNER, REVERSED, RANDOM, LENGTH = "XPrompt", "Reversed XPrompt", "Random Prompt", "Length Prompt"
ALIKE: Final = "random mask of Reversed's size"
TUNED, CONTROL, LENGTH_TWICE = "prompt tuning", "control: prompt tuning, trained twice", "Length Prompt, trained twice"
EMPTY: Final = "Reversed: where the winner prunes nothing, its complement is empty and not measured."


def conduct(study: StudyContext) -> Findings:
    """XPrompt and its reversed, random and shortened rivals, on every task and seed."""
    runs = study.grid()
    others = {key: complement(made.mask) for key, made in runs.items()}
    rivals = _rivals(study, runs, others)
    own = {TUNED: "tuned", CONTROL: "control", WINNER: "winner"}
    rows: dict[str, Row] = {name: collect_row(study, runs, result) for name, result in own.items()}
    rows |= {name: _row(study, rivals[name]) for name in (REVERSED, ALIKE)}
    rows |= {RANDOM: collect_row(study, runs, "random")}
    rows |= {name: _row(study, rivals[name]) for name in (LENGTH, LENGTH_TWICE)}
    chance = chances(study, runs)
    scores = score_table(study, "scores", study.config.title, rows, chance)
    compared = {name: row for name, row in rows.items() if name != TUNED}
    empty = None in others.values()
    against = [
        _noted(
            difference_table(study, name, f"Differences to {title}", part, reference, chance),
            REVERSED in part and empty,
        )
        for name, title, reference, part in (
            ("to-tuning", "prompt tuning", TUNED, rows),
            ("to-reversed", "Reversed XPrompt", REVERSED, compared),
            ("to-control", "the control", CONTROL, {n: rows[n] for n in (WINNER, REVERSED, LENGTH_TWICE, CONTROL)}),
            ("to-random", "Random Prompt", RANDOM, {name: rows[name] for name in (WINNER, CONTROL, RANDOM)}),
        )
    ]
    sizes = _sizes(runs, others, {key: made.mask.tokens for key, made in rivals[LENGTH].items()})
    return Findings((scores, *against, sizes), (_bars(study, scores),), _sentences(study, *against))


def _noted(table: Table, empty: bool) -> Table:
    """The table with what isn't measured where a complement that it has is empty."""
    return replace(table, note=f"{table.note} {EMPTY}") if empty else table


def _rivals(
    study: StudyContext, runs: Mapping[Key, FinishedRun], others: Mapping[Key, Mask | None]
) -> dict[str, dict[Key, FinishedRun]]:
    """What XPrompt runs don't hold: reversed and as large random masks, retrained; shorter prompts, once and twice."""
    real = {key: mask for key, mask in others.items() if mask is not None}
    random = {key: random_mask(mask, key[1]) for key, mask in real.items()}
    asked = {
        REVERSED: {key: under_mask(study, runs[key], "reversed", mask) for key, mask in real.items()},
        ALIKE: {key: under_mask(study, runs[key], "random-as-reversed", mask) for key, mask in random.items()},
        LENGTH: {key: {"kind": "tune", "prompt.tokens": made.mask.tokens} for key, made in runs.items()},
    }
    made = iter(study.make([study.spec(*key, keys) for part in asked.values() for key, keys in part.items()]))
    found = {name: {key: next(made) for key in part} for name, part in asked.items()}
    twice = {key: retrained(study, each) for key, each in found[LENGTH].items()}
    again = study.make([study.spec(*key, keys) for key, keys in twice.items()])
    return found | {LENGTH_TWICE: dict(zip(twice, again, strict=True))}


def retrained(study: StudyContext, made: FinishedRun) -> dict[str, Any]:
    """The keys of a run that takes up a run's tuned prompt, and trains it as tickets are retrained."""
    recipe = study.spec(made.task, made.seed).recipe
    epochs = recipe.search.epochs or recipe.tuning.epochs
    keys: dict[str, Any] = {"kind": "tune", "prompt": {"init": "file", "file": str(made.prompt_file("tuned"))}}
    return keys if epochs is None else keys | {"tuning.epochs": epochs}


def under_mask(study: StudyContext, made: FinishedRun, name: str, mask: Mask) -> dict[str, Any]:
    """The same under a mask: what it prunes stays zero, the rest is rewound and retrained.

    Args:
        study: of the study; keeps the mask.
        made: an XPrompt run, whose tuned prompt is the rewind point.
        name: what the mask is, in its file's name.
        mask: of that prompt.
    """
    keys = retrained(study, made)
    file = study.keep(f"{name}-{made.path.name}.safetensors", mask_bytes(mask))
    return keys | {"prompt": {**keys["prompt"], "mask": str(file)}}


def _row(study: StudyContext, runs: Mapping[Key, FinishedRun]) -> Row:
    """What tuning runs reached; None of a task where a seed has no run."""
    made = {task: [runs[task, seed] for seed in study.seeds if (task, seed) in runs] for task in study.tasks}
    return {
        task: collect_outcome(each, "tuned") if len(each) == len(study.seeds) else None for task, each in made.items()
    }


def _sizes(runs: Mapping[Key, FinishedRun], others: Mapping[Key, Mask | None], lengths: Mapping[Key, int]) -> Table:
    """Tokens and numbers of each sort of prompt, by run."""
    rows: list[tuple[Entry, ...]] = []
    for key, made in runs.items():
        tokens, hidden = made.prompt("tuned").shape
        other = others[key]
        masks = (made.mask, other)
        sizes = [(m.tokens, m.parameters(hidden)) if m is not None else (None, None) for m in masks]
        sizes += [(lengths[key], lengths[key] * hidden), (tokens, tokens * hidden)]
        rows.append((f"{key[0]}, seed {key[1]}", *(Cell(n, unit="count") for size in sizes for n in size)))
    kinds = ("XPrompt and Random", "Reversed and random of its size", LENGTH, "prompt tuning and control")
    columns = ("run", *(f"{kind}: {what}" for kind in kinds for what in ("tokens", "numbers")))
    note = "A kept token that lost pieces counts in both XPrompt and Reversed, with other pieces."
    return Table("sizes", "Sizes of the prompts", columns, tuple(rows), note)


def _bars(study: StudyContext, scores: Table) -> Figure:
    """The table of scores as the source's Figure 5."""
    traces = []
    for row in scores.rows:
        cells = [cell for cell in row[1 : 1 + len(study.tasks)] if isinstance(cell, Cell)]
        traces.append({"type": "bar", "name": row[0], "x": list(study.tasks), **bar_values(cells)})
    layout = {"barmode": "group", "yaxis": {"title": {"text": "accuracy or F1, %"}}}
    caption = "The scores of the table as bars, a group for each task, with the same 95% intervals."
    return Figure("bars", scores.title, caption, tuple(traces), layout)


def bar_values(cells: list[Cell]) -> dict[str, Any]:
    """Heights of bars in percent and their intervals, as plotly has them; gaps where nothing was measured."""
    spans = [
        (None, None) if c.value is None or c.low is None or c.high is None else (c.high - c.value, c.value - c.low)
        for c in cells
    ]
    return {
        "y": [None if cell.value is None else round(100 * cell.value, 3) for cell in cells],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [None if up is None else round(100 * up, 3) for up, _ in spans],
            "arrayminus": [None if down is None else round(100 * down, 3) for _, down in spans],
        },
    }


def _sentences(
    study: StudyContext, to_tuning: Table, to_reversed: Table, to_control: Table, to_random: Table
) -> tuple[str, ...]:
    """What the source says of Figure 5, each held against our intervals."""
    claims = (
        ("XPrompt is better than prompt tuning", to_tuning, WINNER, ABOVE),
        ("XPrompt is better than Random Prompt", to_random, WINNER, ABOVE),
        ("Reversed XPrompt is worse than prompt tuning", to_tuning, REVERSED, BELOW),
        ("Random Prompt is better than Reversed XPrompt", to_reversed, RANDOM, ABOVE),
        ("Length Prompt is better than Reversed XPrompt", to_reversed, LENGTH, ABOVE),
        ("XPrompt is better than Reversed XPrompt", to_reversed, WINNER, ABOVE),
        ("Length Prompt is worse than prompt tuning", to_tuning, LENGTH, BELOW),
    )
    # What the source compares was not all trained as often; these were, or are of one size.
    ours = (
        ("A random mask of Reversed's size is better than Reversed", to_reversed, ALIKE, ABOVE),
        ("XPrompt is better than the control", to_control, WINNER, ABOVE),
        ("Reversed XPrompt is worse than the control", to_control, REVERSED, BELOW),
        ("Length Prompt, trained twice, is better than Reversed XPrompt", to_reversed, LENGTH_TWICE, ABOVE),
    )
    found = _tested(study, [*claims, *ours])
    said = [f"{claim} (the source): {_compared(study, found[claim], side)}." for claim, _, _, side in claims]
    said += [f"{claim} (not in the source): {_compared(study, found[claim], side)}." for claim, _, _, side in ours]
    if not chosen_here(study):
        said.append(f"{interval_note(len(study.seeds))} These claims are one family of tests, corrected by Holm.")
    return tuple(said)


Asked = tuple[str, Table, str, str]
"""A claim, the table and row that it is read from, and the side of 0 where it holds."""


def _tested(study: StudyContext, claims: Sequence[Asked]) -> dict[str, dict[str, Cell]]:
    """The difference of every claim by task, corrected over all of them."""
    rows = {claim: next(row for row in table.rows if row[0] == label) for claim, table, label, _ in claims}
    table = corrected_table({claim: dict(zip(study.tasks, row[1:], strict=True)) for claim, row in rows.items()})
    return {claim: {task: cell for task, cell in row.items() if isinstance(cell, Cell)} for claim, row in table.items()}


def _compared(study: StudyContext, cells: Mapping[str, Cell], side: str) -> str:
    if chosen_here(study):
        return CHOSEN_HERE
    found = {task: AT_CHANCE if cell.chance else verdict(cell) for task, cell in cells.items()}
    told = {ABOVE: "the opposite is shown", BELOW: "the opposite is shown", side: "shown"}
    return "; ".join(f"{task}: {told.get(said, said)}" for task, said in found.items())
