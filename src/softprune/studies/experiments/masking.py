"""Do negative tokens exist? (XPrompt, Figure 2, as we read it: parts of the tuned prompt masked, nothing retrained)

    negative   the k least important tokens masked; and all that the winner's mask prunes
    random     k random tokens masked, several draws; and random masks of the winner's size
    positive   the k most important tokens masked: it must hurt, or masking says nothing

Everything is scored on `report` for every k of the search's ratios, so no choice is made there. Beside it, every single
token is left out on `select`; the one whose absence lowers the loss most there is masked on `report`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

import numpy as np
import torch

from softprune.config import Recipe
from softprune.prompts.soft_prompts import masked_state, read_one
from softprune.pruning.masks import keep_count, random_mask, without_least, without_most, without_random
from softprune.statistics.bootstrap import Difference, holm, paired_bootstrap
from softprune.statistics.methods_over_seeds import Floats
from softprune.studies.experiments.heatmaps import importances, told
from softprune.studies.findings import Cell, Entry, Figure, Findings, Table
from softprune.studies.masked_prompts import Masked, score_masked
from softprune.studies.run_result import FinishedRun
from softprune.studies.score_rows import Outcome, Row, chances, difference_cell, score_table
from softprune.studies.study_context import StudyContext
from softprune.studies.verdicts import corrected_table, interval_note, only_cells, paired_note, tally
from softprune.types import Mask

Key = tuple[str, int]
TUNED: Final = "prompt tuning"
WINNER: Final = "the winner's mask"
KINDS: Final = ("negative", "random", "positive")
LEVEL: Final = 0.05


@dataclass(frozen=True, slots=True)
class Arm:
    """One sort of masked prompt: a row of the table."""

    removal: str
    what: str
    kind: str

    @property
    def label(self) -> str:
        """As tables name it."""
        return f"{self.removal}: {self.what}, {self.kind}"


def conduct(study: StudyContext) -> Findings:
    """Masked prompts of every run on `report`, then single tokens."""
    runs = study.grid()
    arms = {key: build_arms(study, made) for key, made in runs.items()}
    found = {key: _scored(study, runs[key], each) for key, each in arms.items()}
    rows: dict[str, Row] = {TUNED: _row(study, found, [TUNED])}
    by_arm: dict[Arm, Row] = {}
    for arm, masks in next(iter(arms.values())).items():
        by_arm[arm] = _row(study, found, [f"{arm.label}, {draw}" for draw in range(len(masks))])
    rows |= {arm.label: row for arm, row in by_arm.items()}
    chance = chances(study, runs)
    note = "Negative: the least important tokens masked, or all that the winner's mask prunes. Positive: the most "
    note += f"important ones. Nothing is retrained. Means over seeds and draws. {interval_note(len(study.seeds))}"
    scores = score_table(study, "scores", study.config.title, rows, chance, note=note)
    differences = _differences(study, rows[TUNED], by_arm, chance)
    singles, chosen = _singles(study, runs)
    sentences = (*_sentences(differences), *chosen)
    return Findings((scores, differences, singles), (_lines(study, by_arm, rows[TUNED]),), sentences)


def build_arms(study: StudyContext, made: FinishedRun) -> dict[Arm, list[Mask]]:
    """The masks of each arm; random ones have several draws."""
    recipe, mask, draws = study.spec(made.task, made.seed).recipe, made.mask, int(study.options["draws"])
    token_P = torch.from_numpy(importances(made)["token_P"])
    tokens, pieces = mask.piece_PS.shape
    seeds = [made.seed * draws + draw for draw in range(draws)]
    found: dict[Arm, list[Mask]] = {}
    for removal in study.options["removals"]:
        for count in pruned_counts(recipe, tokens):
            what = f"{count} of {tokens} tokens"
            found[Arm(removal, what, "negative")] = [without_least(token_P, count, pieces)]
            found[Arm(removal, what, "random")] = [without_random(tokens, count, pieces, seed) for seed in seeds]
            found[Arm(removal, what, "positive")] = [without_most(token_P, count, pieces)]
        found[Arm(removal, WINNER, "negative")] = [mask]
        found[Arm(removal, WINNER, "random")] = [random_mask(mask, seed) for seed in seeds]
    return found


def pruned_counts(recipe: Recipe, tokens: int) -> list[int]:
    """How many tokens the search's ratios prune, each once."""
    counts = {
        tokens - max(1, keep_count(ratio, tokens, recipe.pruning.rounding)) for ratio in recipe.search.token_ratios
    }
    return sorted(counts - {0})


