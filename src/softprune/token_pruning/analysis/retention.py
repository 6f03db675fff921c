"""Which words a pruned model keeps: by part of speech, stop word, entity, place, frequency and class.

Every share is compared with random dropping in the same texts (`word_table`): a word may be kept often only because its
texts keep much, or because it has many pieces. A class is compared with random dropping at the share of tokens that all
texts together keep. Intervals resample whole texts, since words of one text aren't independent.

Axes: N texts, W words, G groups of one table, R resamples, C columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from softprune.statistics.bootstrap import RESAMPLES, Floats, holm, resampled_sums
from softprune.statistics.estimates import CLEAR, Estimate, chance_p, compare_shares, estimate, p_value, quotient
from softprune.token_pruning.analysis.word_table import Ints, WordTable

RANKS = (10, 100, 1_000, 10_000)
"""Upper ends of the frequency bins: the 10 commonest words, the next 90, and so on."""
COLUMNS = 7  # words, kept, kept by chance, sum of left, that by chance; by even chance kept, and sum of left


@dataclass(frozen=True, slots=True)
class Row:
    """One group of words."""

    name: str
    words: int
    texts: int  # that hold one of the words
    kept: Estimate  # share of the words kept to the end
    baseline: float | None  # share that random dropping in the same texts keeps; of a class: at all texts' rate
    difference: Estimate  # kept minus baseline
    ratio: Estimate  # kept over baseline
    left: Estimate  # mean layer after which a word was dropped; the number of layers for one kept to the end
    left_difference: Estimate  # that minus its baseline
    p: float  # of "kept as random dropping keeps" (`estimates.chance_p`; of a class: by bootstrap over texts)
    excludes_zero: bool  # whether the difference's interval does
    clear: bool  # whether it does, and p is below 0.05, adjusted for all rows of the table by Holm's method


@dataclass(frozen=True, slots=True)
class Grouping:
    """One way to group words."""

    name: str  # of the table
    groups: tuple[str, ...]
    code_W: Ints  # group of each word; -1 for none
    against_all: bool = False  # whether the baseline is the share of tokens that all texts together keep


@dataclass(frozen=True, slots=True)
class Retention:
    """All tables of a set of texts."""

    overall: Row  # all words
    tables: dict[str, tuple[Row, ...]]  # by name of the grouping: pos, stop, entity, place, frequency, class


def retention(
    table: WordTable, labels: Sequence[str], *, entities: bool = False, seed: int = 0, resamples: int = RESAMPLES
) -> Retention:
    """What was kept, by every grouping that the table knows; `entities`: whether the tagger finds named ones."""
    everything = Grouping("overall", ("all words",), np.zeros(len(table.text_W), np.int64))
    groupings = [everything, *make_groupings(table, labels, entities)]
    own = (np.ones_like(table.kept_W), table.kept_W, table.chance_kept_W, table.left_W, table.chance_left_W)
    values_WC = np.stack([*own, table.even_kept_W, table.even_left_W], axis=1)
    counts = []
    for grouping in groupings:
        inside_W = grouping.code_W >= 0
        counts_NGC = np.zeros((len(table.traces), len(grouping.groups), COLUMNS))
        np.add.at(counts_NGC, (table.text_W[inside_W], grouping.code_W[inside_W]), values_WC[inside_W])
        counts.append(counts_NGC)
    flat = [counts_NGC.reshape(len(table.traces), -1) for counts_NGC in counts]  # all tables share their resamples
    sums_RC = resampled_sums(np.concatenate(flat, axis=1), seed=seed, resamples=resamples)
    tables, start = dict[str, tuple[Row, ...]](), 0
    for grouping, counts_NGC in zip(groupings, counts, strict=True):
        width = counts_NGC.shape[1] * COLUMNS
        drawn_RGC = sums_RC[:, start : start + width].reshape(resamples, -1, COLUMNS)
        start += width
        rows = []
        for place, name in enumerate(grouping.groups):
            chance_W = None if grouping.against_all else table.chance_kept_W[grouping.code_W == place]
            row = _row(name, counts_NGC[:, place], drawn_RGC[:, place], chance_W)
            if row is not None:
                rows.append(row)
        tables[grouping.name] = tuple(mark_clear(rows))
    (overall,) = tables.pop("overall")
    return Retention(overall, tables)


def make_groupings(table: WordTable, labels: Sequence[str], entities: bool) -> list[Grouping]:
    """Every way to group the table's words; groups without a word stay out of their table."""
    found = []
    if table.tagged:
        marks = [word.mark for word in table.flat]
        found.append(_by_name("pos", [mark.pos for mark in marks]))
        found.append(_by_name("stop", ["stop word" if mark.stop else "not a stop word" for mark in marks]))
        if entities:
            found.append(_by_name("entity", ["in an entity" if mark.entity else "outside" for mark in marks]))
    tenths = tuple(f"tenth {i}" for i in range(1, 11))
    # 1e-9: rounding must not move a word from the very beginning of its tenth to the one before.
    found.append(Grouping("place", tenths, np.floor(10 * table.place_W + 1e-9).astype(np.int64)))
    # Bins by rank among all words of these texts; equally frequent ones rank by the alphabet.
    counts = Counter(table.forms)
    ranked = sorted(counts, key=lambda form: (-counts[form], form))
    bins = {form: int(np.searchsorted(RANKS, place + 1)) for place, form in enumerate(ranked)}
    names = [f"ranks {low + 1:,} to {high:,}" for low, high in pairwise((0, *RANKS))]
    code_W = np.array([bins[form] for form in table.forms], np.int64)
    found.append(Grouping("frequency", (*names, f"ranks above {RANKS[-1]:,}"), code_W))
    gold_N = table.golds()
    if (gold_N >= 0).any():
        found.append(Grouping("class", tuple(labels), gold_N[table.text_W], against_all=True))
    return found


