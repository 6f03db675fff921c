"""Every task's prompts on every task, and whether alike prompts transfer better (the Bloomz study's third part).

A prompt is asked with the target's template and answers, untrained there. Its gain is what it scores above no prompt.
Random prompts show what any prompt of that length does. Prompts resemble each other also because they began alike, so
the gain is correlated with the starts' likeness, too, and with that of what training changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, permutations, product
from math import factorial
from statistics import fmean
from typing import Any, Final, TypeAlias

import numpy as np
import torch

from softprune.errors import SoftpruneError
from softprune.interpret.alignment import align
from softprune.prompts.initialization import common_words, from_vocabulary
from softprune.statistics.bootstrap import LEVEL, Floats, wilson_interval
from softprune.statistics.correlation import Correlation, mantel
from softprune.statistics.methods_over_seeds import Outcome
from softprune.studies.findings import Cell, Entry, Figure, Findings, Table, axes, error_bars, format_entry, points
from softprune.studies.prompt_scoring import OpenSet, draw_random_prompt, prompt_outcome, score_on
from softprune.studies.score_rows import Runs, chances, difference_cell, score_cell
from softprune.studies.study_context import StudyContext, task_label
from softprune.studies.verdicts import ABOVE, BELOW, correct_family, interval_note, paired_note, tally, verdict

Pair: TypeAlias = "tuple[str, str]"  # a source (or a baseline), and the task that its prompts are asked on
Reached: TypeAlias = "Mapping[Pair, Outcome]"
Gains: TypeAlias = "Mapping[Pair, Cell]"
# By part and measure, how the likeness of two tasks' prompts goes with the gain; None where it can't be measured.
Ties: TypeAlias = "Mapping[tuple[str, str], Correlation | None]"

NONE, INSTRUCTION, WORDS, NORMS = "no prompt", "the instruction", "random words", "random, as long as tuned ones"
BASELINES: Final = (NONE, INSTRUCTION, WORDS, NORMS)  # what no task's training went into
# Between the seeds of a run and of its random prompts: a run with sampled vocabulary starts from its own seed.
_APART: Final = 7_919
STUDY: Final = 0.9  # the share of transfers that improved over no prompt in the study
PARTS: Final = {"initial": "starts", "change": "what training changed", "tuned": "tuned prompts"}
# How alike two prompts are: by field of an `Alignment` its name, and the sign under which more is more alike.
ALIKE: Final = {
    "frobenius": ("distance in order", -1),
    "aligned": ("distance, tokens aligned", -1),
    "cosine": ("cosine in order", 1),
    "mean_cosine": ("cosine of mean vectors", 1),
}


def conduct(study: StudyContext) -> Findings:
    """The runs, every prompt on every task, the gains, and how they go with likeness."""
    if len(study.tasks) < 2:
        raise SoftpruneError("two tasks at least, to transfer between", f"{len(study.tasks)}", "name more: --tasks a,b")
    runs = study.grid()
    reached: dict[Pair, Outcome] = {}
    for task in study.tasks:
        # Any seed's recipe does: all of them report on the same examples.
        spec, work = study.spec(task, study.config.seed), f"on-{task_label(task)}"
        scores = score_on(study, work, spec, "report", lambda target: prompts_to_ask(target, runs))
        for who, each in scores.items():
            # Without a prompt nothing was trained: it has no seeds that could differ.
            outcome = prompt_outcome([[score] for score in each])
            reached[who, task] = replace(outcome, trained=who != NONE)
    at_chance, differences = chances(study, runs), {}
    for (who, task), outcome in reached.items():
        if who != NONE:
            differences[who, task] = difference_cell(study, task, outcome, reached[NONE, task], at_chance[task])
    gains = correct_family(differences)
    pairs = list(permutations(study.tasks, 2))
    alike = likeness(study, runs)
    ties = correlations(study, alike, gains)
    tables = [
        *_matrix_tables(study, reached, gains, at_chance),
        _share_table(study, reached, pairs),
        _tie_table(ties, len(study.tasks)),
    ]
    figures = [_heatmap(study, gains), _scatter(study, alike["tuned"], gains, pairs)]
    return Findings(tables, figures, _sentences(study, reached, gains, ties, pairs))


# --- prompts to ask ---


def prompts_to_ask(target: OpenSet, runs: Runs) -> dict[str, list[torch.Tensor]]:
    """By name, the prompts that are asked on a task: tuned ones `[P, H]` of every task's seeds, and the baselines."""
    trained: dict[str, list[torch.Tensor]] = {}
    for (task, _), run in runs.items():
        trained.setdefault(task, []).append(run.prompt("tuned"))
    tuned_NPH = torch.stack([prompt_PH for prompts in trained.values() for prompt_PH in prompts])
    backbone, tokens = target.backbone, tuned_NPH.shape[1]
    norms_P = tuned_NPH.norm(dim=-1).mean(0)  # each token as long as the N tuned prompts' on average
    ids, _ = common_words(backbone.tokenizer, backbone.vocabulary)
    seeds = [seed + _APART for seed in sorted({seed for _, seed in runs})]
    words = [from_vocabulary(backbone.embed_ids, ids, tokens, seed).vectors_PH.float().cpu() for seed in seeds]
    instruction = target.instruction()
    return {
        NONE: [target.no_prompt()],
        **({} if instruction is None else {INSTRUCTION: [instruction]}),
        WORDS: words,
        NORMS: [draw_random_prompt(norms_P, tuned_NPH.shape[2], seed) for seed in seeds],
        **trained,
    }