def _scored(study: StudyContext, made: FinishedRun, arms: Mapping[Arm, Sequence[Mask]]) -> dict[str, Masked]:
    """The tuned prompt and all masked ones on `report`, by arm and draw."""
    tuned_PH = made.prompt("tuned")
    prompts = {TUNED: tuned_PH}
    for arm, masks in arms.items():
        for draw, mask in enumerate(masks):
            prompts[f"{arm.label}, {draw}"] = read_one(masked_state(tuned_PH, mask), arm.removal)
    return score_masked(study, made, "masked", prompts, "report")


def _row(study: StudyContext, found: Mapping[Key, Mapping[str, Masked]], names: Sequence[str]) -> Row:
    """One arm by task, over seeds and draws."""
    row: dict[str, Outcome | None] = {}
    for task in study.tasks:
        each = [found[task, seed][name] for seed in study.seeds for name in names]
        row[task] = Outcome(tuple(one.value for one in each), tuple(one.scored for one in each), draws=len(names))
    return row


# --- differences ---


def _differences(study: StudyContext, tuned: Row, by_arm: Mapping[Arm, Row], chance: Mapping[str, bool]) -> Table:
    """Paired differences of arms, all of them one family of tests."""
    found: dict[str, dict[str, Entry]] = {}
    for arm, row in by_arm.items():
        found[f"{arm.label} less {TUNED}"] = _difference_row(study, row, tuned, chance)
        if arm.kind == "negative":
            rival = by_arm[Arm(arm.removal, arm.what, "random")]
            found[f"{arm.label} less random"] = _difference_row(study, row, rival, chance)
    lines = tuple((label, *row.values()) for label, row in corrected_table(found).items())
    title = "What masking changes"
    return Table("differences", title, ("points", *study.tasks), lines, paired_note(len(study.seeds)))


def _difference_row(study: StudyContext, ours: Row, theirs: Row, chance: Mapping[str, bool]) -> dict[str, Entry]:
    return {t: difference_cell(study, t, ours[t], theirs[t], chance[t]) for t in study.tasks}


def _sentences(differences: Table) -> tuple[str, ...]:
    def cells(kind: str, rival: str) -> list[Cell]:
        rows = [row for row in differences.rows if str(row[0]).endswith(f", {kind} less {rival}")]
        return [cell for row in rows for cell in only_cells(row[1:])]

    return (
        f"Negative masking against the whole prompt, by removal, size, task: {tally(cells('negative', TUNED))}.",
        f"Negative masking against as much random masking: {tally(cells('negative', 'random'))}.",
        f"Random masking against the whole prompt: {tally(cells('random', TUNED))}.",
        f"Masking the most important tokens, which has to hurt: {tally(cells('positive', TUNED))}.",
    )


# --- single tokens ---


def _singles(study: StudyContext, runs: Mapping[Key, FinishedRun]) -> tuple[Table, tuple[str, ...]]:
    """Each token left out on `select`; the one that should go is masked on `report`."""
    rows, changes, harmful = [], [], 0
    for made in runs.values():
        row, change, shown = _single(study, made)
        rows.append(row)
        changes.append(change)
        harmful += shown
    columns = (
        "run",
        "tokens whose masking lowers the loss on select",
        "of these after Holm's correction",
        "chosen on select",
        "loss on select",
        "loss on report",
        "points on report",
    )
    values = [100 * cell.value for cell in changes if cell.value is not None]
    mean, least, most = (f"{number:+.1f}" for number in (fmean(values), min(values), max(values)))
    note = "Changes when the chosen token alone is masked, paired. On select it was chosen for that, which flatters."
    said = (
        f"Tokens of these very prompts whose masking is shown to lower the loss on other examples of select, in "
        f"{len(runs)} runs, Holm-corrected within each: {harmful}. Other seeds may differ.",
        f"The token chosen on select, masked on report: {mean} points in the mean over runs ({least} to {most}).",
    )
    return Table("single", "Single tokens left out", columns, tuple(rows), note), said


