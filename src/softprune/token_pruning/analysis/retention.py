"""Which words a pruned model keeps: by part of speech, stop word, entity, place, frequency and class.

Every share is compared with random dropping in the same texts (`words`): a word may be kept often only because its
texts keep much, or because it has many pieces. A class is compared with random dropping at the share of tokens that all
texts together keep. Intervals resample whole texts, since words of one text aren't independent.

Words that are typical of a class are found by log-odds with an informative Dirichlet prior. For word w, class i
against all the others j, with y the counts of *kept* words, n their sums, and the prior `a_w = A f_w / sum f` from the
counts f of all words, kept or not (A pseudo-words in all):

    delta_w = log((y_wi + a_w) / (n_i + A - y_wi - a_w)) - log((y_wj + a_w) / (n_j + A - y_wj - a_w))
    z_w     = delta_w / sqrt(1 / (y_wi + a_w) + 1 / (y_wj + a_w))

Source: Monroe, Colaresi and Quinn, Fightin' Words, Political Analysis 16 (2008), equations 16, 20 and 22.
No word is left out: stop words and punctuation are flagged, not removed. A high z says that the word is typical of
the class *among kept words*; whether pruning had a hand in it is seen by its share kept against random dropping.

Axes: N texts, W words, G groups of one table, R resamples (S: with the texts themselves in front), C columns.
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
from softprune.token_pruning.analysis.words import Ints, WordTable

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


def retention(
    table: WordTable, labels: Sequence[str], *, entities: bool = False, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, tuple[Row, ...]]:
    """What was kept, by every grouping that the table knows, and `overall`; `entities`: whether a tagger finds any."""
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
    all_NGC = np.concatenate(counts, axis=1)  # all tables share their resamples
    sums_RC = resampled_sums(all_NGC.reshape(len(table.traces), -1), seed=seed, resamples=resamples)
    starts = np.cumsum([counts_NGC.shape[1] for counts_NGC in counts])[:-1]
    drawn = np.split(sums_RC.reshape(resamples, -1, COLUMNS), starts, axis=1)
    tables: dict[str, tuple[Row, ...]] = {}
    for grouping, counts_NGC, drawn_RGC in zip(groupings, counts, drawn, strict=True):
        rows = []
        for place, name in enumerate(grouping.groups):
            chance_W = None if grouping.against_all else table.chance_kept_W[grouping.code_W == place]
            row = _row(name, counts_NGC[:, place], drawn_RGC[:, place], chance_W)
            if row is not None:
                rows.append(row)
        tables[grouping.name] = tuple(mark_clear(rows))
    return tables


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
    groups, code_W = np.unique(values, return_inverse=True)
    return Grouping(name, tuple(groups.tolist()), code_W)


def _row(name: str, counts_NC: Floats, drawn_RC: Floats, chance_W: Floats | None) -> Row | None:
    """A group's row, which is not `clear` yet; None without a word. Without chances its baseline is the even one."""
    texts = int((counts_NC[:, 0] > 0).sum())
    if not texts:
        return None
    sums_SC = np.vstack([counts_NC.sum(axis=0), drawn_RC])  # of all texts, then of each resample
    columns = (1, 5, 3, 6) if chance_W is None else (1, 2, 3, 4)
    share_S, baseline_S, left_S, left_baseline_S = (quotient(sums_SC[:, c], sums_SC[:, 0]) for c in columns)
    kept, difference = compare_shares(float(share_S[0]), float(baseline_S[0]), share_S[1:], baseline_S[1:], texts)
    others = (quotient(share_S, baseline_S), left_S, left_S - left_baseline_S)
    ratio, left, left_difference = (estimate(float(each_S[0]), each_S[1:], texts) for each_S in others)
    p = 1.0
    if difference.interval is not None:
        # Of the count itself where that is possible: for small groups a bootstrap is too confident.
        p = p_value(share_S[1:] - baseline_S[1:]) if chance_W is None else chance_p(round(sums_SC[0, 1]), chance_W)
    return Row(
        name=name,
        words=int(sums_SC[0, 0]),
        texts=texts,
        kept=kept,
        baseline=float(baseline_S[0]),
        difference=difference,
        ratio=ratio,
        left=left,
        left_difference=left_difference,
        p=p,
        excludes_zero=difference.excludes_zero,
        clear=False,
    )


