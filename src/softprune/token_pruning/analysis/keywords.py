"""The user's own words: how often they are kept, and what the model does without them.

Keywords match whole words, whatever their case. A keyword of several words ("wall street") counts as one long word: it
is kept as long as any of its pieces is, and is compared with random dropping of as many pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from softprune.data.metrics import with_ones
from softprune.errors import SoftpruneError
from softprune.statistics.bootstrap import (
    RESAMPLES,
    Difference,
    Floats,
    bootstrap_interval,
    paired_bootstrap,
    resampled_sums,
)
from softprune.statistics.estimates import Estimate, chance_p, compare_shares, quotient
from softprune.token_pruning.analysis.retention import mark_clear
from softprune.token_pruning.analysis.words import WordTable, random_survival
from softprune.token_pruning.model import TokenModel, TokenTrace


@dataclass(frozen=True, slots=True)
class KeywordMatch:
    """A keyword in a text."""

    keyword: str  # as it was asked for, its case folded
    text: int
    pieces: tuple[int, ...]  # positions of its tokens
    kept: bool  # whether any of them was kept to the end
    chance: float  # that random dropping keeps one


@dataclass(frozen=True, slots=True)
class KeywordRow:
    """One keyword, or all of them: counts, the share kept, and what random dropping keeps of it."""

    keyword: str
    words: int
    texts: int
    kept: Estimate
    baseline: float | None
    difference: Estimate
    p: float = 1.0  # of "kept as often as random dropping keeps it" (`estimates.chance_p`)
    clear: bool = False  # p, after Holm's adjustment for all keywords, is below 0.05, and the interval excludes zero


@dataclass(frozen=True, slots=True)
class KeywordAccuracy:
    """Accuracy on the texts that hold a keyword and whose class is known.

    Texts where a keyword was kept and texts where none was are different texts, so the keywords need not be the cause
    of their difference. Forcing out is another matter: the same texts are read twice.
    """

    texts: int
    whole: Estimate  # all of them as the model reads them
    when_kept: Estimate  # those where at least one keyword was kept
    when_dropped: Estimate  # those where none was
    texts_kept: int  # how many of the first kind
    forced_out: Estimate | None = None  # all of them, every keyword dropped at the first layer that prunes
    random_out: Estimate | None = None  # as many other tokens dropped instead, at random, as many of them kept
    effect: Difference | None = None  # forced_out minus whole, paired
    beyond_random: Difference | None = None  # forced_out minus random_out, paired: what other tokens don't do


@dataclass(frozen=True, slots=True)
class KeywordReport:
    """What `keyword_report` returns."""

    overall: KeywordRow
    rows: tuple[KeywordRow, ...]
    absent: tuple[str, ...]
    accuracy: KeywordAccuracy | None  # None where no text with a keyword has a known class


def read_keywords(source: Sequence[str] | str | Path) -> tuple[str, ...]:
    """Keywords of a list, or of a file with one a line; case folded, each once, empty lines left out."""
    if isinstance(source, str | Path):
        try:
            source = Path(source).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SoftpruneError("a text file of keywords, one a line", f"{source}: {error}", "name another") from error
    keywords = tuple(dict.fromkeys(" ".join(line.casefold().split()) for line in source if line.strip()))
    if not keywords:
        raise SoftpruneError("at least one keyword", "none", "write one a line")
    return keywords


def find_keywords(table: WordTable, keywords: Sequence[str]) -> list[KeywordMatch]:
    """Every match of a keyword; where two begin at one word, the longer one."""
    wanted, longest = set(keywords), max(map(len, keywords))
    matches = []
    for text, (trace, words) in enumerate(zip(table.traces, table.words, strict=True)):
        chance_TL, place = random_survival(trace), 0
        while place < len(words):
            end, keyword = place + 1, None
            for last in range(place, len(words)):
                stretch = trace.text[words[place].mark.start : words[last].mark.end]
                form = " ".join(stretch.casefold().split())
                if len(form) > longest:
                    break
                if form in wanted:  # a longer one may begin here, too: go on
                    end, keyword = last + 1, form
            if keyword is not None:
                pieces = tuple(sorted(set(chain.from_iterable(word.pieces for word in words[place:end]))))
                kept = any(trace.left[piece] == trace.layers for piece in pieces)
                matches.append(KeywordMatch(keyword, text, pieces, kept, float(chance_TL[len(pieces) - 1, -1])))
            place = end
    return matches


def keyword_report(
    table: WordTable,
    keywords: Sequence[str],
    model: TokenModel | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> KeywordReport:
    """Count keywords (as `read_keywords` gives them), compare their retention with random dropping.

    With the model that made the traces, also read the texts again without them.
    """
    matches = find_keywords(table, keywords)
    found = {match.keyword for match in matches}
    names = ["all keywords", *(keyword for keyword in keywords if keyword in found)]
    counts_NKC = np.zeros((len(table.traces), len(names), 3))  # words, kept, kept by chance
    chances: list[list[float]] = [[] for _ in names]
    for match in matches:
        for place in (0, names.index(match.keyword, 1)):
            counts_NKC[match.text, place] += (1, match.kept, match.chance)
            chances[place].append(match.chance)
    sums_RC = resampled_sums(counts_NKC.reshape(len(table.traces), -1), seed=seed, resamples=resamples)
    drawn_RKC = sums_RC.reshape(resamples, -1, 3)
    rows = [_row(name, counts_NKC[:, k], drawn_RKC[:, k], np.array(chances[k])) for k, name in enumerate(names)]
    return KeywordReport(
        overall=mark_clear(rows[:1])[0],
        rows=tuple(sorted(mark_clear(rows[1:]), key=lambda row: (-row.words, row.keyword))),
        absent=tuple(keyword for keyword in keywords if keyword not in found),
        accuracy=_measure_accuracy(table, matches, model, seed, resamples),
    )


def _row(name: str, counts_NC: Floats, drawn_RC: Floats, chance_W: Floats) -> KeywordRow:
    own_C, texts = counts_NC.sum(axis=0), int((counts_NC[:, 0] > 0).sum())
    (share, baseline), drawn_R2 = quotient(own_C[1:], own_C[:1]), quotient(drawn_RC[:, 1:], drawn_RC[:, :1])
    kept, difference = compare_shares(float(share), float(baseline), drawn_R2[:, 0], drawn_R2[:, 1], texts)
    known = float(baseline) if texts else None
    p = chance_p(round(own_C[1]), chance_W)
    return KeywordRow(name, int(own_C[0]), texts, kept, known, difference, p)


def _measure_accuracy(
    table: WordTable, matches: Sequence[KeywordMatch], model: TokenModel | None, seed: int, resamples: int
) -> KeywordAccuracy | None:
    pieces: dict[int, set[int]] = {}  # of all keywords, by text
    kept = set[int]()
    for match in matches:
        if table.traces[match.text].gold is not None:
            pieces.setdefault(match.text, set()).update(match.pieces)
            if match.kept:
                kept.add(match.text)
    if not pieces:
        return None
    traces = {text: table.traces[text] for text in sorted(pieces)}
    whole_NC = count_correct(traces.values())
    is_kept_N = np.array([text in kept for text in traces])

    def accuracy(counts_NC: Floats) -> Estimate:
        if not len(counts_NC):
            return Estimate(None)
        interval = bootstrap_interval(counts_NC, _share, seed=seed, resamples=resamples)
        return Estimate(float(_share(counts_NC.sum(axis=0))), interval.low, interval.high)

    def read_without(out: Mapping[int, set[int]]) -> Floats:
        assert model is not None
        texts, golds = [trace.text for trace in traces.values()], [trace.gold for trace in traces.values()]
        return count_correct(model.trace(texts, golds, forced_out=[out[text] for text in traces]))

    parts = (accuracy(whole_NC), accuracy(whole_NC[is_kept_N]), accuracy(whole_NC[~is_kept_N]), int(is_kept_N.sum()))
    if model is None:
        return KeywordAccuracy(len(traces), *parts)
    without_NC, random_NC = read_without(pieces), read_without(_draw_other_tokens(traces, pieces, seed))
    compare = partial(paired_bootstrap, without_NC, score=_share, seed=seed, resamples=resamples)
    changes = (compare(whole_NC), compare(random_NC))
    return KeywordAccuracy(len(traces), *parts, accuracy(without_NC), accuracy(random_NC), *changes)


def count_correct(traces: Iterable[TokenTrace]) -> Floats:
    """Per text, whether its class is predicted, beside a one."""
    return with_ones([trace.predicted == trace.gold for trace in traces])


def _share(totals: Floats) -> Floats:
    return quotient(totals[..., 0], totals[..., 1])


def _draw_other_tokens(
    traces: Mapping[int, TokenTrace], pieces: Mapping[int, set[int]], seed: int
) -> dict[int, set[int]]:
    """Per text, as many tokens as its keywords have, drawn from the others; fewer where there aren't as many.

    As many of them as of the keywords' were kept to the end: forcing out what is dropped anyway has no effect.
    """
    generator = np.random.default_rng(seed)
    drawn: dict[int, set[int]] = {}
    for text, trace in traces.items():
        drawn[text] = set()
        for kept in (True, False):
            same = [i for i, left in enumerate(trace.left) if (left == trace.layers) == kept]
            free = [i for i in same if not trace.special[i] and i not in pieces[text]]
            size = min(sum(i in pieces[text] for i in same), len(free))
            if size:
                drawn[text].update(map(int, generator.choice(free, size, replace=False)))
    return drawn
