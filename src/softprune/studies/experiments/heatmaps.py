"""How importance lies over a tuned prompt: its distribution (XPrompt, Appendix B, Figures 6 and 7), and its maps before
and after pruning (Appendix D, Figures 9 and 10). Both read what XPrompt runs measured; no model is loaded.

The paper's bins go from 0 to 1, and it doesn't say by what scores were divided. Two readings stand side by side: over
the largest of the prompt; and between the smallest and the largest, of pieces within their token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors.torch import load_file

from softprune.studies.findings import Cell, Entry, Figure, Findings, Table
from softprune.studies.run_result import Made
from softprune.studies.score_rows import Runs, chances, difference_cell, outcome_of, row_of
from softprune.studies.study_context import Bench
from softprune.studies.variant_tables import CHOSEN_HERE, chosen_here
from softprune.studies.verdicts import corrected_rows, interval_note, tally

Floats = npt.NDArray[np.float64]

BINS: Final = {"tokens": 5, "pieces": 10}
"""As in the paper's figures."""
READINGS: Final = {
    ("tokens", "largest"): "over the prompt's largest",
    ("tokens", "range"): "between the prompt's smallest (0) and largest (1)",
    ("pieces", "largest"): "over the prompt's largest",
    ("pieces", "range"): "between the smallest (0) and largest (1) of their token",
}
LOW: Final = 0.4
"""Below it, tokens count as of low importance: the paper's two lowest bins of tokens."""


def over_largest(values: Floats) -> Floats:
    """Scores over the largest of them all; below zero (leave-one-out) counts as 0. All 0 where none is positive."""
    largest = values.max()
    return np.clip(values / largest, 0, 1) if largest > 0 else np.zeros_like(values)


def within_range(values: Floats) -> Floats:
    """Scores of the last axis between their smallest (0) and largest (1); all 0 where they are the same."""
    low, high = values.min(-1, keepdims=True), values.max(-1, keepdims=True)
    span = np.where(high > low, high - low, 1.0)
    return np.asarray((values - low) / span)


def binned(values: Floats, bins: int) -> list[int]:
    """How many of the values, 0 to 1, lie in each of the equal bins; bounds belong to the bin above, 1 to the last."""
    at = np.minimum(np.floor(values.ravel() * bins + 1e-9).astype(int), bins - 1)
    return [int(count) for count in np.bincount(at, minlength=bins)]


def importances(made: Made) -> dict[str, Floats]:
    """What an XPrompt run measured: `token_P`, `piece_PS`, and `winner_piece_PS` of the token-pruned prompt."""
    tensors = load_file(made.path / "importance.safetensors")
    return {name: tensor.double().numpy() for name, tensor in tensors.items()}


# --- Figures 6 and 7 ---


def distribution(bench: Bench) -> Findings:
    """Histograms of tokens' and pieces' importance, a row for each run."""
    runs = list(bench.grid().values())
    found = [importances(made) for made in runs]
    published = bench.options.get("published", {})
    tables, figures, sentences = [], [], []
    for level, key in (("tokens", "token_P"), ("pieces", "piece_PS")):
        counts = {
            name: [binned(read(each[key]), BINS[level]) for each in found]
            for name, read in (("largest", over_largest), ("range", within_range))
        }
        tables += [_histogram_table(level, name, runs, rows) for name, rows in counts.items()]
        figures.append(_histogram_figure(level, counts, published.get(level)))
        sentences += [_low_sentence(level, name, rows, published.get(level)) for name, rows in counts.items()]
    return Findings(tuple(tables), tuple(figures), tuple(sentences))


def _heads(level: str) -> list[str]:
    bins = BINS[level]
    return [f"{n / bins:.1f}-{(n + 1) / bins:.1f}" for n in range(bins)]


def _low(level: str, counts: Sequence[int]) -> float:
    return sum(counts[: round(LOW * BINS[level])]) / sum(counts)


def _histogram_table(level: str, reading: str, runs: Sequence[Made], rows: Sequence[Sequence[int]]) -> Table:
    def line(label: str, counts: Sequence[int], chance: bool) -> tuple[Entry, ...]:
        cells = [Cell(count, unit="count", chance=chance) for count in counts]
        return (label, *cells, Cell(_low(level, counts), chance=chance))

    lines = [line(told(made), counts, not made.interpretable) for made, counts in zip(runs, rows, strict=True)]
    if len(runs) > 1:
        sums = [sum(column) for column in zip(*rows, strict=True)]
        lines.append(line("all", sums, not all(made.interpretable for made in runs)))
    title = f"Importance of {level}, {READINGS[level, reading]}: how many lie where"
    note = f"All {level} of these prompts, no sample of them, so without intervals."
    return Table(f"{level}-{reading}", title, ("run", *_heads(level), f"below {LOW}, %"), tuple(lines), note)


def _histogram_figure(
    level: str, counts: Mapping[str, Sequence[Sequence[int]]], published: Sequence[int] | None
) -> Figure:
    shares = {READINGS[level, name]: np.sum(rows, axis=0) / np.sum(rows) for name, rows in counts.items()}
    if published:
        shares["the source's (WSC, T5-XL)"] = np.asarray(published) / np.sum(published)
    traces = tuple(
        {"type": "bar", "name": name, "x": _heads(level), "y": [round(float(value), 4) for value in share]}
        for name, share in shares.items()
    )
    layout = {
        "barmode": "group",
        "xaxis": {"title": {"text": "importance"}, "type": "category"},
        "yaxis": {"title": {"text": f"share of {level}"}, "tickformat": ".0%"},
    }
    said = "; ".join(f"{name}: " + ", ".join(f"{value:.0%}" for value in share) for name, share in shares.items())
    caption = f"Shares of the {level} of all runs in equal bins of importance from 0 to 1, lowest first. {said}."
    return Figure(f"{level}-histogram", f"Importance of {level}", caption, traces, layout)


