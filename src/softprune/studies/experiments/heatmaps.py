"""How importance lies over a tuned prompt: its distribution (XPrompt, Appendix B, Figures 6 and 7), and its maps before
and after pruning (Appendix D, Figures 9 and 10). Both read what XPrompt runs measured; no model is loaded.

The paper's bins go from 0 to 1, and it doesn't say by what scores were divided. Two readings are shown side by side:
over the largest of the prompt; and between the smallest and the largest, of pieces within their token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors.torch import load_file

from softprune.statistics.bootstrap import Floats
from softprune.studies.findings import Cell, Entry, Figure, Findings, Table
from softprune.studies.run_result import FinishedRun, collect_outcome
from softprune.studies.score_rows import collect_row, difference_cell, pair_table
from softprune.studies.study_context import StudyContext
from softprune.studies.verdicts import CHOSEN_HERE, interval_note, only_cells, tally

BINS: Final = {"tokens": 5, "pieces": 10}  # as in the paper's figures
READINGS: Final = {
    ("tokens", "largest"): "over the prompt's largest",
    ("tokens", "range"): "between the prompt's smallest (0) and largest (1)",
    ("pieces", "largest"): "over the prompt's largest",
    ("pieces", "range"): "between the smallest (0) and largest (1) of their token",
}
LOW: Final = 0.4  # below it, tokens count as of low importance: the paper's two lowest bins of tokens


def over_largest(values: Floats) -> Floats:
    """Scores over the largest of them all; below zero (leave-one-out) counts as 0. All 0 where none is positive."""
    largest = values.max()
    return np.clip(values / largest, 0, 1) if largest > 0 else np.zeros_like(values)


def within_range(values: Floats) -> Floats:
    """Scores of the last axis between their smallest (0) and largest (1); all 0 where they are the same."""
    low, high = values.min(-1, keepdims=True), values.max(-1, keepdims=True)
    return np.asarray((values - low) / np.where(high > low, high - low, 1.0))


def binned(values: Floats, bins: int) -> list[int]:
    """How many of the values, 0 to 1, lie in each of the equal bins; bounds belong to the bin above, 1 to the last."""
    # 0.3 * 10 is a little below 3 in floating point.
    at = np.minimum(np.floor(values.ravel() * bins + 1e-9).astype(int), bins - 1)
    return [int(count) for count in np.bincount(at, minlength=bins)]


def importances(run: FinishedRun) -> dict[str, Floats]:
    """What an XPrompt run measured: `token_P`, `piece_PS`, and `winner_piece_PS` of the token-pruned prompt."""
    tensors = load_file(run.path / "importance.safetensors")
    return {name: tensor.double().numpy() for name, tensor in tensors.items()}


# --- Figures 6 and 7 ---


def distribution(study: StudyContext) -> Findings:
    """Histograms of tokens' and pieces' importance, a row for each run."""
    runs = list(study.grid().values())
    measured = [importances(run) for run in runs]
    tables, figures, sentences = [], [], []
    for level, key in (("tokens", "token_P"), ("pieces", "piece_PS")):
        published: Sequence[int] | None = study.options.get("published", {}).get(level)
        shares = {}
        for name, scale in (("largest", over_largest), ("range", within_range)):
            counts = [binned(scale(each[key]), BINS[level]) for each in measured]
            tables.append(_histogram_table(level, name, runs, counts))
            shares[READINGS[level, name]] = np.sum(counts, axis=0) / np.sum(counts)
            most = sum(_low_share(level, each) > 0.5 for each in counts)
            figure = ""
            if published:
                source = _low_share(level, published)
                more = "more" if source > 0.5 else "no more"
                figure = f"; in the source's figure {source:.0%} do, {more} than half"
            sentences.append(
                f"Importance of {level}, {READINGS[level, name]}: "
                f"in {most} of {len(runs)} runs more than half lie below {LOW}{figure}."
            )
        if published:
            shares["the source's (WSC, T5-XL)"] = np.asarray(published) / np.sum(published)
        figures.append(_histogram_figure(level, shares))
    return Findings(tables, figures, sentences)


def _low_share(level: str, counts: Sequence[int]) -> float:
    return sum(counts[: round(LOW * BINS[level])]) / sum(counts)


def _bin_names(level: str) -> list[str]:
    return [f"{n / BINS[level]:.1f}-{(n + 1) / BINS[level]:.1f}" for n in range(BINS[level])]


def _histogram_table(level: str, reading: str, runs: Sequence[FinishedRun], counts: Sequence[Sequence[int]]) -> Table:
    labelled = [(run.label, each, not run.is_above_constant()) for run, each in zip(runs, counts, strict=True)]
    if len(runs) > 1:
        sums = [sum(column) for column in zip(*counts, strict=True)]
        labelled.append(("all", sums, any(chance for _, _, chance in labelled)))
    rows: list[list[Entry]] = []
    for label, each, chance in labelled:
        cells = [Cell(count, unit="count", chance=chance) for count in each]
        rows.append([label, *cells, Cell(_low_share(level, each), chance=chance)])
    title = f"Importance of {level}, {READINGS[level, reading]}: how many lie where"
    note = f"All {level} of these prompts, no sample of them, so without intervals."
    return Table(f"{level}-{reading}", title, ("run", *_bin_names(level), f"below {LOW}, %"), rows, note)


def _histogram_figure(level: str, shares: Mapping[str, Floats]) -> Figure:
    traces, texts = [], []
    for name, share in shares.items():
        heights = [round(float(each), 4) for each in share]
        traces.append({"type": "bar", "name": name, "x": _bin_names(level), "y": heights})
        texts.append(f"{name}: {', '.join(f'{each:.0%}' for each in share)}")
    layout = {
        "barmode": "group",
        "xaxis": {"title": {"text": "importance"}, "type": "category"},
        "yaxis": {"title": {"text": f"share of {level}"}, "tickformat": ".0%"},
    }
    caption = (
        f"Shares of the {level} of all runs in equal bins of importance from 0 to 1, lowest first. {'; '.join(texts)}."
    )
    return Figure(f"{level}-histogram", f"Importance of {level}", caption, traces, layout)


# --- Figures 9 and 10 ---


def maps(study: StudyContext) -> Findings:
    """Heat maps before and after pruning, of the first seed; what the survivors hold, of every run."""
    runs = study.grid()
    kept = [_describe_kept(study, run) for run in runs.values()]
    note = (
        "Of tokens: share of the tuned prompt's. Of pieces: share of those of kept tokens, measured after tokens went. "
        "Differences in points on report, paired, with intervals over examples for these very prompts; the "
        "control is prompt tuning trained twice, as XPrompt is."
    )
    table = Table.from_records("kept", "What the winning tickets kept", kept, note)
    figures = []
    for task, is_pruned in product(study.tasks, (False, True)):
        figures.append(_map(runs[task, study.config.seed], is_pruned))
    if study.chosen_on_report:
        return Findings([table], figures, [f"Tickets were {CHOSEN_HERE}."])
    # In the mean over the seeds of a task: a single run says nothing of pruning.
    results = {name: collect_row(study, runs, name) for name in ("winner", "tuned", "control")}
    pairs = {"prompt tuning": ("winner", "tuned"), "the control": ("winner", "control")}
    differences = pair_table(study, "", "", results, pairs)
    sentences = [f"Tickets against {row[0]}, by task: {tally(only_cells(row))}." for row in differences.rows]
    return Findings([table], figures, [*sentences, interval_note(len(study.seeds))])


def _describe_kept(study: StudyContext, run: FinishedRun) -> dict[str, Entry]:
    mask, chance, scores, ticket = run.mask, not run.is_above_constant(), importances(run), run.record.ticket
    token_P, piece_PS = mask.token_P.numpy(), mask.piece_PS.numpy()
    # Pieces of pruned tokens went with them: of pieces, the share is of those that could still be kept.
    tokens = _share_held(scores["token_P"], token_P)
    pieces = _share_held(scores["winner_piece_PS"][token_P], piece_PS[token_P])
    winner, tuned, control = (collect_outcome([run], name) for name in ("winner", "tuned", "control"))
    return {
        "run": run.label,
        "tokens kept": Cell(mask.tokens, unit="count", chance=chance),
        "pieces kept": Cell(mask.pieces, unit="count", chance=chance),
        "numbers": Cell(ticket.parameters, unit="count", chance=chance),
        "numbers, %": Cell(ticket.share_of_parameters, chance=chance),
        "importance in kept tokens, %": Cell(tokens, chance=chance),
        "importance in kept pieces, %": Cell(pieces, chance=chance),
        "XPrompt above prompt tuning": difference_cell(study, run.task, winner, tuned, chance),
        "XPrompt above control": difference_cell(study, run.task, winner, control, chance),
    }


def _share_held(values: Floats, kept: npt.NDArray[np.bool_]) -> float | None:
    """The share of importance that what is kept holds; None where scores have signs, or are all 0."""
    whole = float(values.sum())
    return float(values[kept].sum()) / whole if values.min() >= 0 and whole > 0 else None


def _map(run: FinishedRun, is_pruned: bool) -> Figure:
    """One heat map: a row a token, its own importance first, then its pieces; each level over its largest."""
    scores, mask = importances(run), run.mask
    piece_PS = over_largest(scores["winner_piece_PS" if is_pruned else "piece_PS"])
    values = np.round(np.column_stack([over_largest(scores["token_P"]), piece_PS]), 4)
    caption = (
        f"{run.label}. A row is a prompt token: first its importance, then that of its pieces; tokens and pieces each "
        "over their largest. "
    )
    if is_pruned:
        values[~np.column_stack([mask.token_P.numpy(), mask.piece_PS.numpy()])] = np.nan
        survivors = ", ".join(f"T{p}" for p in np.flatnonzero(mask.token_P.numpy()))
        left = f"{mask.tokens} of {len(values)} tokens and {mask.pieces} of {piece_PS.size} pieces"
        caption += f"Gaps are pruned: {left} are left ({survivors})."
    else:
        order = np.argsort(-scores["token_P"], kind="stable")
        caption += f"The most important tokens are {', '.join(f'T{p}' for p in order[:3])}."
    # plotly draws no square where JSON has null.
    rows = np.where(np.isnan(values), None, values).tolist()  # type: ignore[call-overload]
    trace: dict[str, Any] = {
        "type": "heatmap",
        "z": rows,
        "x": ["token", *(f"P{s}" for s in range(piece_PS.shape[1]))],
        "y": [f"T{p}" for p in range(len(rows))],
        "zmin": 0,
        "zmax": 1,
        "hoverongaps": False,
        "colorbar": {"title": {"text": "importance"}},
    }
    layout = {"yaxis": {"autorange": "reversed", "type": "category"}, "xaxis": {"side": "top", "type": "category"}}
    when = "after" if is_pruned else "before"
    return Figure(f"{when}-{run.task}", f"{run.label}: {when} pruning", caption, [trace], layout)