# --- scores and gains ---


def _matrix_tables(study: StudyContext, reached: Reached, gains: Gains, at_chance: Mapping[str, bool]) -> list[Table]:
    """Prompts by tasks: what they score, and what they gain over no prompt."""
    scores: list[list[Entry]] = []
    differences: list[list[Entry]] = []
    for who in (*BASELINES, *study.tasks):
        cells = [score_cell(study, task, reached.get((who, task)), at_chance[task]) for task in study.tasks]
        scores.append([task_label(who), *cells])
        if who != NONE:
            differences.append([task_label(who), *(gains.get((who, task), Cell(None)) for task in study.tasks)])
    heads = tuple(map(task_label, study.tasks))
    note = (
        f"Rows: the task whose prompts are asked, {len(study.seeds)} a row; columns: the task they are asked on. "
        f"Random words: sampled vocabulary. {interval_note(len(study.seeds))} Nothing was chosen here."
    )
    return [
        Table("matrix", "Prompts on tasks", ("% of", *heads), scores, note),
        Table("gains", "Gain over no prompt", ("points", *heads), differences, paired_note(len(study.seeds))),
    ]


def _share_table(study: StudyContext, reached: Reached, pairs: Sequence[Pair]) -> Table:
    """How many transfers to other tasks beat each baseline; and how many random prompts beat none."""
    compared: dict[str, tuple[Sequence[Pair], str]] = {}
    for baseline in (NONE, WORDS, NORMS):
        compared[f"other tasks' prompts over {baseline}"] = pairs, baseline
    for who in (WORDS, NORMS):
        compared[f"{who} over {NONE}"] = list(product([who], study.tasks)), NONE
    compared[f"its own task's prompts over {NONE}"] = list(zip(study.tasks, study.tasks, strict=True)), NONE
    rows: list[list[Entry]] = []
    for label, (asked, baseline) in compared.items():
        cells, means, single = {}, [], []
        for who, task in asked:
            ours, theirs = reached[who, task], reached[baseline, task]
            cells[who, task] = difference_cell(study, task, ours, theirs)
            means.append(ours.mean > theirs.mean)
            single += [value > theirs.mean for value in ours.values]
        rows.append([label, share(means), share(single), tally(list(correct_family(cells).values()))])
    note = (
        f"{len(pairs)} pairs of {len(study.tasks)} tasks share sources and targets, so that intervals, Wilson's, which "
        "take pairs as independent, are too narrow. The last column has the pairs whose own interval lies above or "
        f"below 0, corrected for their number. {interval_note(len(study.seeds))}"
    )
    columns = ("%", "of pairs, means over seeds", "of single prompts", "pairs by their own interval")
    return Table("shares", "Transfers that improve", columns, rows, note)


