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
from softprune.statistics.bootstrap import LEVEL, Difference, holm, paired_bootstrap
from softprune.statistics.methods_over_seeds import Floats
from softprune.studies.experiments.heatmaps import importances
from softprune.studies.figures import axes, points
from softprune.studies.findings import Cell, Entry, Figure, Findings, Table
from softprune.studies.prompt_scoring import PromptScore, PromptScores, prompt_outcome, score_run, scored_row
from softprune.studies.run_result import FinishedRun
from softprune.studies.score_rows import Row, chances, difference_cell, pair_table, score_table
from softprune.studies.study_context import StudyContext
from softprune.studies.verdicts import interval_note, only_cells, tally
from softprune.types import Mask

Key = tuple[str, int]
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
    arms = {key: build_arms(study, run) for key, run in runs.items()}
    scores = {key: _score_arms(study, runs[key], each) for key, each in arms.items()}
    at_chance = chances(study, runs)
    tuned = scored_row(study, scores, TUNED, at_chance)
    by_arm = {arm: scored_row(study, scores, arm.label, at_chance) for arm in next(iter(arms.values()))}
    rows = {TUNED: tuned} | {arm.label: row for arm, row in by_arm.items()}
    note = (
        "Negative: the least important tokens masked, or all that the winner's mask prunes. Positive: the most "
        f"important ones. Nothing is retrained. Means over seeds and draws. {interval_note(len(study.seeds))}"
    )
    pairs: dict[str, tuple[str, str]] = {}
    for arm in by_arm:
        pairs[f"{arm.label} less {TUNED}"] = (arm.label, TUNED)
        if arm.kind == "negative":
            pairs[f"{arm.label} less random"] = (arm.label, Arm(arm.removal, arm.what, "random").label)
    differences = pair_table(study, "differences", "What masking changes", rows, pairs)
    singles, sentences = _mask_single_tokens(study, runs)
    return Findings(
        [score_table(study, "scores", study.config.title, rows, note=note), differences, singles],
        [_line_chart(study, by_arm, tuned)],
        [*_sentences(differences), *sentences],
    )


def build_arms(study: StudyContext, run: FinishedRun) -> dict[Arm, list[Mask]]:
    """The masks of each arm; random ones have several draws."""
    recipe, mask, draws = study.spec(run.task, run.seed).recipe, run.mask, int(study.options["draws"])
    token_P = torch.from_numpy(importances(run)["token_P"])
    tokens, pieces = mask.piece_PS.shape
    seeds = [run.seed * draws + draw for draw in range(draws)]
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
    counts = {tokens - max(1, keep_count(ratio, tokens, rounding)) for ratio in recipe.search.token_ratios}
    return sorted(counts - {0})


def _score_arms(study: StudyContext, run: FinishedRun, arms: Mapping[Arm, Sequence[Mask]]) -> PromptScores:
    """The tuned prompt and all masked ones on `report`, by arm and draw."""
    tuned_PH = run.prompt("tuned")
    prompts = {TUNED: [tuned_PH]}
    for arm, masks in arms.items():
        prompts[arm.label] = [read_one(masked_state(tuned_PH, mask), arm.removal) for mask in masks]
    return score_run(study, run, "masked", prompts, "report")


def _sentences(differences: Table) -> list[str]:
    questions = {
        "Negative masking against the whole prompt, by removal, size, task": f"negative less {TUNED}",
        "Negative masking against as much random masking": "negative less random",
        "Random masking against the whole prompt": f"random less {TUNED}",
        "Masking the most important tokens, which has to hurt": f"positive less {TUNED}",
    }
    sentences = []
    for question, ending in questions.items():
        rows = [only_cells(row) for row in differences.rows if str(row[0]).endswith(f", {ending}")]
        sentences.append(f"{question}: {tally([cell for row in rows for cell in row])}.")
    return sentences


# --- single tokens ---


