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
from softprune.evaluation.conclusions import above_constant
from softprune.studies.comparison.cells import refused_by_model
from softprune.studies.findings import Cell, Entry, Table, shown
from softprune.studies.run_cache import Spec
from softprune.studies.run_result import Made
from softprune.studies.score_rows import Outcome, Runs, difference_cell, mean_note, row_of, score_cell
from softprune.studies.study_context import Bench, Keys
from softprune.studies.verdicts import (
    ABOVE,
    AT_CHANCE,
    BELOW,
    NEITHER,
    NO_VERDICT,
    corrected_table,
    paired_note,
    verdict,
)

NOT_DEFINED: Final = "not defined"
CHOSEN_HERE: Final = "chosen on the examples that are reported: no significance claimed"


@dataclass(frozen=True, slots=True)
class Setting:
    """A variant with what it reached.

    Attributes:
        variant: its settings.
        runs: by task and seed; None where the model has no place for its method.
        row: what counts of them, by task.
        chance: by task, whether the unpruned prompt behind it isn't shown to be above the constant answer.
        reason: why it isn't defined.
    """

    variant: Variant
    runs: Runs | None = None
    row: Mapping[str, Outcome] | None = None
    chance: Mapping[str, bool] | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a source says of two variants: that `ours` is better than `theirs`; `text` is how it says it."""

    ours: str
    theirs: str
    text: str = ""


Settings = Mapping[str, Setting]
"""By the variant's name, in the study's order."""


def variants_of(bench: Bench) -> tuple[Variant, ...]:
    """The variants of a study.

    Raises:
        SoftpruneError: it names none, or two of one name.
    """
    variants = bench.study.variants
    names = [variant.name for variant in variants]
    if not variants or len(set(names)) < len(names):
        found = f"the names {', '.join(names)}" if names else "none"
        raise SoftpruneError("variants that the study compares, each with a name", found, "name them under variants:")
    return variants


def claims_of(bench: Bench) -> list[Claim]:
    """The option `claims`, or every variant against the first.

    Raises:
        SoftpruneError: a claim that isn't of two of the study's variants.
    """
    names = [variant.name for variant in variants_of(bench)]
    asked = bench.options.get("claims")
    if asked is None:
        return [Claim(name, names[0]) for name in names[1:]]
    for claim in asked:
        if not (isinstance(claim, Sequence) and len(claim) in (2, 3) and set(claim[:2]) <= set(names)):
            raise SoftpruneError(
                "claims [ours, theirs, what the source says]", str(claim), f"name two of {', '.join(names)}"
            )
    return [Claim(*map(str, claim)) for claim in asked]


def specs_of(bench: Bench, keys: Keys | None = None) -> list[Spec]:
    """The runs of all variants that are defined, so that they can be made together; `keys` are of all of them."""
    reasons = _reasons(bench, keys or {})
    return [
        bench.spec(task, seed, {**(keys or {}), **variant.keys})
        for variant in variants_of(bench)
        if variant.name not in reasons
        for task in bench.tasks
        for seed in bench.seeds
    ]


def settings_of(bench: Bench, keys: Keys | None = None) -> dict[str, Setting]:
    """Every variant with its runs, which are made where they aren't there; `keys` are of all of them."""
    reasons = _reasons(bench, keys or {})
    made: dict[str, Setting] = {}
    for variant in variants_of(bench):
        if variant.name in reasons:
            made[variant.name] = Setting(variant, reason=reasons[variant.name])
            continue
        runs = bench.grid({**(keys or {}), **variant.keys})
        chance = {t: not all(_above(runs[t, seed], variant.row) for seed in bench.seeds) for t in bench.tasks}
        made[variant.name] = Setting(variant, runs, row_of(bench, runs, variant.row), chance)
    return made


def _reasons(bench: Bench, keys: Keys) -> dict[str, str]:
    """Why variants aren't defined for the model, by their names."""
    reasons: dict[str, str] = {}
    for variant in variants_of(bench):
        recipe = bench.spec(bench.tasks[0], bench.study.seed, {**keys, **variant.keys}).recipe
        if recipe.kind == "adapt":
            method = recipe.adapter.method
            reason = refused_by_model(recipe.backbone, [method]).get(method)
            reasons |= {} if reason is None else {variant.name: reason}
    return reasons


def _above(made: Made, row: str) -> bool:
    """Whether what was trained is shown to be above the constant answer: a model itself, else the unpruned prompt."""
    if row != "adapted":
        return made.interpretable
    return above_constant("adapted", made.record.results)


def score_lines(bench: Bench, settings: Settings, name: str, title: str) -> Table:
    """Settings by tasks, means over seeds; the mean over tasks behind them where there are several."""
    several = len(bench.tasks) > 1
    lines: list[tuple[Entry, ...]] = []
    for setting in settings.values():
        line: list[Entry] = [setting.variant.label, *(score_of(bench, setting, task) for task in bench.tasks)]
        if several:
            line.append(mean_cell(setting))
        lines.append(tuple(line))
    notes = [mean_note(len(bench.seeds)), *_notes(bench, settings)]
    return Table(name, title, ("%", *bench.tasks, *(("mean",) if several else ())), tuple(lines), " ".join(notes))


def score_of(bench: Bench, setting: Setting, task: str) -> Entry:
    """What a setting reached on a task, with its interval."""
    if setting.row is None or setting.chance is None:
        return NOT_DEFINED
    return score_cell(bench, task, setting.row[task], setting.chance[task])


