"""Do negative tokens exist? (XPrompt, Figure 2, as we read it: parts of the tuned prompt masked, nothing retrained)

    negative   the k least important tokens masked; and all that the winner's mask prunes
    random     k random tokens masked, several draws; and random masks of the winner's size
    positive   the k most important tokens masked: it must hurt, or masking says nothing

Everything is scored on `report` for every k of the search's ratios, so no choice is made there. Beside it, every single
token is left out on `select`; the one whose absence lowers the loss most there is masked on `report`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean
from typing import Final

import numpy as np
import torch

from softprune.config import Recipe
from softprune.prompts.soft_prompts import masked_state, read_one
from softprune.pruning.masks import keep_count, random_mask, without_least, without_most, without_random
from softprune.statistics.bootstrap import LEVEL, Difference, Floats, holm, paired_bootstrap
from softprune.studies.experiments.heatmaps import importances
from softprune.studies.findings import Cell, Entry, Figure, Findings, Table, axes, points
from softprune.studies.prompt_scoring import PromptScore, PromptScores, prompt_outcome, score_run, scored_row
from softprune.studies.run_result import FinishedRun
from softprune.studies.score_rows import Row, Runs, chances, difference_cell, pair_table, score_table
from softprune.studies.study_context import StudyContext
from softprune.studies.verdicts import interval_note, only_cells, tally
from softprune.types import Mask

TUNED: Final = "prompt tuning"
WINNER: Final = "the winner's mask"
KINDS: Final = ("negative", "random", "positive")


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
    scores: dict[tuple[str, int], PromptScores] = {}
    for key, run in runs.items():
        tuned_PH, arms = run.prompt("tuned"), build_arms(study, run)
        prompts = {TUNED: [tuned_PH]}
        for arm, masks in arms.items():
            prompts[arm.label] = [read_one(masked_state(tuned_PH, mask), arm.removal) for mask in masks]
        scores[key] = score_run(study, run, "masked", prompts, "report")
    at_chance = chances(study, runs)
    rows = {TUNED: scored_row(study, scores, TUNED, at_chance)}
    pairs: dict[str, tuple[str, str]] = {}
    for arm in arms:  # the same of every run
        rows[arm.label] = scored_row(study, scores, arm.label, at_chance)
        pairs[f"{arm.label} less {TUNED}"] = (arm.label, TUNED)
        if arm.kind == "negative":
            pairs[f"{arm.label} less random"] = (arm.label, replace(arm, kind="random").label)
    note = (
        "Negative: the least important tokens masked, or all that the winner's mask prunes. Positive: the most "
        f"important ones. Nothing is retrained. Means over seeds and draws. {interval_note(len(study.seeds))}"
    )
    differences = pair_table(study, "differences", "What masking changes", rows, pairs)
    singles, sentences = _mask_single_tokens(study, runs)
    tables = [score_table(study, "scores", study.config.title, rows, note=note), differences, singles]
    return Findings(tables, [_line_chart(study, arms, rows)], [*_sentences(differences), *sentences])


def build_arms(study: StudyContext, run: FinishedRun) -> dict[Arm, list[Mask]]:
    """The masks of each arm; random ones have several draws."""
    recipe, mask, draws = study.spec(run.task, run.seed).recipe, run.mask, int(study.options["draws"])
    token_P = torch.from_numpy(importances(run)["token_P"])
    tokens, pieces = mask.piece_PS.shape
    seeds = [run.seed * draws + draw for draw in range(draws)]  # no draw is another run's
    arms: dict[Arm, list[Mask]] = {}
    for removal in study.options["removals"]:
        for count in pruned_counts(recipe, tokens):
            what = f"{count} of {tokens} tokens"
            arms[Arm(removal, what, "negative")] = [without_least(token_P, count, pieces)]
            arms[Arm(removal, what, "random")] = [without_random(tokens, count, pieces, seed) for seed in seeds]
            arms[Arm(removal, what, "positive")] = [without_most(token_P, count, pieces)]
        arms[Arm(removal, WINNER, "negative")] = [mask]
        arms[Arm(removal, WINNER, "random")] = [random_mask(mask, seed) for seed in seeds]
    return arms


def pruned_counts(recipe: Recipe, tokens: int) -> list[int]:
    """How many tokens the search's ratios prune, each once."""
    rounding = recipe.pruning.rounding
    # A search keeps at least one token, and a ratio that prunes none is the whole prompt.
    counts = {tokens - max(1, keep_count(ratio, tokens, rounding)) for ratio in recipe.search.token_ratios}
    return sorted(counts - {0})


def _sentences(differences: Table) -> list[str]:
    questions = {
        "Negative masking against the whole prompt, by removal, size, task": f"negative less {TUNED}",
        "Negative masking against as much random masking": "negative less random",
        "Random masking against the whole prompt": f"random less {TUNED}",
        "Masking the most important tokens, which has to hurt": f"positive less {TUNED}",
    }
    sentences = []
    for question, ending in questions.items():
        cells = []
        for label, *row in differences.rows:
            if str(label).endswith(f", {ending}"):
                cells += only_cells(row)
        sentences.append(f"{question}: {tally(cells)}.")
    return sentences