def _single(study: StudyContext, made: FinishedRun) -> tuple[tuple[Entry, ...], Cell, int]:
    """The row of a run; the change on report; how many tokens are shown to be harmful on select."""
    recipe = study.spec(made.task, made.seed).recipe
    resamples, seed = recipe.selection.resamples, study.config.seed
    removal = recipe.pruning.removal
    tuned_PH = made.prompt("tuned")
    tokens = len(tuned_PH)
    without = {f"T{p}": read_one(masked_state(tuned_PH, without_one(tokens, p)), removal) for p in range(tokens)}
    select = score_masked(study, made, "single", {TUNED: tuned_PH, **without}, "select")
    tests = {name: loss_change(select[name], select[TUNED], seed, resamples) for name in without}
    lower = [name for name, test in tests.items() if test.value < 0]
    adjusted = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    shown = sum(adjusted[name] < LEVEL for name in lower)
    chosen = min(tests, key=lambda name: tests[name].value)
    report = score_masked(study, made, "chosen", {TUNED: tuned_PH, chosen: without[chosen]}, "report")
    loss = loss_change(report[chosen], report[TUNED], seed, resamples)
    ours, theirs = (Outcome((report[name].value,), (report[name].scored,)) for name in (chosen, TUNED))
    chance = not made.interpretable
    points = difference_cell(study, made.task, ours, theirs, chance)
    row: tuple[Entry, ...] = (
        told(made),
        Cell(len(lower), unit="count", chance=chance, note=f"of {tokens}"),
        Cell(shown, unit="count", chance=chance),
        chosen,
        _loss_cell(tests[chosen], chance),
        _loss_cell(loss, chance),
        points,
    )
    return row, points, shown


def without_one(tokens: int, token: int) -> Mask:
    """All tokens but one, in single pieces."""
    kept_P = torch.arange(tokens) != token
    return Mask(kept_P, kept_P[:, None].clone())


def loss_change(ours: Masked, theirs: Masked, seed: int, resamples: int) -> Difference:
    """The mean loss of one prompt less another's on the same examples, by paired bootstrap."""
    counts = [np.stack([one.losses, np.ones(len(one.losses))], axis=1) for one in (ours, theirs)]
    return paired_bootstrap(counts[0], counts[1], _mean, ours.scored.groups, seed=seed, resamples=resamples)


def _mean(sums: Floats) -> Floats:
    return np.asarray(sums[..., 0] / sums[..., 1])


def _loss_cell(change: Difference, chance: bool) -> Cell:
    return Cell(change.value, change.low, change.high, unit="number", chance=chance)


# --- the figure ---


def _lines(study: StudyContext, by_arm: Mapping[Arm, Row], tuned: Row) -> Figure:
    """Scores by how many tokens are masked, a line for each task and kind, of the first removal."""
    removal = str(study.options["removals"][0])
    traces = []
    for task in study.tasks:
        for kind in KINDS:
            points = [(0, tuned[task])]
            for arm, row in by_arm.items():
                if (arm.removal, arm.kind) == (removal, kind) and arm.what != WINNER:
                    points.append((int(arm.what.split()[0]), row[task]))
            heights = [None if o is None else round(100 * o.mean, 3) for _, o in points]
            name = f"{task}, {kind}"
            trace = {
                "type": "scatter",
                "mode": "lines+markers",
                "name": name,
                "x": [x for x, _ in points],
                "y": heights,
            }
            traces.append(trace)
    layout = {"xaxis": {"title": {"text": "tokens masked"}}, "yaxis": {"title": {"text": "accuracy or F1, %"}}}
    caption = (
        "Scores on report (means) when the least important (negative), random or most important (positive) tokens are "
    )
    caption += f"masked by {removal}, without retraining; the numbers with their intervals are in the table."
    return Figure("lines", "Masked tokens and scores", caption, tuple(traces), layout)