def mean_cell(setting: Setting) -> Entry:
    """The mean over tasks of a setting, without an interval; not measured where a task isn't."""
    if setting.row is None or setting.chance is None:
        return NOT_DEFINED
    outcomes = [each for each in setting.row.values() if each is not None]
    mean = fmean(each.mean for each in outcomes) if len(outcomes) == len(setting.row) else None
    return Cell(mean, chance=any(setting.chance.values()))


def _notes(bench: Bench, settings: Settings) -> list[str]:
    refused = [f"{each.variant.label}: {NOT_DEFINED}, {each.reason}." for each in settings.values() if each.reason]
    return [*refused, *([f"{CHOSEN_HERE.capitalize()}."] if chosen_here(bench) else [])]


def chosen_here(bench: Bench) -> bool:
    """Whether runs choose on the very examples that they report."""
    return bench.spec(bench.tasks[0], bench.study.seed).recipe.selection.protocol == "paper"


def differences(bench: Bench, settings: Settings, claims: Sequence[Claim]) -> dict[Claim, dict[str, Entry]]:
    """Of every claim the difference by task, in points, paired over seeds and examples; one family of tests."""
    return corrected_table(
        {claim: {task: _difference(bench, settings, claim, task) for task in bench.tasks} for claim in claims}
    )


def _difference(bench: Bench, settings: Settings, claim: Claim, task: str) -> Entry:
    ours, theirs = settings[claim.ours], settings[claim.theirs]
    if ours.row is None or theirs.row is None or ours.chance is None or theirs.chance is None:
        return NOT_DEFINED
    chance = ours.chance[task] or theirs.chance[task]
    return difference_cell(bench, task, ours.row[task], theirs.row[task], chance)


def difference_lines(
    bench: Bench, settings: Settings, found: Mapping[Claim, Mapping[str, Entry]], name: str, title: str
) -> Table:
    """The differences as a table."""
    rows = tuple((_named(settings, claim), *cells.values()) for claim, cells in found.items())
    note = paired_note(len(bench.seeds))
    trained = {setting.variant.row for setting in settings.values()}
    if "winner" in trained and not trained <= {"winner", "control", "random"}:
        note += (
            " A winner was tuned and then retrained, as controls and random parts were; all others were trained once."
        )
    if chosen_here(bench):
        note = f"{note} {CHOSEN_HERE.capitalize()}."
    return Table(name, title, ("points", *bench.tasks), rows, note)


def _named(settings: Settings, claim: Claim) -> str:
    return f"{settings[claim.ours].variant.label} less {settings[claim.theirs].variant.label}"


def sentences(bench: Bench, settings: Settings, found: Mapping[Claim, Mapping[str, Entry]]) -> list[str]:
    """Of every claim: what the source says, on which tasks that is found, and the numbers."""
    here = chosen_here(bench)
    lines = []
    for claim, cells in found.items():
        by_task = {task: verdict_of(cell, here) for task, cell in cells.items()}
        each = "; ".join(f"{task} {_told(cell)}, {by_task[task]}" for task, cell in cells.items())
        counted = f" {_outcome(list(by_task.values()))}" if claim.text and not here else ""
        says = f"The source: {claim.text}.{counted} " if claim.text else ""
        lines.append(f"{says}{_named(settings, claim)}: {each}.")
    return lines


def verdict_of(cell: Entry, here: bool) -> str:
    """What a difference shows.

    Args:
        cell: it, or why there is none.
        here: whether choices were made on the examples that it was measured on.
    """
    if isinstance(cell, str):
        return cell
    if here:
        return CHOSEN_HERE
    return AT_CHANCE if cell.chance else verdict(cell)


def _told(cell: Entry) -> str:
    return f"{shown(cell)} points" if isinstance(cell, Cell) else "-"


def _outcome(verdicts: Sequence[str]) -> str:
    """On how many tasks a claim that one is above another is found."""
    words = {ABOVE: "found", BELOW: "the opposite is found", NEITHER: NEITHER}
    counts = Counter(
        words.get(each, each if each.startswith(NO_VERDICT) else "nothing can be told") for each in verdicts
    )
    if len(verdicts) == 1:
        return f"Here: {next(iter(counts))}."
    return f"Here, of {len(verdicts)} tasks: {', '.join(f'{text} on {count}' for text, count in counts.items())}."


def size_lines(bench: Bench, settings: Settings, name: str) -> Table | None:
    """The share of numbers that winners keep, with their tokens and pieces of each seed; None without a winner."""
    rows: tuple[tuple[Entry, ...], ...] = tuple(
        (
            setting.variant.label,
            *(size_cell([setting.runs[task, seed] for seed in bench.seeds]) for task in bench.tasks),
        )
        for setting in settings.values()
        if setting.runs is not None and setting.variant.row == "winner"
    )
    if not rows:
        return None
    note = "Kept numbers in percent of the whole prompt's, mean over seeds; tokens and pieces of each seed."
    return Table(name, "What survived", ("% kept", *bench.tasks), rows, note)


def size_cell(runs: Sequence[Made]) -> Cell:
    """What the winners of one task keep."""
    infos = [made.ticket.info for made in runs]
    share = fmean(info.parameters / (info.prompt_tokens * info.hidden) for info in infos)
    tokens, pieces = (", ".join(str(getattr(info, part)) for info in infos) for part in ("tokens", "pieces"))
    return Cell(share, note=f"(tokens {tokens}; pieces {pieces})")