AnyRow = TypeVar("AnyRow", bound=Any)


def mark_clear(rows: Sequence[AnyRow]) -> list[AnyRow]:
    """Rows with `clear` set: their p-values adjusted for all of them are small, and their intervals exclude zero."""
    marked = []
    for row, p in zip(rows, holm([row.p for row in rows]), strict=True):
        marked.append(replace(row, clear=p < CLEAR and row.difference.excludes_zero))
    return marked


@dataclass(frozen=True, slots=True)
class ClassWord:
    """A word that is typical of a class among kept words."""

    form: str  # in lower case
    z: float  # of its log-odds; above 1.96 it would be clear if it were the only word looked at
    log_odds: float  # class against the other classes
    kept: int  # how often it was kept in texts of the class
    words: int  # how often it is in them
    share: float  # of these kept
    baseline: float  # what random dropping keeps of them
    stop: bool | None  # whether it is a stop word; None without a tagger


def typical_words(
    table: WordTable, labels: Sequence[str], *, top: int = 20, minimum: int = 5, prior: float = 1_000.0
) -> dict[str, list[ClassWord]]:
    """The `top` words with the highest z of each true class, kept `minimum` times in it at least; `prior` is A.

    Classes without a text are left out, and all where only one has any.
    """
    gold_N = table.golds()
    present = [place for place in range(len(labels)) if (gold_N == place).any()]
    if len(present) < 2:
        return {}
    forms, code_W = np.unique(np.array(table.forms, dtype=object), return_inverse=True)
    gold_W = gold_N[table.text_W]

    def count_forms(inside_W: np.ndarray, weights_W: Floats) -> Floats:
        return np.bincount(code_W[inside_W], weights_W[inside_W], minlength=len(forms)).astype(np.float64)

    known_W, ones_W = gold_W >= 0, np.ones_like(table.kept_W)
    all_V = count_forms(known_W, ones_W)
    prior_V, kept_V = prior * all_V / all_V.sum(), count_forms(known_W, table.kept_W)
    stops = {word.text.lower(): word.mark.stop for word in table.flat}
    typical = {}
    for place in present:
        own_W = gold_W == place
        own_V, words_V = count_forms(own_W, table.kept_W), count_forms(own_W, ones_W)
        chance_V = count_forms(own_W, table.chance_kept_W)
        delta_V, z_V = log_odds(own_V, kept_V - own_V, prior_V)
        order = [i for i in np.argsort(-z_V, kind="stable") if own_V[i] >= minimum and z_V[i] > 0][:top]
        typical[labels[place]] = [
            ClassWord(
                form=str(forms[i]),
                z=float(z_V[i]),
                log_odds=float(delta_V[i]),
                kept=int(own_V[i]),
                words=int(words_V[i]),
                share=float(own_V[i] / words_V[i]),
                baseline=float(chance_V[i] / words_V[i]),
                stop=stops[str(forms[i])],
            )
            for i in order
        ]
    return typical


def log_odds(own_V: Floats, other_V: Floats, prior_V: Floats) -> tuple[Floats, Floats]:
    """The log-odds of every word and their z; V words, some of which have neither count nor prior (z is 0)."""
    a_V, b_V = own_V + prior_V, other_V + prior_V
    with np.errstate(divide="ignore", invalid="ignore"):  # of words without count and prior
        delta_V = np.log(a_V / (a_V.sum() - a_V)) - np.log(b_V / (b_V.sum() - b_V))
        z_V = delta_V / np.sqrt(1 / a_V + 1 / b_V)
    return np.nan_to_num(delta_V, posinf=0.0, neginf=0.0), np.nan_to_num(z_V, posinf=0.0, neginf=0.0)