def share(better: Sequence[bool]) -> Cell:
    """The share of transfers that are better, with Wilson's interval: a bootstrap's has no width where all are."""
    return Cell(fmean(map(float, better)), *wilson_interval(sum(better), len(better)))


def _heatmap(study: StudyContext, gains: Gains) -> Figure:
    rows = [who for who in (*BASELINES[1:], *study.tasks) if any((who, task) in gains for task in study.tasks)]
    values = []
    for who in rows:
        values.append([_points(gains.get((who, task), Cell(None))) for task in study.tasks])
    trace: dict[str, Any] = {
        "type": "heatmap",
        "x": list(map(task_label, study.tasks)),
        "y": list(map(task_label, rows)),
        "z": values,
        "texttemplate": "%{z:+.1f}",
        "colorbar": {"title": {"text": "points"}},
        "zmid": 0,
    }
    caption = (
        "A square for each prompt (row) and the task it is asked on (column): points above no prompt, written in it. "
        "The table of gains has the same numbers with their intervals."
    )
    layout = {**axes("asked on"), "yaxis": {"autorange": "reversed"}}
    return Figure("matrix", "Gain over no prompt", caption, [trace], layout)


def _points(cell: Cell) -> float | None:
    return None if cell.value is None else 100 * cell.value


# --- likeness and gain ---


def likeness(study: StudyContext, runs: Runs) -> dict[str, dict[str, Floats]]:
    """By part and measure, how alike two tasks' prompts are, `[T, T]`: the mean over all pairs of their seeds."""
    starts, ends = ({at: run.prompt(name) for at, run in runs.items()} for name in ("initial", "tuned"))
    parts = {"initial": starts, "change": {at: ends[at] - starts[at] for at in runs}, "tuned": ends}
    count, alike = len(study.tasks), {}
    for part, prompts in parts.items():
        alike[part] = {name: np.full((count, count), np.nan) for name in ALIKE}
        for i, j in combinations(range(count), 2):
            alignments = []
            for a, b in product(study.seeds, study.seeds):
                alignments.append(align(prompts[study.tasks[i], a], prompts[study.tasks[j], b]))
            for name, alike_TT in alike[part].items():
                values = [getattr(each, name) for each in alignments]
                # NaN, not measured, where it is for one pair of seeds.
                alike_TT[i, j] = alike_TT[j, i] = np.nan if None in values else fmean(values)
    return alike


def correlations(study: StudyContext, alike: Mapping[str, Mapping[str, Floats]], gains: Gains) -> Ties:
    """Likeness against the gain over no prompt, over all ordered pairs of tasks; more is more alike."""
    gain_TT = np.full((len(study.tasks), len(study.tasks)), np.nan)  # a task's own prompts are no transfer
    for i, j in permutations(range(len(study.tasks)), 2):
        value = gains[study.tasks[i], study.tasks[j]].value
        gain_TT[i, j] = np.nan if value is None else value
    ties = {}
    for part, (name, (_, sign)) in product(PARTS, ALIKE.items()):
        ties[part, name] = mantel(sign * alike[part][name], gain_TT, seed=study.config.seed)
    return ties


