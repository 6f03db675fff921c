"""Which measure of importance best predicts what a prompt token is worth?

    score          E |<dL/dp, p>| (XPrompt, equation 3)
    gradient       E mean |dL/dp|, the gradient's magnitude (the BART study)
    leave-one-out  the loss on `train` with the token masked, less without
    taylor         (E <dL/dp, p>)^2, the squared first-order change of the mean loss (Molchanov et al. 2019)
    fisher         1/2 E <dL/dp, p>^2, the second-order change by a diagonal Fisher matrix (Kwon et al. 2022)
    norm           the length of the token's vector, which needs no data
    random         drawn numbers

All are measured on `train`, at the tuned prompt. Held against them, on `report`, which chooses nothing:

    correlation    of each measure with what masking the single token does to the loss (Spearman, over tokens); with
                   zeros in its place, and without its place
    masking        the score with the least important tokens of each masked, without retraining
    retraining     the same masks rewound and retrained, at one ratio
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Final

import numpy as np
import torch

from softprune.config.criteria import CRITERIA
from softprune.prompts.soft_prompts import masked_state, read_one
from softprune.pruning.importance import measure
from softprune.pruning.masks import keep_count, without_least
from softprune.statistics.bootstrap import Floats, percentiles
from softprune.statistics.correlation import coefficient, correlate
from softprune.statistics.seeds import MIN_SEEDS, Uncertainty
from softprune.studies.experiments.heatmaps import over_largest
from softprune.studies.experiments.masking import pruned_counts, without_one
from softprune.studies.experiments.reversed import under_mask
from softprune.studies.findings import Cell, Entry, Figure, Findings, Table, axes, bars, points
from softprune.studies.prompt_scoring import PromptScores, open_set, score_run, scored_row
from softprune.studies.run_result import FinishedRun
from softprune.studies.score_rows import Row, Runs, chances, collect_row, difference_table, score_table
from softprune.studies.study_context import StudyContext
from softprune.studies.verdicts import ABOVE, BELOW, correct_family, only_cells, tally, verdict

Key = tuple[str, int]
Measures = Mapping[str, Floats]  # `[P]` each, by name
SCORE: Final = "score"
MEASURED: Final = {SCORE if name == "paper" else name.replace("_", "-"): name for name in CRITERIA}
MEASURES: Final = tuple(MEASURED)
TUNED: Final = "prompt tuning"
REMOVALS: Final = ("zero", "drop")
RESAMPLES: Final = 1_000  # of intervals at most: there are hundreds of rank correlations, and each resample ranks anew


def conduct(study: StudyContext) -> Findings:
    """Correlations, masking and retraining, of every measure."""
    runs = study.grid()
    measures: dict[Key, Measures] = {}
    scores: dict[Key, PromptScores] = {}
    changes: dict[str, dict[Key, Floats]] = {removal: {} for removal in REMOVALS}
    for key, run in runs.items():
        measures[key] = measure_importance(study, run)
        scores[key] = _score_masked(study, run, measures[key])
        whole = scores[key][TUNED][0].loss
        for removal in REMOVALS:
            losses = [scores[key][f"{removal}: T{p}"][0].loss for p in range(len(measures[key][SCORE]))]
            changes[removal][key] = np.array(losses) - whole
    at_chance = chances(study, runs)
    recipe = study.recipe
    masked = {TUNED: scored_row(study, scores, TUNED, at_chance)}
    for count, name in product(pruned_counts(recipe, recipe.prompt.tokens), MEASURES):
        label = _label(name, count, recipe.prompt.tokens)
        masked[label] = scored_row(study, scores, label, at_chance)
    retrained = _retrain_least(study, runs, measures, at_chance)
    title = f"{study.options['retrained']:.0%} of the tokens pruned by each measure, the rest rewound and retrained"
    means = _mean_table(study, measures, changes)
    rivals = difference_table(study, "to-score", f"Differences to {SCORE}, retrained", retrained, SCORE)
    tables = [
        means,
        _correlation_table(study, runs, measures, changes),
        score_table(study, "masked", "The least important tokens masked, without retraining", masked),
        score_table(study, "retrained", title, retrained),
        rivals,
    ]
    figures = [_scatter(runs, measures, removal, each) for removal, each in changes.items()]
    correlations = [f"{removal}: correlation" for removal in REMOVALS]
    figures.append(bars(means, "means", means.title, correlations, what="Spearman correlation x 100"))
    return Findings(tables, figures, _sentences(means, rivals))


def measure_importance(study: StudyContext, run: FinishedRun) -> dict[str, Floats]:
    """Every measure of a run's tuned prompt, `[P]`; higher is more important."""
    tuned_PH = run.prompt("tuned")

    def compute() -> dict[str, list[float]]:
        opened = open_set(study.spec(run.task, run.seed).recipe, "train")
        prompt_PH = tuned_PH.to(opened.backbone.device, opened.backbone.prompt_dtype)
        by_name = {}
        for name, method in MEASURED.items():
            # In one piece a token: leave-one-out would call the model for each of them.
            scores = measure(opened.backbone, prompt_PH, opened.data, opened.scoring, 1, method)
            by_name[name] = scores.token_P.tolist()
        return by_name

    stored = study.once(f"importance-{run.path.name}", compute)
    return {name: np.asarray(stored[name]) for name in MEASURES}