# --- single tokens ---


def _mask_single_tokens(study: StudyContext, runs: Runs) -> tuple[Table, list[str]]:
    """Each token left out on `select`; the one that should go is masked on `report`."""
    rows, changes, harmful = [], [], 0
    for run in runs.values():
        row, shown, change = _mask_each_token(study, run)
        rows.append(row)
        harmful += shown
        if change.value is not None:
            changes.append(100 * change.value)
    note = "Changes when the chosen token alone is masked, paired. On select it was chosen for that, which flatters."
    title = "Single tokens left out"
    table = Table.from_records("single", title, rows, note)
    mean, least, most = fmean(changes), min(changes), max(changes)
    sentences = [
        f"Tokens of these very prompts whose masking is shown to lower the loss on other examples of select, in "
        f"{len(runs)} runs, Holm-corrected within each: {harmful}. Other seeds may differ.",
        f"The token chosen on select, masked on report: {mean:+.1f} points in the mean over runs ({least:+.1f} to "
        f"{most:+.1f}).",
    ]
    return table, sentences


def _mask_each_token(study: StudyContext, run: FinishedRun) -> tuple[dict[str, Entry], int, Cell]:
    """The row of a run; how many tokens are shown to be harmful on select; the change in points on report."""
    recipe, tuned_PH = study.spec(run.task, run.seed).recipe, run.prompt("tuned")
    resamples, seed, chance = recipe.selection.resamples, study.config.seed, not run.is_above_constant()
    tokens = len(tuned_PH)
    prompts = {TUNED: [tuned_PH]}
    for p in range(tokens):
        prompts[f"T{p}"] = [read_one(masked_state(tuned_PH, without_one(tokens, p)), recipe.pruning.removal)]
    select = score_run(study, run, "single", prompts, "select")
    whole = select[TUNED][0]
    tests = {name: loss_change(select[name][0], whole, seed, resamples) for name in prompts if name != TUNED}
    adjusted = holm([test.p for test in tests.values()])
    is_lower = [test.value < 0 for test in tests.values()]
    shown = sum(lower and p < 1 - LEVEL for lower, p in zip(is_lower, adjusted, strict=True))
    chosen = min(tests, key=lambda name: tests[name].value)
    report = score_run(study, run, "chosen", {name: prompts[name] for name in (TUNED, chosen)}, "report")
    here, there = tests[chosen], loss_change(report[chosen][0], report[TUNED][0], seed, resamples)
    lower = Cell(sum(is_lower), unit="count", chance=chance, note=f"of {tokens}")
    ours, theirs = (prompt_outcome([report[name]]) for name in (chosen, TUNED))
    change = difference_cell(study, run.task, ours, theirs, chance)
    row: dict[str, Entry] = {
        "run": run.label,
        "tokens whose masking lowers the loss on select": lower,
        "of these after Holm's correction": Cell(shown, unit="count", chance=chance),
        "chosen on select": chosen,
        "loss on select": Cell(here.value, here.low, here.high, unit="number", chance=chance),
        "loss on report": Cell(there.value, there.low, there.high, unit="number", chance=chance),
        "points on report": change,
    }
    return row, shown, change


def without_one(tokens: int, token: int) -> Mask:
    """All tokens but one, each in one piece."""
    kept_P = torch.arange(tokens) != token
    return Mask(kept_P, kept_P[:, None].clone())


def loss_change(ours: PromptScore, theirs: PromptScore, seed: int, resamples: int) -> Difference:
    """The mean loss of one prompt less another's on the same examples, by paired bootstrap."""

    def mean_loss(sums: Floats) -> Floats:
        return np.asarray(sums[..., 0] / sums[..., 1])

    counts = [np.stack([one.losses, np.ones(len(one.losses))], axis=1) for one in (ours, theirs)]
    return paired_bootstrap(counts[0], counts[1], mean_loss, ours.scored.groups, seed=seed, resamples=resamples)


# --- the figure ---


def _line_chart(study: StudyContext, arms: Iterable[Arm], rows: Mapping[str, Row]) -> Figure:
    """Scores by how many tokens are masked, a line for each task and kind, of the first removal."""
    removal = str(study.options["removals"][0])
    traces = []
    for task, kind in product(study.tasks, KINDS):
        outcomes = {0: rows[TUNED].outcomes[task]}
        for arm in arms:
            if (arm.removal, arm.kind) == (removal, kind) and arm.what != WINNER:
                outcomes[int(arm.what.split()[0])] = rows[arm.label].outcomes[task]
        heights = [None if outcome is None else round(100 * outcome.mean, 3) for outcome in outcomes.values()]
        traces.append(points(f"{task}, {kind}", list(outcomes), heights, "lines+markers"))
    caption = (
        "Scores on report (means) when the least important (negative), random or most important (positive) tokens are "
        f"masked by {removal}, without retraining; the numbers with their intervals are in the table."
    )
    return Figure("lines", "Masked tokens and scores", caption, traces, axes("tokens masked", "accuracy or F1, %"))
