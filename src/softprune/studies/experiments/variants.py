"""Settings side by side, as in the paper's Tables 1, 2, 4, 5, 6 and 8; on several models, as in its Figure 1.

And how much of a prompt XPrompt keeps, as in its Table 3, with what the smaller prompt scores.

A setting that isn't defined for the model stays in its table and says so. Options of the studies of settings:

claims: pairs of variants [ours, theirs], or [ours, theirs, what the source says], where the source says that ours is
    the better one; none compares every variant with the first.
backbones: names of the models that are compared.
examples: by the name of a row of the first published table, how many examples its accuracies are of. The source prints
    them without an interval; this number gives one.
constant: by the same names, how many of these examples the best constant answer gets right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from softprune.config import Published, Variant
from softprune.errors import SoftpruneError
from softprune.statistics.bootstrap import wilson_interval
from softprune.studies.comparison.runner import refused_by_model
from softprune.studies.findings import Cell, Entry, Findings, Table, bars, format_entry
from softprune.studies.folder import safe
from softprune.studies.run_cache import Spec
from softprune.studies.score_rows import Row, Runs, chances, collect_row, mean_cell, pair_table, score_cell, score_table
from softprune.studies.study_context import Keys, StudyContext
from softprune.studies.verdicts import ABOVE, BELOW, CHOSEN_HERE, NEITHER, NO_VERDICT, difference_verdict

NOT_DEFINED: Final = "not defined"
KEPT: Final = "XPrompt, % of prompt tuning"


@dataclass(frozen=True, slots=True)
class Setting:
    """A variant with what it reached."""

    variant: Variant
    row: Row  # what counts of its runs
    runs: Runs  # none where the model has no place for its method
    reason: str = ""  # why it isn't defined


@dataclass(frozen=True, slots=True)
class Claim:
    """What a source says of two variants: that `ours` is better than `theirs`; `text` is how it says it."""

    ours: str
    theirs: str
    text: str = ""


Settings = Mapping[str, Setting]  # by the variant's name, in the study's order


def conduct(study: StudyContext) -> Findings:
    """A run for every variant, task and seed; what each reached, what the claims come to, and what survived."""
    claims = study_claims(study)
    (settings,) = run_variants(study)
    scores = variant_scores(study, settings, "scores", study.config.title)
    differences = claim_table(study, settings, claims, "differences", "Differences")
    sizes = size_table(study, settings)
    theirs, further = published_intervals(study.config.published, study.options)
    tables = [scores, differences, *([] if sizes is None else [sizes]), *theirs]
    figure = bars(scores, "scores", study.config.title, study.tasks)
    return Findings(tables, [figure], [*claim_sentences(study, claims, differences), *further])


def conduct_models(study: StudyContext) -> Findings:
    """Every variant on every model of the option `backbones`: means over the tasks, then each model's own tables."""
    claims, models = study_claims(study), study_models(study)
    several, task = len(study.tasks) > 1, study.tasks[0]
    settings = run_variants(study, [{"backbone.name": name} for name in models.values()])
    rows: list[list[Entry]] = []
    for name, first in settings[0].items():
        entries: list[Entry] = [first.variant.label]
        for by_name in settings:
            row = by_name[name].row
            if row.missing or several:
                entries.append(mean_cell(row))
            else:
                entries.append(score_cell(study, task, row.outcomes[task], row.at_chance[task]))
        rows.append(entries)
    note = f"Mean over {', '.join(study.tasks)}, without an interval." if several else task
    tables, sentences = [Table("models", study.config.title, ("%", *models), rows, note)], []
    figures = [bars(tables[0], "models", study.config.title, list(models), what="mean score on report (%)")]
    for label, by_name in zip(models, settings, strict=True):
        scores = variant_scores(study, by_name, f"scores-{safe(label)}", label)
        differences = claim_table(study, by_name, claims, f"differences-{safe(label)}", f"Differences on {label}")
        tables += [scores, differences]
        figures.append(bars(scores, scores.name, label, study.tasks))
        sentences += [f"On {label}: {sentence}" for sentence in claim_sentences(study, claims, differences)]
    return Findings(tables, figures, sentences)