def _by_name(name: str, values: Sequence[str]) -> Grouping:
    groups = tuple(sorted(set(values)))
    code = {group: place for place, group in enumerate(groups)}
    return Grouping(name, groups, np.array([code[value] for value in values], np.int64))


def _row(name: str, counts_NC: Floats, drawn_RC: Floats, chance_W: Floats | None) -> Row | None:
    """A group's row, which is not `clear` yet; None without a word. Without chances its baseline is the even one."""
    own_C, texts = counts_NC.sum(axis=0), int((counts_NC[:, 0] > 0).sum())
    if not texts:
        return None
    share, baseline, *others = _shares(own_C, chance_W is None)
    share_R, baseline_R, *others_R = _shares(drawn_RC, chance_W is None)
    pairs = zip(others, others_R, strict=True)
    ratio, left, left_difference = [estimate(float(value), drawn_R, texts) for value, drawn_R in pairs]
    kept, difference = compare_shares(float(share), float(baseline), share_R, baseline_R, texts)
    p = 1.0
    if difference.interval is not None:
        # Of the count itself where that is possible: for small groups a bootstrap is too confident.
        p = p_value(share_R - baseline_R) if chance_W is None else chance_p(round(own_C[1]), chance_W)
    return Row(
        name=name,
        words=int(own_C[0]),
        texts=texts,
        kept=kept,
        baseline=float(baseline),
        difference=difference,
        ratio=ratio,
        left=left,
        left_difference=left_difference,
        p=p,
        excludes_zero=difference.excludes_zero,
        clear=False,
    )


def _shares(own: Floats, even: bool) -> tuple[Floats, ...]:
    """Kept, baseline, their ratio, left and its difference, of sums `[..., COLUMNS]`."""
    kept, left = (5, 6) if even else (2, 4)
    share, baseline, depth, depth_baseline = (quotient(own[..., column], own[..., 0]) for column in (1, kept, 3, left))
    return share, baseline, quotient(share, baseline), depth, depth - depth_baseline


AnyRow = TypeVar("AnyRow", bound=Any)


def mark_clear(rows: Sequence[AnyRow]) -> list[AnyRow]:
    """Rows with `clear` set: their p-values adjusted for all of them are small, and their intervals exclude zero."""
    marked = []
    for row, p in zip(rows, holm([row.p for row in rows]), strict=True):
        marked.append(replace(row, clear=p < CLEAR and row.difference.excludes_zero))
    return marked