def _score_masked(study: StudyContext, run: FinishedRun, measures: Measures) -> PromptScores:
    """On `report`: the whole prompt, each token left out, and the least important of each measure."""
    recipe, tuned_PH = study.spec(run.task, run.seed).recipe, run.prompt("tuned")
    tokens = len(tuned_PH)
    prompts = {TUNED: [tuned_PH]}
    for removal, p in product(REMOVALS, range(tokens)):
        prompts[f"{removal}: T{p}"] = [read_one(masked_state(tuned_PH, without_one(tokens, p)), removal)]
    for (name, values), count in product(measures.items(), pruned_counts(recipe, tokens)):
        masked = masked_state(tuned_PH, without_least(torch.from_numpy(values), count, 1))
        prompts[_label(name, count, tokens)] = [read_one(masked, recipe.pruning.removal)]
    return score_run(study, run, "importance", prompts, "report")


def _label(name: str, count: int, tokens: int) -> str:
    return f"{count} of {tokens} tokens, least by {name}"


# --- correlations ---


def _correlation_table(
    study: StudyContext, runs: Runs, measures: Mapping[Key, Measures], changes: Mapping[str, Mapping[Key, Floats]]
) -> Table:
    """Each run's, with intervals over its tokens."""
    seed, resamples = study.config.seed, min(RESAMPLES, study.resamples)
    rows: list[list[Entry]] = []
    for (removal, by_run), (key, run) in product(changes.items(), runs.items()):
        row: list[Entry] = [f"{run.label}, {removal}"]
        for name in MEASURES:
            each = correlate(measures[key][name], by_run[key], seed=seed, resamples=resamples)
            if each is None:
                row.append(Cell(None, unit="number"))
            else:
                row.append(Cell(each.value, each.low, each.high, "number", not run.is_above_constant()))
        rows.append(row)
    note = (
        "Spearman; 95% intervals by bootstrap over the tokens of the prompt. Tokens of one prompt work together, so "
        "they are no independent sample: intervals are rather too short."
    )
    title = "Correlation of importance (train) with the change in loss when the token is masked (report)"
    return Table("correlation", title, ("run", *MEASURES), rows, note)


def _mean_table(
    study: StudyContext, measures: Mapping[Key, Measures], changes: Mapping[str, Mapping[Key, Floats]]
) -> Table:
    """Mean correlations over runs, and each measure's less that of the score."""
    head, columns = ["measure"], [list[Entry](MEASURES)]
    for removal, by_run in changes.items():
        losses = [by_run[key] for key in measures]
        resamples = min(RESAMPLES, study.resamples)
        drawn = mean_correlations(list(measures.values()), losses, study.config.seed, resamples)
        correlations: dict[str, Cell] = {}
        less: dict[str, Entry] = {}
        for name, (values_K, drawn_R) in drawn.items():
            correlations[name] = interval_cell(values_K, drawn_R)
            # Resampled tokens are the same for all measures, so their differences are paired.
            score_K, score_R = drawn[SCORE]
            less[name] = "" if name == SCORE else interval_cell(values_K - score_K, drawn_R - score_R)
        head += [f"{removal}: correlation", f"{removal}: less {SCORE}'s"]
        columns += [list(correct_family(correlations).values()), list(correct_family(less).values())]
    note = (
        f"Means over {len(measures)} runs; 95% intervals over the tokens of each prompt and, from {MIN_SEEDS} runs on, "
        "over runs. Verdicts are corrected for the measures of a column (Holm). "
        "Zero: the token's place stays, with zeros in it, as leave-one-out measures; drop: its place goes."
    )
    title = "How well each measure predicts what a token is worth"
    return Table("means", title, head, list(zip(*columns, strict=True)), note)


