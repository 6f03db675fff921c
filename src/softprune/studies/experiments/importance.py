"""Which measure of importance tells best what a prompt token is worth?

    score          E |<dL/dp, p>| (XPrompt, equation 3)
    gradient       E mean |dL/dp|, the gradient's magnitude (the BART study)
    leave-one-out  the loss on `train` with the token masked, less without
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

from softprune.prompts.soft_prompts import masked_state, read_one
from softprune.pruning.importance import measure
from softprune.pruning.masks import keep_count, without_least
from softprune.statistics.bootstrap import LEVEL
from softprune.statistics.correlation import coefficient, correlate
from softprune.statistics.methods_over_seeds import Floats
from softprune.statistics.seeds import MIN_SEEDS, Uncertainty, student_cdf
from softprune.studies.experiments.heatmaps import over_largest, told
from softprune.studies.experiments.masking import pruned_counts, without_one
from softprune.studies.experiments.reversed import bar_values, under_mask
from softprune.studies.findings import Cell, Entry, Figure, Findings, Table
from softprune.studies.masked_prompts import Masked, score_masked
from softprune.studies.prompt_scoring import open_set
from softprune.studies.run_result import FinishedRun
from softprune.studies.score_rows import Outcome, Row, chances, collect_row, difference_table, score_table
from softprune.studies.study_context import StudyContext
from softprune.studies.verdicts import ABOVE, BELOW, corrected, tally, verdict
from softprune.types import Mask

Key = tuple[str, int]
Measures = Mapping[str, Floats]
"""`[P]` each, by name."""
SCORE: Final = "score"
MEASURED: Final = {SCORE: "paper", "gradient": "gradient", "leave-one-out": "leave_one_out"}
MEASURES: Final = (*MEASURED, "norm", "random")
TUNED: Final = "prompt tuning"
REMOVALS: Final = ("zero", "drop")
RESAMPLES: Final = 1_000


def conduct(study: StudyContext) -> Findings:
    """Correlations, masking and retraining, of every measure."""
    runs = study.grid()
    measures = {key: measure_importance(study, made) for key, made in runs.items()}
    found = {key: _scored(study, made, measures[key]) for key, made in runs.items()}
    changes = {r: {k: _changes(each, r, len(measures[k][SCORE])) for k, each in found.items()} for r in REMOVALS}
    chance = chances(study, runs)
    correlations = _correlations(study, runs, measures, changes)
    means = _means(study, measures, changes)
    masked = score_table(
        study,
        "masked",
        "The least important tokens masked, without retraining",
        {TUNED: _row(study, found, TUNED)} | {label: _row(study, found, label) for label in _labels(study, runs)},
        chance,
    )
    retrained = _retrained(study, runs, measures)
    scores = score_table(study, "retrained", _title(study), retrained, chance)
    rivals = difference_table(study, "to-score", f"Differences to {SCORE}, retrained", retrained, SCORE, chance)
    figures = (*(_scatter(runs, measures, r, each) for r, each in changes.items()), _bars(means))
    return Findings((means, correlations, masked, scores, rivals), figures, _sentences(means, rivals))


def measure_importance(study: StudyContext, made: FinishedRun) -> dict[str, Floats]:
    """Every measure of a run's tuned prompt, `[P]`; higher is more important."""
    tuned_PH = made.prompt("tuned")

    def compute() -> dict[str, list[float]]:
        opened = open_set(study.spec(made.task, made.seed).recipe, "train")
        prompt_PH = tuned_PH.to(opened.backbone.device, opened.backbone.prompt_dtype)
        # In one piece a token: leave-one-out would call the model for each of them.
        scores = {
            n: measure(opened.backbone, prompt_PH, opened.data, opened.scoring, 1, m) for n, m in MEASURED.items()
        }
        return {name: each.token_P.tolist() for name, each in scores.items()}

    found = {name: np.asarray(values) for name, values in study.once(f"importance-{made.path.name}", compute).items()}
    drawn = np.random.default_rng([made.seed, len(tuned_PH)]).random(len(tuned_PH))
    return {name: found[name] for name in MEASURED} | {"norm": tuned_PH.double().norm(dim=1).numpy(), "random": drawn}


def _scored(study: StudyContext, made: FinishedRun, measures: Mapping[str, Floats]) -> dict[str, Masked]:
    """On `report`: the whole prompt, each token left out, and the least important of each measure."""
    recipe, tuned_PH = study.spec(made.task, made.seed).recipe, made.prompt("tuned")
    tokens = len(tuned_PH)
    prompts = {
        f"{removal}: T{p}": read_one(masked_state(tuned_PH, without_one(tokens, p)), removal)
        for removal in REMOVALS
        for p in range(tokens)
    }
    for name, values in measures.items():
        for count in pruned_counts(recipe, tokens):
            masked = masked_state(tuned_PH, without_least(torch.from_numpy(values), count, 1))
            prompts[_label(name, count, tokens)] = read_one(masked, recipe.pruning.removal)
    return score_masked(study, made, "importance", {TUNED: tuned_PH, **prompts}, "report")