def _low_sentence(level: str, reading: str, rows: Sequence[Sequence[int]], published: Sequence[int] | None) -> str:
    most = sum(_low(level, counts) > 0.5 for counts in rows)
    said = f"Importance of {level}, {READINGS[level, reading]}: "
    said += f"in {most} of {len(rows)} runs more than half lie below {LOW}"
    if published:
        source = _low(level, published)
        said += f"; in the source's figure {source:.0%} do, {'more' if source > 0.5 else 'no more'} than half"
    return f"{said}."


# --- Figures 9 and 10 ---


def maps(bench: Bench) -> Findings:
    """Heat maps before and after pruning, of the first seed; what the survivors hold, of every run."""
    runs = bench.grid()
    found = {key: importances(made) for key, made in runs.items()}
    rows = tuple(_kept_row(bench, made, found[key]) for key, made in runs.items())
    columns = (
        "run",
        "tokens kept",
        "pieces kept",
        "numbers",
        "numbers, %",
        "importance in kept tokens, %",
        "importance in kept pieces, %",
        "XPrompt above prompt tuning",
        "XPrompt above control",
    )
    note = (
        "Of tokens: share of the tuned prompt's. Of pieces: share of those of kept tokens, measured after tokens went."
    )
    note += " Differences in points on report, paired, with intervals over examples for these very prompts; the "
    note += "control is prompt tuning trained twice, as XPrompt is."
    table = Table("kept", "What the winning tickets kept", columns, rows, note)
    first = [(task, bench.study.seed) for task in bench.tasks]
    figures = [_map(runs[key], found[key], after) for key, after in product(first, (False, True))]
    said = (f"Tickets were {CHOSEN_HERE}.",) if chosen_here(bench) else _kept_sentences(bench, runs)
    return Findings((table,), tuple(figures), said)


def _kept_row(bench: Bench, made: Made, found: Mapping[str, Floats]) -> tuple[Entry, ...]:
    mask, chance = made.mask, not made.interpretable
    token_P, piece_PS = mask.token_P.numpy(), mask.piece_PS.numpy()
    tokens, pieces = _share(found["token_P"], token_P), _share(found["winner_piece_PS"][token_P], piece_PS[token_P])
    ticket = made.record.ticket
    winner, tuned, control = (outcome_of([made], name) for name in ("winner", "tuned", "control"))
    return (
        told(made),
        Cell(mask.tokens, unit="count", chance=chance),
        Cell(mask.pieces, unit="count", chance=chance),
        Cell(ticket.parameters, unit="count", chance=chance),
        Cell(ticket.share_of_parameters, chance=chance),
        Cell(tokens, chance=chance),
        Cell(pieces, chance=chance),
        difference_cell(bench, made.task, winner, tuned, chance),
        difference_cell(bench, made.task, winner, control, chance),
    )


def _share(values: Floats, kept: npt.NDArray[np.bool_]) -> float | None:
    """The share of importance that what is kept holds; None where scores have signs, or are all 0."""
    whole = float(values.sum())
    return float(values[kept].sum()) / whole if values.min() >= 0 and whole > 0 else None


def _kept_sentences(bench: Bench, runs: Runs) -> tuple[str, ...]:
    """Tickets against both rivals, in the mean over the seeds of a task: a single run says nothing of pruning."""
    winner, chance = row_of(bench, runs, "winner"), chances(bench, runs)
    rivals = {"prompt tuning": row_of(bench, runs, "tuned"), "the control": row_of(bench, runs, "control")}
    found = corrected_rows(
        {
            rival: [difference_cell(bench, t, winner[t], row[t], chance[t]) for t in bench.tasks]
            for rival, row in rivals.items()
        }
    )
    note = interval_note(len(bench.seeds))
    return (*(f"Tickets against {rival}, by task: {tally(cells)}." for rival, cells in found.items()), note)


def _map(made: Made, found: Mapping[str, Floats], after: bool) -> Figure:
    """One heat map: a row a token, its own importance first, then its pieces; each level over its largest."""
    token_P, mask = over_largest(found["token_P"]), made.mask
    piece_PS = over_largest(found["winner_piece_PS" if after else "piece_PS"])
    kept_P, kept_PS = mask.token_P.tolist(), mask.piece_PS.tolist()
    rows: list[list[float | None]] = []
    for p, token in enumerate(token_P):
        row = [float(token), *map(float, piece_PS[p])]
        kept = [kept_P[p], *kept_PS[p]] if after else [True] * len(row)
        rows.append([round(value, 4) if stays else None for value, stays in zip(row, kept, strict=True)])
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
    order = np.argsort(-found["token_P"], kind="stable")
    caption = (
        f"{told(made)}. A row is a prompt token: first its importance, then that of its pieces; tokens and pieces "
    )
    caption += "each over their largest. "
    if after:
        caption += (
            f"Gaps are pruned: {mask.tokens} of {len(rows)} tokens and {mask.pieces} of {piece_PS.size} pieces are"
        )
        caption += f" left ({', '.join(f'T{p}' for p in np.flatnonzero(mask.token_P.numpy()))})."
    else:
        caption += f"The most important tokens are {', '.join(f'T{p}' for p in order[:3])}."
    when = "after" if after else "before"
    return Figure(f"{when}-{made.task}", f"{told(made)}: {when} pruning", caption, (trace,), layout)


def told(made: Made) -> str:
    """A run as tables name it."""
    return f"{made.task}, seed {made.seed}"