def mean_correlations(
    measures: Sequence[Measures], changes: Sequence[Floats], seed: int, resamples: int
) -> dict[str, tuple[Floats, Floats]]:
    """By measure, its Spearman correlation with `changes` in every run `[K]`, and the means of resampled tokens `[R]`.

    All measures see the same resamples. A run in which either is constant, or a resample's is, has NaN.
    """
    generator = np.random.default_rng(seed)
    items = [generator.integers(len(each), size=(resamples, len(each))) for each in changes]
    means: dict[str, tuple[Floats, Floats]] = {}
    for name in measures[0]:
        values_K, drawn_KR = [], []
        for each, b, picks in zip(measures, changes, items, strict=True):
            a = each[name]
            values_K.append(coefficient(a, b))
            drawn_KR.append([coefficient(a[at], b[at]) for at in picks])
        # None of what is constant becomes NaN.
        means[name] = (np.array(values_K, np.float64), np.mean(np.array(drawn_KR, np.float64), axis=0))
    return means


def interval_cell(values_K: Floats, drawn_R: Floats) -> Cell:
    """The mean of runs with its interval, which from 3 runs on covers other runs as well as other tokens.

    Not measured where a run's is NaN, without an interval where half of `drawn_R` are.
    """
    value, runs = float(np.mean(values_K)), len(values_K)
    if np.isnan(value):
        return Cell(None, unit="number")
    real = drawn_R[~np.isnan(drawn_R)]
    if 2 * len(real) < len(drawn_R):
        return Cell(value, unit="number")
    if runs < MIN_SEEDS:
        return Cell(value, *percentiles(real), unit="number", seeds=runs)
    tokens = float(real.std(ddof=1))
    if not tokens and not np.ptp(values_K):  # no spread at all, so no error to divide by
        return Cell(value, value, value, unit="number", seeds=runs)
    uncertainty = Uncertainty(float(values_K.std(ddof=1) / np.sqrt(runs)), runs - 1.0, tokens, len(real))
    reach, p = uncertainty.margin(), uncertainty.p(value)
    return Cell(value, value - reach, value + reach, unit="number", seeds=runs, p=p)


# --- retraining ---


def _retrain_least(
    study: StudyContext, runs: Runs, measures: Mapping[Key, Measures], at_chance: Mapping[str, bool]
) -> dict[str, Row]:
    """The least important of each measure pruned, the rest rewound and retrained; and the control."""
    specs = {}
    for (key, run), name in product(runs.items(), MEASURES):
        tokens, pieces = run.mask.piece_PS.shape
        rounding = study.spec(*key).recipe.pruning.rounding
        kept = max(1, keep_count(study.options["retrained"], tokens, rounding))
        mask = without_least(torch.from_numpy(measures[key][name]), tokens - kept, pieces)
        specs[name, key] = study.spec(*key, under_mask(study, run, f"least-by-{name}", mask))
    made = study.make(specs)
    rows = {"control: nothing pruned": collect_row(study, runs, "control", at_chance)}
    for name in MEASURES:
        rows[name] = collect_row(study, {key: made[name, key] for key in runs}, "tuned", at_chance)
    return rows


# --- figures and sentences ---


def _scatter(runs: Runs, measures: Mapping[Key, Measures], removal: str, changes: Mapping[Key, Floats]) -> Figure:
    """Every token: its score over the prompt's largest, against what masking it does."""
    traces = []
    for key, run in runs.items():
        score = measures[key][SCORE]
        x, y = np.round(over_largest(score), 4).tolist(), np.round(changes[key], 5).tolist()
        traces.append(points(run.label, x, y, text=[f"T{p}" for p in range(len(score))]))
    every = np.concatenate(list(changes.values()))
    caption = (
        "A point is a token of a tuned prompt: its importance by the paper's score on train, and the change of the "
        f"loss on report when it alone is masked. Of {len(every)} tokens, {int((every < 0).sum())} lower the loss when "
        "they are masked."
    )
    title = f"Importance and worth of single tokens, masked by {removal}"
    layout = axes("importance score over the prompt's largest", "change of the loss on report")
    return Figure(f"tokens-{removal}", title, caption, traces, layout)


def _sentences(means: Table, rivals: Table) -> list[str]:
    sentences = []
    for at, removal in enumerate(REMOVALS):
        shown: dict[str, list[str]] = {ABOVE: [], BELOW: []}
        less = []
        for row in means.rows:
            name, cell, rest = str(row[0]), row[1 + 2 * at], row[2 + 2 * at]
            if isinstance(cell, Cell) and (side := verdict(cell)) in shown:
                shown[side].append(name)
            if isinstance(rest, Cell):
                less.append(f"{name} {verdict(rest)}")
        above, below = (", ".join(names) or "none" for names in shown.values())
        sentences += [
            f"Masked by {removal}, measures whose correlation is shown to be above 0: {above}; below 0: {below}.",
            f"Masked by {removal}, correlations against that of the paper's score: {', '.join(less)}.",
        ]
    for row in rivals.rows:
        sentences.append(f"Retrained, {row[0]} against the paper's score, by task: {tally(only_cells(row))}.")
    return sentences
