"""Settings side by side: what each reached on each task, which of them differ, and how much of a prompt survived.

A setting that isn't defined for the model stays in its table and says so. Options of the study that are read here:

claims: pairs of variants [ours, theirs], or [ours, theirs, what the source says], where the source says that ours is
    the better one; none compares every variant with the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from softprune.config import Variant
from softprune.errors import SoftpruneError
from softprune.studies.comparison.method_runs import refused_by_model
from softprune.studies.findings import Cell, Entry, Table, format_entry
from softprune.studies.run_cache import Spec
from softprune.studies.run_result import FinishedRun
from softprune.studies.score_rows import Row, Runs, collect_row, difference_note, mean_note, pair_table, score_table
from softprune.studies.study_context import Keys, StudyContext
from softprune.studies.verdicts import ABOVE, BELOW, CHOSEN_HERE, NEITHER, NO_VERDICT, difference_verdict

NOT_DEFINED: Final = "not defined"


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


Settings = Mapping[str, Setting]
"""By the variant's name, in the study's order."""


def study_variants(study: StudyContext) -> tuple[Variant, ...]:
    """The variants of a study.

    Raises:
        SoftpruneError: it names none, or two of one name.
    """
    variants = study.config.variants
    names = [variant.name for variant in variants]
    if not variants or len(set(names)) < len(names):
        found = f"the names {', '.join(names)}" if names else "none"
        raise SoftpruneError("variants that the study compares, each with a name", found, "name them under variants:")
    return variants


def study_claims(study: StudyContext) -> list[Claim]:
    """The option `claims`, or every variant against the first.

    Raises:
        SoftpruneError: a claim that isn't of two of the study's variants.
    """
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


def variant_specs(study: StudyContext, keys: Keys | None = None) -> list[Spec]:
    """The runs of all variants that are defined, so that they can be made together; `keys` are of all of them."""
    reasons = _refused_variants(study, keys or {})
    specs = []
    for variant in study_variants(study):
        if variant.name not in reasons:
            own = {**(keys or {}), **variant.keys}
            specs += [study.spec(task, seed, own) for task in study.tasks for seed in study.seeds]
    return specs


def run_variants(study: StudyContext, keys: Keys | None = None) -> dict[str, Setting]:
    """Every variant with its runs, which are made where they aren't there; `keys` are of all of them."""
    reasons = _refused_variants(study, keys or {})
    settings: dict[str, Setting] = {}
    for variant in study_variants(study):
        if variant.name in reasons:
            settings[variant.name] = Setting(variant, Row({}, {}, missing=NOT_DEFINED), {}, reasons[variant.name])
            continue
        runs = study.grid({**(keys or {}), **variant.keys})
        # A trained model is at chance by its own score, a prompt by that of the tuned one.
        result = "adapted" if variant.row == "adapted" else "tuned"
        at_chance = {}
        for task in study.tasks:
            at_chance[task] = not all(runs[task, seed].is_above_constant(result) for seed in study.seeds)
        settings[variant.name] = Setting(variant, collect_row(study, runs, variant.row, at_chance), runs)
    return settings


def _refused_variants(study: StudyContext, keys: Keys) -> dict[str, str]:
    """Why variants aren't defined for the model, by their names."""
    reasons: dict[str, str] = {}
    for variant in study_variants(study):
        recipe = study.spec(study.tasks[0], study.config.seed, {**keys, **variant.keys}).recipe
        if recipe.kind == "adapt":
            for reason in refused_by_model(recipe.backbone, [recipe.adapter.method]).values():
                reasons[variant.name] = reason
    return reasons


def variant_scores(study: StudyContext, settings: Settings, name: str, title: str) -> Table:
    """Settings by tasks, means over seeds; the mean over tasks behind them where there are several."""
    notes = [mean_note(study)]
    notes += [f"{each.variant.label}: {NOT_DEFINED}, {each.reason}." for each in settings.values() if each.reason]
    notes += [f"{CHOSEN_HERE.capitalize()}."] if study.chosen_on_report else []
    rows = {setting.variant.label: setting.row for setting in settings.values()}
    return score_table(study, name, title, rows, note=" ".join(notes))


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
    return pair_table(study, name, title, rows, pairs, note=difference_note(study, note))


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


def size_table(study: StudyContext, settings: Settings, name: str) -> Table | None:
    """The share of numbers that winners keep, with their tokens and pieces of each seed; None without a winner."""
    rows: list[list[Entry]] = []
    for setting in settings.values():
        if setting.runs and setting.variant.row == "winner":
            runs = [[setting.runs[task, seed] for seed in study.seeds] for task in study.tasks]
            rows.append([setting.variant.label, *map(size_cell, runs)])
    if not rows:
        return None
    note = "Kept numbers in percent of the whole prompt's, mean over seeds; tokens and pieces of each seed."
    return Table(name, "What survived", ("% kept", *study.tasks), rows, note)


def size_cell(runs: Sequence[FinishedRun]) -> Cell:
    """What the winners of one task keep."""
    infos = [run.ticket.info for run in runs]
    tokens, pieces = (", ".join(str(getattr(info, part)) for info in infos) for part in ("tokens", "pieces"))
    return Cell(fmean(run.share_kept for run in runs), note=f"(tokens {tokens}; pieces {pieces})")
