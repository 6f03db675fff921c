"""Which words a pruned model keeps: by part of speech, stop word, entity, place, frequency and class.

Every share stands against random dropping in the same texts (`chance.py`), because a word may be kept often only
because its texts keep much, or because it has many pieces; a class stands against all texts together. Intervals
resample whole texts: words of one text are no independent examples. All tables share their resamples.

Axes: N texts, W words, G groups of one table, R resamples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from softprune.significance import RESAMPLES, Floats, resampled_sums
from softprune.tokens.estimates import Estimate, estimate, holm, p_value, quotient
from softprune.tokens.table import Ints, WordTable

CLEAR = 0.05
RANKS = (10, 100, 1_000, 10_000)
"""Upper ends of the frequency bins: the 10 commonest words, the next 90, and so on."""
COLUMNS = 5  # words, kept, kept by chance, sum of left, that by chance


@dataclass(frozen=True, slots=True)
class Row:
    """One group of words.

    Attributes:
        name: of the group.
        words, texts: how many words it has, and in how many texts.
        kept: share of them kept to the end.
        baseline: share that random dropping in the same texts keeps (for a class: share kept in all texts).
        difference: kept minus baseline.
        ratio: kept over baseline.
        left: mean layer after which a word was gone; the number of layers for one kept to the end.
        left_difference: that minus its baseline.
        p: of "no difference" in kept, by bootstrap.
        excludes_zero: whether the difference's interval does.
        clear: whether p, adjusted for all rows of the table by Holm's method, is below 0.05.
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
    """One way to part words: `code_W` is each word's group, -1 for none."""

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
    groupings = [Grouping("overall", ("all words",), np.zeros(len(table.text_W), np.int64))]
    groupings += groupings_of(table, labels, entities)
    counts = [_counts(table, grouping) for grouping in groupings]
    sums_RC = resampled_sums(np.concatenate(counts, axis=1), seed=seed, resamples=resamples)
    tables, start = dict[str, tuple[Row, ...]](), 0
    all_RC, all_NC = sums_RC[:, :COLUMNS], counts[0]
    for grouping, counts_NC in zip(groupings, counts, strict=True):
        width = counts_NC.shape[1]
        drawn_RGC = sums_RC[:, start : start + width].reshape(resamples, -1, COLUMNS)
        tables[grouping.name] = _rows(grouping, counts_NC, drawn_RGC, all_NC.sum(axis=0), all_RC)
        start += width
    (overall,) = tables.pop("overall")
    return Retention(overall, tables)


def groupings_of(table: WordTable, labels: Sequence[str], entities: bool) -> list[Grouping]:
    """Every way to part the table's words; groups without a word stay out of their table."""
    found = []
    if table.tagged:
        found.append(_by_name("pos", table.column(lambda word: word.mark.pos)))
        found.append(_by_name("stop", table.column(lambda w: "stop word" if w.mark.stop else "not a stop word")))
        if entities:
            found.append(_by_name("entity", table.column(lambda w: "in an entity" if w.mark.entity else "outside")))
    tenths = tuple(f"tenth {i}" for i in range(1, 11))
    found.append(Grouping("place", tenths, np.floor(10 * table.place_W + 1e-9).astype(np.int64)))
    found.append(_by_frequency(table))
    gold_N = np.array([-1 if reading.gold is None else reading.gold for reading in table.readings])
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
    starts = (1, *(rank + 1 for rank in RANKS))
    names = [f"ranks {low:,} to {high:,}" for low, high in zip(starts, RANKS, strict=False)]
    names.append(f"ranks above {RANKS[-1]:,}")
    return Grouping("frequency", tuple(names), np.array([bin_of[form] for form in table.forms], np.int64))


def _counts(table: WordTable, grouping: Grouping) -> Floats:
    """Sums by text and group, `[N, G * COLUMNS]`."""
    G, inside_W = len(grouping.groups), grouping.code_W >= 0
    counts_NGC = np.zeros((len(table.readings), G, COLUMNS))
    values_WC = np.stack(
        [np.ones_like(table.kept_W), table.kept_W, table.chance_kept_W, table.left_W, table.chance_left_W], axis=1
    )
    np.add.at(counts_NGC, (table.text_W[inside_W], grouping.code_W[inside_W]), values_WC[inside_W])
    return counts_NGC.reshape(len(table.readings), -1)


def _rows(grouping: Grouping, counts_NC: Floats, drawn_RGC: Floats, all_C: Floats, all_RC: Floats) -> tuple[Row, ...]:
    counts_NGC = counts_NC.reshape(len(counts_NC), -1, COLUMNS)
    rows = []
    for place, name in enumerate(grouping.groups):
        own_C, texts = counts_NGC[:, place].sum(axis=0), int((counts_NGC[:, place, 0] > 0).sum())
        if texts:
            shares, drawn = _shares(own_C, all_C, grouping), _shares(drawn_RGC[:, place], all_RC, grouping)
            made = [estimate(float(share), drawn_R, texts) for share, drawn_R in zip(shares, drawn, strict=True)]
            kept, baseline, difference, ratio, left, left_difference = made
            p = p_value(drawn[2]) if difference.interval else 1.0
            excludes = difference.interval is not None and not difference.interval[0] <= 0 <= difference.interval[1]
            size = (name, int(own_C[0]), texts)
            rows.append(Row(*size, kept, baseline.value, difference, ratio, left, left_difference, p, excludes, False))
    return _with_clear(rows)


def _shares(own: Floats, everything: Floats, grouping: Grouping) -> tuple[Floats, ...]:
    """Kept, baseline, difference, ratio, left and its difference, of sums `[..., COLUMNS]`."""
    basis, kept, left = (everything, 1, 3) if grouping.against_all else (own, 2, 4)
    share, baseline = quotient(own[..., 1], own[..., 0]), quotient(basis[..., kept], basis[..., 0])
    depth, depth_baseline = quotient(own[..., 3], own[..., 0]), quotient(basis[..., left], basis[..., 0])
    return share, baseline, share - baseline, quotient(share, baseline), depth, depth - depth_baseline


def _with_clear(rows: Sequence[Row]) -> tuple[Row, ...]:
    adjusted = holm([row.p for row in rows])
    return tuple(
        replace(row, clear=bool(p < CLEAR and row.excludes_zero)) for row, p in zip(rows, adjusted, strict=True)
    )