def _mask_single_tokens(study: StudyContext, runs: Mapping[Key, FinishedRun]) -> tuple[Table, list[str]]:
    """Each token left out on `select`; the one that should go is masked on `report`."""
    rows, changes, harmful = [], [], 0
    for run in runs.values():
        row, change, shown = _mask_each_token(study, run)
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
    sentences = [
        f"Tokens of these very prompts whose masking is shown to lower the loss on other examples of select, in "
        f"{len(runs)} runs, Holm-corrected within each: {harmful}. Other seeds may differ.",
        f"The token chosen on select, masked on report: {mean} points in the mean over runs ({least} to {most}).",
    ]
    return Table("single", "Single tokens left out", columns, rows, note), sentences


def _mask_each_token(study: StudyContext, run: FinishedRun) -> tuple[list[Entry], Cell, int]:
    """The row of a run; the change on report; how many tokens are shown to be harmful on select."""
    recipe = study.spec(run.task, run.seed).recipe
    resamples, seed, chance = recipe.selection.resamples, study.config.seed, not run.interpretable
    tuned_PH = run.prompt("tuned")
    tokens = len(tuned_PH)
    prompts = {TUNED: [tuned_PH]}
    for p in range(tokens):
        prompts[f"T{p}"] = [read_one(masked_state(tuned_PH, without_one(tokens, p)), recipe.pruning.removal)]
    select = score_run(study, run, "single", prompts, "select")
    tests = {}
    for name in prompts:
        if name != TUNED:
            tests[name] = loss_change(select[name][0], select[TUNED][0], seed, resamples)
    lower = [name for name, test in tests.items() if test.value < 0]
    adjusted = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    shown = sum(adjusted[name] < 1 - LEVEL for name in lower)
    chosen = min(tests, key=lambda name: tests[name].value)
    report = score_run(study, run, "chosen", {name: prompts[name] for name in (TUNED, chosen)}, "report")
    loss = loss_change(report[chosen][0], report[TUNED][0], seed, resamples)
    ours, theirs = (prompt_outcome([report[name]]) for name in (chosen, TUNED))
    change = difference_cell(study, run.task, ours, theirs, chance)
    row: list[Entry] = [
        run.label,
        Cell(len(lower), unit="count", chance=chance, note=f"of {tokens}"),
        Cell(shown, unit="count", chance=chance),
        chosen,
        *(Cell(test.value, test.low, test.high, unit="number", chance=chance) for test in (tests[chosen], loss)),
        change,
    ]
    return row, change, shown


def without_one(tokens: int, token: int) -> Mask:
    """All tokens but one, in single pieces."""
    kept_P = torch.arange(tokens) != token
    return Mask(kept_P, kept_P[:, None].clone())


def loss_change(ours: PromptScore, theirs: PromptScore, seed: int, resamples: int) -> Difference:
    """The mean loss of one prompt less another's on the same examples, by paired bootstrap."""
    counts = [np.stack([one.losses, np.ones(len(one.losses))], axis=1) for one in (ours, theirs)]
    return paired_bootstrap(counts[0], counts[1], _mean_loss, ours.scored.groups, seed=seed, resamples=resamples)


def _mean_loss(sums: Floats) -> Floats:
    return np.asarray(sums[..., 0] / sums[..., 1])


# --- the figure ---


def _line_chart(study: StudyContext, by_arm: Mapping[Arm, Row], tuned: Row) -> Figure:
    """Scores by how many tokens are masked, a line for each task and kind, of the first removal."""
    removal = str(study.options["removals"][0])
    traces = []
    for task in study.tasks:
        for kind in KINDS:
            outcomes = {0: tuned.outcomes[task]}
            for arm, row in by_arm.items():
                if (arm.removal, arm.kind) == (removal, kind) and arm.what != WINNER:
                    outcomes[int(arm.what.split()[0])] = row.outcomes[task]
            heights = [None if outcome is None else round(100 * outcome.mean, 3) for outcome in outcomes.values()]
            traces.append(points(f"{task}, {kind}", list(outcomes), heights, "lines+markers"))
    caption = (
        "Scores on report (means) when the least important (negative), random or most important (positive) tokens are "
        f"masked by {removal}, without retraining; the numbers with their intervals are in the table."
    )
    return Figure("lines", "Masked tokens and scores", caption, traces, axes("tokens masked", "accuracy or F1, %"))
