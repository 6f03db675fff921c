"""Which words a pruned model keeps: by part of speech, stop word, entity, place, frequency and class.

Every share is compared with random dropping in the same texts (`random_baseline`), because a word may be kept often
only because its texts keep much, or because it has many pieces. A class is compared with random dropping at the share
of tokens that all texts together keep. Intervals resample whole texts, since words of one text aren't independent. The
p-values compare the count itself with random dropping, exactly for small groups, where a bootstrap is too confident.
All tables share their resamples.

Axes: N texts, W words, G groups of one table, R resamples.
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
    """One group of words.

    Attributes:
        name: of the group.
        words, texts: how many words it has, and in how many texts.
        kept: share of them kept to the end.
        baseline: share that random dropping in the same texts keeps (for a class: with all texts' share of tokens).
        difference: kept minus baseline.
        ratio: kept over baseline.
        left: mean layer after which a word was dropped; the number of layers for one kept to the end.
        left_difference: that minus its baseline.
        p: of "kept as random dropping keeps" (`estimates.chance_p`; for a class by bootstrap over texts).
        excludes_zero: whether the difference's interval does.
        clear: whether it does, and p, adjusted for all rows of the table by Holm's method, is below 0.05.
    """

    name: str
    words: int
    texts: int
    kept: Estimate
    baseline: float | None
    difference: Estimate
    ratio: Estimate
    left: Estimate
    left_difference: Estimate
    p: float
    excludes_zero: bool
    clear: bool


@dataclass(frozen=True, slots=True)
class Grouping:
    """One way to group words.

    Attributes:
        name: of the table.
        groups: their names.
        code_W: group of each word; -1 for none.
        against_all: whether the baseline is the share of tokens that all texts together keep.
    """

    name: str
    groups: tuple[str, ...]
    code_W: Ints
    against_all: bool = False


@dataclass(frozen=True, slots=True)
class Retention:
    """All tables of a set of texts.

    Attributes:
        overall: all words; its baseline is what random dropping keeps of them.
        tables: rows by name of the grouping: pos, stop, entity, place, frequency, class.
    """

    overall: Row
    tables: dict[str, tuple[Row, ...]]


def retention(
    table: WordTable, labels: Sequence[str], *, entities: bool = False, seed: int = 0, resamples: int = RESAMPLES
) -> Retention:
    """What was kept, by every grouping that the table knows.

    Args:
        table: the words.
        labels: names of the classes.
        entities: whether the tagger finds named entities.
        seed: of the bootstrap.
        resamples: how many.
    """
    everything = Grouping("overall", ("all words",), np.zeros(len(table.text_W), np.int64))
    groupings = [everything, *make_groupings(table, labels, entities)]
    counts = [_counts(table, grouping) for grouping in groupings]
    sums_RC = resampled_sums(np.concatenate(counts, axis=1), seed=seed, resamples=resamples)
    tables, start = dict[str, tuple[Row, ...]](), 0
    for grouping, counts_NC in zip(groupings, counts, strict=True):
        width = counts_NC.shape[1]
        drawn_RGC = sums_RC[:, start : start + width].reshape(resamples, -1, COLUMNS)
        tables[grouping.name] = _rows(table, grouping, counts_NC, drawn_RGC)
        start += width
    (overall,) = tables.pop("overall")
    return Retention(overall, tables)


def make_groupings(table: WordTable, labels: Sequence[str], entities: bool) -> list[Grouping]:
    """Every way to group the table's words; groups without a word stay out of their table."""
    found = []
    if table.tagged:
        found.append(_by_name("pos", table.column(lambda word: word.mark.pos)))
        found.append(_by_name("stop", table.column(lambda w: "stop word" if w.mark.stop else "not a stop word")))
        if entities:
            found.append(_by_name("entity", table.column(lambda w: "in an entity" if w.mark.entity else "outside")))
    tenths = tuple(f"tenth {i}" for i in range(1, 11))
    found.append(Grouping("place", tenths, np.floor(10 * table.place_W + 1e-9).astype(np.int64)))
    found.append(_by_frequency(table))
    gold_N = np.array([-1 if trace.gold is None else trace.gold for trace in table.traces])
    if (gold_N >= 0).any():
        found.append(Grouping("class", tuple(labels), gold_N[table.text_W], against_all=True))
    return found


def _by_name(name: str, values: Sequence[str]) -> Grouping:
    groups = tuple(sorted(set(values)))
    code = {group: place for place, group in enumerate(groups)}
    return Grouping(name, groups, np.array([code[value] for value in values], np.int64))


def _by_frequency(table: WordTable) -> Grouping:
    """Bins by a word's rank among all words of these texts; equally frequent ones rank by the alphabet."""
    counts = Counter(table.forms)
    ranked = sorted(counts, key=lambda form: (-counts[form], form))
    bin_of = {form: int(np.searchsorted(RANKS, place + 1)) for place, form in enumerate(ranked)}
    names = [f"ranks {low + 1:,} to {high:,}" for low, high in pairwise((0, *RANKS))]
    return Grouping(
        "frequency", (*names, f"ranks above {RANKS[-1]:,}"), np.array([bin_of[form] for form in table.forms], np.int64)
    )


def _counts(table: WordTable, grouping: Grouping) -> Floats:
    """Sums by text and group, `[N, G * COLUMNS]`."""
    G, inside_W = len(grouping.groups), grouping.code_W >= 0
    counts_NGC = np.zeros((len(table.traces), G, COLUMNS))
    kept, left = (table.kept_W, table.chance_kept_W), (table.left_W, table.chance_left_W)
    values_WC = np.stack([np.ones_like(table.kept_W), *kept, *left, table.even_kept_W, table.even_left_W], axis=1)
    np.add.at(counts_NGC, (table.text_W[inside_W], grouping.code_W[inside_W]), values_WC[inside_W])
    return counts_NGC.reshape(len(table.traces), -1)


def _rows(table: WordTable, grouping: Grouping, counts_NC: Floats, drawn_RGC: Floats) -> tuple[Row, ...]:
    counts_NGC = counts_NC.reshape(len(counts_NC), -1, COLUMNS)
    rows = []
    for place, name in enumerate(grouping.groups):
        own_C, texts = counts_NGC[:, place].sum(axis=0), int((counts_NGC[:, place, 0] > 0).sum())
        if texts:
            chance_W = None if grouping.against_all else table.chance_kept_W[grouping.code_W == place]
            rows.append(_row(name, texts, own_C, drawn_RGC[:, place], chance_W))
    return tuple(mark_clear(rows))


def _row(name: str, texts: int, own_C: Floats, drawn_RC: Floats, chance_W: Floats | None) -> Row:
    share, baseline, *others = _shares(own_C, chance_W is None)
    share_R, baseline_R, *others_R = _shares(drawn_RC, chance_W is None)
    pairs = zip(others, others_R, strict=True)
    ratio, left, left_difference = [estimate(float(value), drawn_R, texts) for value, drawn_R in pairs]
    kept, difference = compare_shares(float(share), float(baseline), share_R, baseline_R, texts)
    if difference.interval is None:
        p = 1.0
    else:
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
    adjusted = holm([row.p for row in rows])
    return [
        replace(row, clear=p < CLEAR and row.difference.excludes_zero) for row, p in zip(rows, adjusted, strict=True)
    ]