def study_models(study: StudyContext) -> dict[str, str]:
    """The models by the names that tables have for them; one that was asked for on its own is the only one."""
    asked = [study.config.backbone] if study.config.backbone else study.options.get("backbones") or []
    models = {Path(str(name)).name: str(name) for name in asked}
    if not models or len(models) < len(asked):
        found = ", ".join(map(str, asked)) or "none"
        raise SoftpruneError("different models, each with a name of its own", found, "options.backbones=...")
    return models


def study_variants(study: StudyContext) -> tuple[Variant, ...]:
    """The variants of a study."""
    variants = study.config.variants
    names = [variant.name for variant in variants]
    if not variants or len(set(names)) < len(names):
        found = f"the names {', '.join(names)}" if names else "none"
        raise SoftpruneError("variants that the study compares, each with a name", found, "name them under variants:")
    return variants


def study_claims(study: StudyContext) -> list[Claim]:
    """The option `claims`, or every variant against the first."""
    names = [variant.name for variant in study_variants(study)]
    asked = study.options.get("claims")
    if asked is None:
        return [Claim(name, names[0]) for name in names[1:]]
    for claim in asked:
        if not (isinstance(claim, Sequence) and len(claim) in (2, 3) and set(claim[:2]) <= set(names)):
            raise SoftpruneError(
                "claims [ours, theirs, what the source says]", str(claim), f"name two of {', '.join(names)}"
            )
    return [Claim(*map(str, claim)) for claim in asked]


def run_variants(study: StudyContext, models: Sequence[Keys] = ({},)) -> list[dict[str, Setting]]:
    """For each of several models' keys, every variant by name, with its runs."""
    variants, reasons = study_variants(study), {}
    specs: dict[tuple[int, str, tuple[str, int]], Spec] = {}
    for (at, keys), variant in product(enumerate(models), variants):
        own = {}
        for place in study.tasks_and_seeds:
            own[at, variant.name, place] = study.spec(*place, {**keys, **variant.keys})
        recipe = next(iter(own.values())).recipe
        refused = refused_by_model(recipe.backbone, [recipe.adapter.method]) if recipe.kind == "adapt" else {}
        reasons[at, variant.name] = "".join(refused.values())
        if not refused:
            specs |= own
    made = study.make(specs)  # all at once
    by_model: list[dict[str, Setting]] = [{} for _ in models]
    for (at, settings), variant in product(enumerate(by_model), variants):
        reason = reasons[at, variant.name]
        if reason:
            settings[variant.name] = Setting(variant, Row({}, {}, missing=NOT_DEFINED), {}, reason)
            continue
        runs = {place: made[at, variant.name, place] for place in study.tasks_and_seeds}
        # A trained model is at chance by its own score, a prompt by that of the tuned one.
        at_chance = chances(study, runs, "adapted" if variant.row == "adapted" else "tuned")
        settings[variant.name] = Setting(variant, collect_row(study, runs, variant.row, at_chance), runs)
    return by_model


def variant_scores(study: StudyContext, settings: Settings, name: str, title: str) -> Table:
    """Settings by tasks, means over seeds; the mean over tasks behind them where there are several."""
    notes = [f"{each.variant.label}: {NOT_DEFINED}, {each.reason}." for each in settings.values() if each.reason]
    notes += [f"{CHOSEN_HERE.capitalize()}."] if study.chosen_on_report else []
    rows = {setting.variant.label: setting.row for setting in settings.values()}
    return score_table(study, name, title, rows, more=" ".join(notes))