def _tie_table(ties: Ties, count: int) -> Table:
    rows: list[list[Entry]] = []
    for (part, measure), each in ties.items():
        cells = [Cell(None), Cell(None), Cell(None)]
        if each is not None:
            cells = [
                Cell(each.value, each.low, each.high, "number"),
                Cell(each.p, unit="number"),
                Cell(each.n, unit="count"),
            ]
        rows.append([f"{PARTS[part]}: {ALIKE[measure][0]}", *cells])
    note = (
        "Spearman over ordered pairs of different tasks; distances with their sign turned, so that above 0 says: the "
        "more alike, the more gain. Intervals resample tasks; p permutes tasks (Mantel). "
        f"{count} tasks have {factorial(count):,} orders, so p can't be below {1 / factorial(count):.2g}. "
        f"{len(ties)} looks at one question, not corrected."
    )
    columns = ("likeness of", "Spearman", "p", "pairs")
    return Table("likeness", "Likeness of prompts and gain", columns, rows, note)


def _scatter(study: StudyContext, alike: Mapping[str, Floats], gains: Gains, pairs: Sequence[Pair]) -> Figure:
    at = {task: place for place, task in enumerate(study.tasks)}
    x = [float(alike["frobenius"][at[a], at[b]]) for a, b in pairs]
    cells = [gains[pair] for pair in pairs]
    texts = [f"{task_label(a)} on {task_label(b)}" for a, b in pairs]
    looks = {"textposition": "top center", "error_y": error_bars(cells), "showlegend": False}
    trace = points("", x, list(map(_points, cells)), "markers+text", text=texts, **looks)
    caption = (
        "A point for each ordered pair of tasks: to the right, the distance of their tuned prompts (Frobenius norm, "
        "mean over seeds); upwards, what the one's prompts gain over no prompt on the other, with its 95% interval. "
        "If alike prompts transferred better, points would fall to the right."
    )
    return Figure("likeness", "Distance of prompts and gain", caption, [trace], axes("distance", "gain (points)"))


# --- sentences ---


def _sentences(study: StudyContext, reached: Reached, gains: Gains, ties: Ties, pairs: Sequence[Pair]) -> list[str]:
    cells, own = [gains[pair] for pair in pairs], [gains[task, task] for task in study.tasks]
    better = [(cell.value or 0) > 0 for cell in cells]
    over_words = [reached[a, b].mean > reached[WORDS, b].mean for a, b in pairs]
    words = sum((gains[WORDS, task].value or 0) > 0 for task in study.tasks)
    shares = [format_entry(share(each)) for each in (better, over_words)]
    agrees = "as in the study or more" if sum(better) >= STUDY * len(pairs) else "fewer than in the study"
    sentences = [
        f"The study: {STUDY:.0%} of transfers improve over no prompt. Here {sum(better)} of {len(pairs)} pairs do, "
        f"{shares[0]}%: {agrees}; by their own intervals {tally(cells)}.",
        f"Other tasks' prompts beat random words on {sum(over_words)} of {len(pairs)} pairs, {shares[1]}%; random "
        f"words themselves beat no prompt on {words} of {len(study.tasks)} tasks. What random words do is no transfer.",
        f"On their own tasks, prompts beat no prompt on {sum((cell.value or 0) > 0 for cell in own)} of {len(own)} "
        f"({tally(own)}).",
    ]
    for (part, measure), found in ties.items():
        if measure in ("frobenius", "cosine"):
            sentences.append(f"Likeness of {PARTS[part]} ({ALIKE[measure][0]}) and gain: {_describe_tie(found)}.")
    return sentences


def _describe_tie(found: Correlation | None) -> str:
    if found is None:
        return "not measured"
    side = verdict(Cell(found.value, found.low, found.high, "number"))
    way = {ABOVE: "alike ones transfer better", BELOW: "alike ones transfer worse"}.get(side, "no relation shown")
    if side in (ABOVE, BELOW) and (found.p is None or found.p >= 1 - LEVEL):
        way = "no relation shown: the interval leaves 0 out, but so much is not rare when tasks are shuffled"
    interval = "no interval" if found.low is None else f"{found.low:+.2f} to {found.high:+.2f}"
    p = "" if found.p is None else f", p = {found.p:.2f}"
    return f"Spearman {found.value:+.2f} ({interval}{p}) over {found.n} pairs of {found.tasks} tasks, {way}"