def _label(name: str, count: int, tokens: int) -> str:
    return f"{count} of {tokens} tokens, least by {name}"


def _labels(study: StudyContext, runs: Mapping[Key, FinishedRun]) -> list[str]:
    tokens = study.spec(*next(iter(runs))).recipe.prompt.tokens
    counts = pruned_counts(study.spec(*next(iter(runs))).recipe, tokens)
    return [_label(name, count, tokens) for count in counts for name in MEASURES]


def _changes(found: Mapping[str, Masked], removal: str, tokens: int) -> Floats:
    """What leaving out each token does to the loss on `report`, `[P]`."""
    return np.array([found[f"{removal}: T{p}"].loss - found[TUNED].loss for p in range(tokens)])


def _row(study: StudyContext, found: Mapping[Key, Mapping[str, Masked]], name: str) -> Row:
    row: dict[str, Outcome | None] = {}
    for task in study.tasks:
        each = [found[task, seed][name] for seed in study.seeds]
        row[task] = Outcome(tuple(one.value for one in each), tuple(one.scored for one in each))
    return row


# --- correlations ---


def _correlations(
    study: StudyContext,
    runs: Mapping[Key, FinishedRun],
    measures: Mapping[Key, Measures],
    changes: Mapping[str, Mapping[Key, Floats]],
) -> Table:
    """Each run's, with intervals over its tokens."""
    rows: list[tuple[Entry, ...]] = []
    for (removal, by_run), (key, made) in product(changes.items(), runs.items()):
        cells = []
        for name in MEASURES:
            chance, empty = not made.interpretable, Cell(None, unit="number")
            found = correlate(measures[key][name], by_run[key], seed=study.config.seed, resamples=_resamples(study))
            cells.append(empty if found is None else Cell(found.value, found.low, found.high, "number", chance))
        rows.append((f"{told(made)}, {removal}", *cells))
    note = "Spearman; 95% intervals by bootstrap over the tokens of the prompt. Tokens of one prompt work together, so "
    note += "they are no independent sample: intervals are rather too short."
    title = "Correlation of importance (train) with the change in loss when the token is masked (report)"
    return Table("correlation", title, ("run", *MEASURES), tuple(rows), note)


def _means(study: StudyContext, measures: Mapping[Key, Measures], changes: Mapping[str, Mapping[Key, Floats]]) -> Table:
    """Mean correlations over runs, and each measure's less that of the score; resampled tokens are the same for all."""
    keys = list(measures)
    rows: dict[str, list[Entry]] = {name: [name] for name in MEASURES}
    for by_run in changes.values():
        scores, worth = [measures[k] for k in keys], [by_run[k] for k in keys]
        drawn = mean_correlations(scores, worth, study.config.seed, _resamples(study))
        for name, row in rows.items():
            less = interval_cell(*(drawn[name][at] - drawn[SCORE][at] for at in (0, 1)))
            row += [interval_cell(*drawn[name]), "" if name == SCORE else less]
    note = f"Means over {len(keys)} runs; 95% intervals over the tokens of each prompt and, from {MIN_SEEDS} runs on, "
    note += "over runs. "
    note += "Verdicts are corrected for the measures of a column (Holm). "
    note += "Zero: the token's place stays, with zeros in it, as leave-one-out measures; drop: its place goes."
    columns = ("measure", *(f"{removal}: {what}" for removal in changes for what in ("correlation", f"less {SCORE}'s")))
    title = "How well each measure predicts what a token is worth"
    return Table("means", title, columns, tuple(map(tuple, _by_column(list(rows.values())))), note)


def mean_correlations(
    measures: Sequence[Measures], changes: Sequence[Floats], seed: int, resamples: int
) -> dict[str, tuple[Floats, Floats]]:
    """By measure, its Spearman correlation with `changes` in every run `[K]`, and the means of resampled tokens `[R]`.

    All measures see the same resamples. A run in which either is constant, or a resample's is, has NaN.
    """
    generator = np.random.default_rng(seed)
    items = [generator.integers(len(each), size=(resamples, len(each))) for each in changes]
    found: dict[str, tuple[Floats, Floats]] = {}
    for name in measures[0]:
        pairs = [(each[name], change) for each, change in zip(measures, changes, strict=True)]
        values_K = np.array([_rank(a, b) for a, b in pairs])
        drawn = [[_rank(a[at], b[at]) for at in picks] for (a, b), picks in zip(pairs, items, strict=True)]
        found[name] = (values_K, np.mean(drawn, axis=0))
    return found


def _resamples(study: StudyContext) -> int:
    """As many as the runs take, but no more than rank correlations are worth."""
    return min(RESAMPLES, study.spec(study.tasks[0], study.config.seed).recipe.selection.resamples)