def claim_table(study: StudyContext, settings: Settings, claims: Sequence[Claim], name: str, title: str) -> Table:
    """Of every claim the difference by task, in points, a row each; one family of tests."""
    results = {setting.variant.row for setting in settings.values()}
    note = ""
    if "winner" in results and not results <= {"winner", "control", "random"}:
        note = "A winner was tuned and then retrained, as controls and random parts were; all others were trained once."
    pairs = {}
    for claim in claims:
        label = f"{settings[claim.ours].variant.label} less {settings[claim.theirs].variant.label}"
        pairs[label] = (claim.ours, claim.theirs)
    rows = {name: setting.row for name, setting in settings.items()}
    return pair_table(study, name, title, rows, pairs, more=note)


def claim_sentences(study: StudyContext, claims: Sequence[Claim], table: Table) -> list[str]:
    """Of every claim: what the source says, on which tasks that is found, and the numbers of its row."""
    here = study.chosen_on_report
    lines = []
    for claim, (label, *cells) in zip(claims, table.rows, strict=True):
        verdicts = [entry_verdict(cell, here) for cell in cells]
        each = []
        for task, cell, side in zip(study.tasks, cells, verdicts, strict=True):
            number = f"{format_entry(cell)} points" if isinstance(cell, Cell) else "-"
            each.append(f"{task} {number}, {side}")
        counted = f" {_count_verdicts(verdicts)}" if claim.text and not here else ""
        source = f"The source: {claim.text}.{counted} " if claim.text else ""
        lines.append(f"{source}{label}: {'; '.join(each)}.")
    return lines


def entry_verdict(entry: Entry, here: bool) -> str:
    """What a difference shows, or why there is none; `here` where choices were made on the examples of report."""
    if isinstance(entry, str):
        return entry
    return CHOSEN_HERE if here else difference_verdict(entry)


def _count_verdicts(verdicts: Sequence[str]) -> str:
    """On how many tasks a claim that one is above another is found."""
    words = {ABOVE: "found", BELOW: "the opposite is found", NEITHER: NEITHER}
    counts: Counter[str] = Counter()
    for each in verdicts:
        counts[words.get(each, each if each.startswith(NO_VERDICT) else "no conclusion possible")] += 1
    if len(verdicts) == 1:
        return f"Here: {next(iter(counts))}."
    return f"Here, of {len(verdicts)} tasks: {', '.join(f'{text} on {count}' for text, count in counts.items())}."


def size_table(study: StudyContext, settings: Settings) -> Table | None:
    """The share of numbers that winners keep, with their tokens and pieces of each seed; None without a winner."""
    winners = [setting for setting in settings.values() if setting.runs and setting.variant.row == "winner"]
    if not winners:
        return None
    by_task: dict[str, dict[str, Entry]] = {task: {} for task in study.tasks}
    for task, setting in product(study.tasks, winners):
        own = [setting.runs[task, seed] for seed in study.seeds]
        tokens = ", ".join(str(run.ticket.info.tokens) for run in own)
        pieces = ", ".join(str(run.ticket.info.pieces) for run in own)
        kept = Cell(fmean(run.share_kept for run in own), note=f"(tokens {tokens}; pieces {pieces})")
        by_task[task][setting.variant.label] = kept
    note = "Kept numbers in percent of the whole prompt's, mean over seeds; tokens and pieces of each seed."
    return Table.from_columns("sizes", "What survived", "% kept", by_task, note)


def conduct_sizes(study: StudyContext) -> Findings:
    """XPrompt on every task and seed; the numbers that each way trains, and the difference that pruning made."""
    runs, by_task, spreads = study.grid(), {}, []
    for task in study.tasks:
        own = [runs[task, seed] for seed in study.seeds]
        infos, shares = [run.ticket.info for run in own], [run.share_kept for run in own]
        by_task[task] = {
            "fine-tuning: all weights": _size_cell(
                [float(run.record.backbone.parameters or 0) for run in own], "count"
            ),
            "prompt tuning": _size_cell([info.prompt_tokens * info.hidden for info in infos], "count"),
            "XPrompt": _size_cell([info.parameters for info in infos], "count"),
            KEPT: _size_cell(shares, "percent"),
            "XPrompt, tokens": _size_cell([info.tokens for info in infos], "number"),
            "XPrompt, pieces": _size_cell([info.pieces for info in infos], "number"),
        }
        spreads.append(f"{task} {100 * (max(shares) - min(shares)):.1f}")
    objective = study.recipe.selection.objective
    note = f"Mean over seeds, in brackets those of each seed where they differ. The winner is chosen by {objective}."
    sizes = Table.from_columns("sizes", study.config.title, "trained numbers", by_task, note)
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
        sentences.append(f"Between seeds of one task the share differs by, in points: {', '.join(spreads)}.")
    return Findings([sizes, worth], [figure], sentences)


def _size_cell(values: Sequence[float], unit: str) -> Cell:
    """The mean over seeds, with those of each seed where they aren't all the same."""
    if min(values) == max(values):
        return Cell(values[0], unit=unit)
    forms = {"percent": [f"{100 * v:.1f}" for v in values], "count": [f"{round(v):,}" for v in values]}
    each = forms.get(unit, [f"{v:g}" for v in values])
    return Cell(fmean(values), unit=unit, note=f"[{', '.join(each)}]")


# --- intervals of the source's accuracies ---


def count_right(printed: str, examples: int) -> int | None:
    """How many right answers of some examples an accuracy in percent means; None where no number rounds to it."""
    text = printed.strip().rstrip("%")
    unit = 10.0 ** -len(text.partition(".")[2])  # its decimals say how far it was rounded, or cut off
    right = round(float(text) / 100 * examples)
    return right if abs(100 * right / examples - float(text)) < unit else None


def published_intervals(published: Sequence[Published], options: Mapping[str, Any]) -> tuple[list[Table], list[str]]:
    """Accuracies of the first published table with their 95% intervals, beside the constant answer's; and in words."""
    examples: Mapping[str, int] = options.get("examples") or {}
    if not examples or not published:
        return [], []
    constant: Mapping[str, int] = options.get("constant") or {}
    columns = [place for place, head in enumerate(published[0].columns) if place and head.startswith("accuracy")]
    heads = [published[0].columns[place] for place in columns]
    rows: list[list[Entry]] = []
    sentences: list[str] = []
    for row in published[0].rows:
        if row[0] not in examples:
            continue
        count, floor = examples[row[0]], constant.get(row[0])
        share = None if floor is None else floor / count
        cells = [_accuracy_cell(row[place], count) for place in columns]
        rows.append([row[0], f"{count:,}", Cell(share), *cells])
        if share is not None:
            each = ", ".join(f"{head} {_compare(cell, share)}" for head, cell in zip(heads, cells, strict=True))
            sizes = f"{count:,} examples, the constant answer {_percent(share)}"
            sentences.append(f"The source's {row[0]}, {sizes}: {each}.")
    note = (
        "95% intervals by Wilson's score from the printed accuracies; the source prints none. "
        "They hold for these very trained prompts, not for others trained with other seeds, and "
        "make no allowance for choosing the best of several candidates on the same examples."
    )
    head = ("%", "examples", "constant", *heads)
    return [Table("source-intervals", "Intervals of the source's accuracies", head, rows, note)], sentences


def _accuracy_cell(printed: str, examples: int) -> Entry:
    """An accuracy with its interval; as it is printed where it is no number, or none of so many examples."""
    try:
        right = count_right(printed, examples)
    except ValueError:
        return printed
    if right is None:
        return f"{printed} (no number of {examples} rounds to it)"
    return Cell(right / examples, *wilson_interval(right, examples), note=f"({right} right)")


def _compare(cell: Entry, constant: float) -> str:
    """An accuracy against the constant answer's."""
    if isinstance(cell, str) or cell.value is None or cell.low is None or cell.high is None:
        return str(cell)
    interval = f"{_percent(cell.value)} ({_percent(cell.low)} to {_percent(cell.high)})"
    if cell.value == constant:
        return f"{interval}: as many right as the constant answer"
    if cell.low > constant:
        return f"{interval}: its interval lies above it"
    return f"{interval}: {'its interval lies below it' if cell.high < constant else 'not shown to be above it'}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"