def _rank(a: Floats, b: Floats) -> float:
    value = coefficient(a, b)
    return float("nan") if value is None else value


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
        low, high = np.quantile(real, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Cell(value, float(low), float(high), unit="number", seeds=runs)
    tokens = float(real.std(ddof=1))
    if not tokens and not np.ptp(values_K):
        return Cell(value, value, value, unit="number", seeds=runs)
    found = Uncertainty(float(values_K.std(ddof=1) / np.sqrt(runs)), runs - 1.0, tokens, len(real))
    reach, p = found.margin(), 2 * student_cdf(found.df, -abs(value) / found.error)
    return Cell(value, value - reach, value + reach, unit="number", seeds=runs, p=p)


def _by_column(rows: Sequence[Sequence[Entry]]) -> list[list[Entry]]:
    """Rows with Holm's p-values in every column."""
    columns = [corrected(column) for column in zip(*rows, strict=True)]
    return [list(row) for row in zip(*columns, strict=True)]


# --- retraining ---


def _retrained(
    study: StudyContext, runs: Mapping[Key, FinishedRun], measures: Mapping[Key, Measures]
) -> dict[str, Row]:
    """The least important of each measure pruned, the rest rewound and retrained; and the control."""
    keys = {
        (name, *key): under_mask(study, made, f"least-by-{name}", _least(study, made, measures[key][name]))
        for key, made in runs.items()
        for name in MEASURES
    }
    made = study.make([study.spec(task, seed, each) for (_, task, seed), each in keys.items()])
    by_name = dict(zip(keys, made, strict=True))
    rows = {name: collect_row(study, {key: by_name[(name, *key)] for key in runs}, "tuned") for name in MEASURES}
    return {"control: nothing pruned": collect_row(study, runs, "control"), **rows}


def _least(study: StudyContext, made: FinishedRun, values: Floats) -> Mask:
    recipe = study.spec(made.task, made.seed).recipe
    tokens, pieces = made.mask.piece_PS.shape
    kept = max(1, keep_count(study.options["retrained"], tokens, recipe.pruning.rounding))
    return without_least(torch.from_numpy(values), tokens - kept, pieces)


def _title(study: StudyContext) -> str:
    return f"{study.options['retrained']:.0%} of the tokens pruned by each measure, the rest rewound and retrained"


# --- figures and sentences ---


def _scatter(
    runs: Mapping[Key, FinishedRun], measures: Mapping[Key, Measures], removal: str, changes: Mapping[Key, Floats]
) -> Figure:
    """Every token: its score over the prompt's largest, against what masking it does."""
    traces = []
    for key, made in runs.items():
        score = measures[key][SCORE]
        x = np.round(over_largest(score), 4).tolist()
        y, text = np.round(changes[key], 5).tolist(), [f"T{p}" for p in range(len(score))]
        traces.append({"type": "scatter", "mode": "markers", "name": told(made), "x": x, "y": y, "text": text})
    layout = {
        "xaxis": {"title": {"text": "importance score over the prompt's largest"}},
        "yaxis": {"title": {"text": "change of the loss on report"}},
    }
    lower = sum(int((change < 0).sum()) for change in changes.values())
    count = sum(len(change) for change in changes.values())
    caption = (
        "A point is a token of a tuned prompt: its importance by the paper's score on train, and the change of the "
    )
    caption += (
        f"loss on report when it alone is masked. Of {count} tokens, {lower} lower the loss when they are masked."
    )
    title = f"Importance and worth of single tokens, masked by {removal}"
    return Figure(f"tokens-{removal}", title, caption, tuple(traces), layout)


def _bars(means: Table) -> Figure:
    traces = []
    for at, removal in enumerate(REMOVALS):
        cells = [cell for row in means.rows if isinstance(cell := row[1 + 2 * at], Cell)]
        names = [row[0] for row in means.rows]
        traces.append({"type": "bar", "name": removal, "x": names, **bar_values(cells)})
    layout = {"barmode": "group", "yaxis": {"title": {"text": "Spearman correlation x 100"}}}
    caption = "The correlations of the first table as bars, with their intervals."
    return Figure("means", means.title, caption, tuple(traces), layout)


def _sentences(means: Table, rivals: Table) -> tuple[str, ...]:
    said = []
    for at, removal in enumerate(REMOVALS):
        cells = {str(row[0]): cell for row in means.rows if isinstance(cell := row[1 + 2 * at], Cell)}
        shown = [name for name, cell in cells.items() if verdict(cell) == ABOVE]
        below = [name for name, cell in cells.items() if verdict(cell) == BELOW]
        text = f"Masked by {removal}, measures whose correlation is shown to be above 0: {', '.join(shown) or 'none'}"
        said.append(f"{text}; below 0: {', '.join(below) or 'none'}.")
        less = {str(row[0]): cell for row in means.rows if isinstance(cell := row[2 + 2 * at], Cell)}
        parts = [f"{name} {verdict(cell)}" for name, cell in less.items()]
        said.append(f"Masked by {removal}, correlations against that of the paper's score: {', '.join(parts)}.")
    for row in rivals.rows:
        said.append(f"Retrained, {row[0]} against the paper's score, by task: {tally(list_cells(row))}.")
    return tuple(said)


def list_cells(row: Sequence[Entry]) -> list[Cell]:
    """The numbers of a row."""
    return [cell for cell in row if isinstance(cell, Cell)]
