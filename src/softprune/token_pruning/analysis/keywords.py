"""A user's own words: how often they are kept, and what the model does without them.

A keyword counts where its words stand, whatever their case. One of several words ("wall street") counts as one long
word: it is kept as long as any of its pieces is, and random dropping is asked for as many pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from softprune.errors import SoftpruneError
from softprune.statistics.bootstrap import (
    RESAMPLES,
    Difference,
    Floats,
    bootstrap_interval,
    holm,
    paired_bootstrap,
    resampled_sums,
)
from softprune.statistics.estimates import CLEAR, Estimate, chance_p, estimate, quotient, share_estimate
from softprune.token_pruning.analysis.random_baseline import Chance
from softprune.token_pruning.analysis.word_table import WordTable
from softprune.token_pruning.analysis.words import Word
from softprune.token_pruning.token_trace import TokenReader, TokenReading


@dataclass(frozen=True, slots=True)
class Found:
    """A keyword in a text.

    Attributes:
        keyword: as it was asked for, its case folded.
        text: which text.
        pieces: positions of its tokens.
        kept: whether any of them was kept to the end.
        chance: that random dropping keeps one.
    """

    keyword: str
    text: int
    pieces: tuple[int, ...]
    kept: bool
    chance: float


@dataclass(frozen=True, slots=True)
class KeywordRow:
    """One keyword, or all of them: counts, the share kept, and what random dropping keeps of it.

    `p` is of "kept as random dropping keeps" (`estimates.chance_p`); `clear` tells that it is below 0.05, after Holm's
    adjustment for all keywords, and that the difference's interval leaves out zero.
    """

    keyword: str
    words: int
    texts: int
    kept: Estimate
    baseline: float | None
    difference: Estimate
    p: float = 1.0
    clear: bool = False


@dataclass(frozen=True, slots=True)
class KeywordAccuracy:
    """Accuracy on the texts that hold a keyword and whose class is known.

    Attributes:
        texts: how many.
        whole: all of them as the model reads them.
        when_kept, when_dropped: those where at least one keyword was kept, and those where none was. The two are
            different texts: their difference isn't the keywords' doing.
        texts_kept: how many of the first kind.
        forced_out: all of them, read again with every keyword dropped at the first layer that prunes.
        random_out: the same with as many other tokens, chosen at random (as many of them kept), dropped instead.
        effect: forced_out minus whole, paired.
        beyond_random: forced_out minus random_out, paired: what the keywords do that other tokens don't.
    """

    texts: int
    whole: Estimate
    when_kept: Estimate
    when_dropped: Estimate
    texts_kept: int
    forced_out: Estimate | None = None
    random_out: Estimate | None = None
    effect: Difference | None = None
    beyond_random: Difference | None = None


@dataclass(frozen=True, slots=True)
class KeywordReport:
    """What `keyword_report` found; `accuracy` is None where no text with a keyword has a known class."""

    overall: KeywordRow
    rows: tuple[KeywordRow, ...]
    absent: tuple[str, ...]
    accuracy: KeywordAccuracy | None


def read_keywords(source: Sequence[str] | str | Path) -> tuple[str, ...]:
    """Keywords of a list, or of a file with one a line; case folded, each once, empty lines left out.

    Raises:
        SoftpruneError: when the file can't be read, or there is none.
    """
    lines: Sequence[str]
    if isinstance(source, str | Path):
        try:
            lines = Path(source).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SoftpruneError("a text file of keywords, one a line", f"{source}: {error}", "name another") from error
    else:
        lines = source
    found = tuple(dict.fromkeys(" ".join(line.casefold().split()) for line in lines if line.strip()))
    if not found:
        raise SoftpruneError("at least one keyword", "none", "write one a line")
    return found


def find_keywords(table: WordTable, keywords: Sequence[str]) -> list[Found]:
    """Every place where a keyword stands; where two begin, the longer one."""
    wanted, longest = set(keywords), max(map(len, keywords))
    found = []
    for text, (reading, words) in enumerate(zip(table.readings, table.words, strict=True)):
        chance, place = Chance.of(reading), 0
        while place < len(words):
            last, keyword = _longest_match(reading.text, words, place, wanted, longest)
            if keyword is not None:
                pieces = tuple(sorted({piece for word in words[place : last + 1] for piece in word.pieces}))
                kept = any(reading.left[piece] == reading.layers for piece in pieces)
                found.append(Found(keyword, text, pieces, kept, chance.kept(len(pieces))))
            place = last + 1
    return found


def _longest_match(
    text: str, words: Sequence[Word], place: int, wanted: set[str], longest: int
) -> tuple[int, str | None]:
    """The last word of the longest keyword that begins at a word, and the keyword; else that word and None."""
    best: tuple[int, str | None] = (place, None)
    for last in range(place, len(words)):
        form = " ".join(text[words[place].mark.start : words[last].mark.end].casefold().split())
        if len(form) > longest:
            break
        if form in wanted:
            best = (last, form)
    return best


def keyword_report(
    table: WordTable,
    keywords: Sequence[str],
    reader: TokenReader | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> KeywordReport:
    """Count keywords, hold their retention against random dropping, and read again without them.

    Args:
        table: the words.
        keywords: case folded, as `read_keywords` gives them.
        reader: the model that made the readings; without one nothing is read again.
        seed: of the bootstrap and of the random tokens.
        resamples: of the bootstrap.
    """
    found = find_keywords(table, keywords)
    present = [keyword for keyword in keywords if any(one.keyword == keyword for one in found)]
    rows = _rows(found, present, len(table.readings), seed, resamples)
    return KeywordReport(
        overall=_with_clear(rows[:1])[0],
        rows=tuple(sorted(_with_clear(rows[1:]), key=lambda row: (-row.words, row.keyword))),
        absent=tuple(keyword for keyword in keywords if keyword not in present),
        accuracy=_accuracy(table, found, reader, seed, resamples),
    )


def _rows(found: Sequence[Found], present: Sequence[str], texts: int, seed: int, resamples: int) -> list[KeywordRow]:
    """All keywords together, then each one."""
    place_of = {keyword: place for place, keyword in enumerate(present, start=1)}
    counts_NKC = np.zeros((texts, len(present) + 1, 3))
    for one in found:
        for place in (0, place_of[one.keyword]):
            counts_NKC[one.text, place] += (1, one.kept, one.chance)
    sums_RC = resampled_sums(counts_NKC.reshape(texts, -1), seed=seed, resamples=resamples)
    drawn_RKC = sums_RC.reshape(resamples, -1, 3)
    rows = []
    for place, name in enumerate(["all keywords", *present]):
        chance_N = np.array([one.chance for one in found if place in (0, place_of[one.keyword])])
        rows.append(_row(name, counts_NKC[:, place], drawn_RKC[:, place], chance_N))
    return rows


def _row(name: str, counts_NC: Floats, drawn_RC: Floats, chance_N: Floats) -> KeywordRow:
    own_C, holding = counts_NC.sum(axis=0), int((counts_NC[:, 0] > 0).sum())
    share, baseline = quotient(own_C[1], own_C[0]), quotient(own_C[2], own_C[0])
    share_R, baseline_R = quotient(drawn_RC[:, 1], drawn_RC[:, 0]), quotient(drawn_RC[:, 2], drawn_RC[:, 0])
    kept = share_estimate(float(share), share_R, holding)
    difference = estimate(float(share - baseline), share_R - baseline_R, holding)
    if kept.low is not None and kept.high is not None and kept.value in (0.0, 1.0):
        difference = Estimate(difference.value, kept.low - float(baseline), kept.high - float(baseline))
    return KeywordRow(
        keyword=name,
        words=int(own_C[0]),
        texts=holding,
        kept=kept,
        baseline=float(baseline) if own_C[0] else None,
        difference=difference,
        p=chance_p(round(own_C[1]), chance_N),
    )


def _with_clear(rows: Sequence[KeywordRow]) -> list[KeywordRow]:
    adjusted = holm([row.p for row in rows])
    return [
        replace(row, clear=p < CLEAR and row.difference.excludes_zero) for row, p in zip(rows, adjusted, strict=True)
    ]


def _accuracy(
    table: WordTable, found: Sequence[Found], reader: TokenReader | None, seed: int, resamples: int
) -> KeywordAccuracy | None:
    out: dict[int, set[int]] = {}
    kept = set[int]()
    for one in found:
        if table.readings[one.text].gold is not None:
            out.setdefault(one.text, set()).update(one.pieces)
            kept |= {one.text} if one.kept else set()
    if not out:
        return None
    texts = sorted(out)
    whole_NC = _correct([table.readings[text] for text in texts])
    is_kept_N = np.array([text in kept for text in texts])

    def accuracy(counts_NC: Floats) -> Estimate:
        if not len(counts_NC):
            return Estimate(None)
        interval = bootstrap_interval(counts_NC, _share, seed=seed, resamples=resamples)
        return Estimate(float(_share(counts_NC.sum(axis=0))), interval.low, interval.high)

    parts = (accuracy(whole_NC), accuracy(whole_NC[is_kept_N]), accuracy(whole_NC[~is_kept_N]), int(is_kept_N.sum()))
    if reader is None:
        return KeywordAccuracy(len(texts), *parts)
    others = _other_tokens(table.readings, out, seed)
    without_NC, random_NC = (_read_without(reader, table.readings, texts, which) for which in (out, others))
    effect, beyond = (
        paired_bootstrap(without_NC, base_NC, _share, seed=seed, resamples=resamples)
        for base_NC in (whole_NC, random_NC)
    )
    return KeywordAccuracy(len(texts), *parts, accuracy(without_NC), accuracy(random_NC), effect, beyond)


def _share(totals: Floats) -> Floats:
    return quotient(totals[..., 0], totals[..., 1])


def _correct(readings: Sequence[TokenReading]) -> Floats:
    return np.array([[reading.predicted == reading.gold, 1] for reading in readings], np.float64)


def _other_tokens(readings: Sequence[TokenReading], out: dict[int, set[int]], seed: int) -> dict[int, set[int]]:
    """Per text, as many tokens as its keywords have, drawn from the others; fewer where there aren't as many.

    As many of them as of the keywords' were kept to the end: to lose what was dropped anyway does nothing.
    """
    generator = np.random.default_rng(seed)
    answer = {}
    for text in sorted(out):
        reading, drawn = readings[text], set[int]()
        for kept in (True, False):
            same = [i for i, left in enumerate(reading.left) if (left == reading.layers) == kept]
            free = [i for i in same if not reading.special[i] and i not in out[text]]
            size = min(sum(i in out[text] for i in same), len(free))
            drawn |= {int(i) for i in generator.choice(free, size, replace=False)} if size else set()
        answer[text] = drawn
    return answer


def _read_without(
    reader: TokenReader, readings: Sequence[TokenReading], texts: Sequence[int], out: dict[int, set[int]]
) -> Floats:
    chosen = [readings[text] for text in texts]
    again = reader.read([r.text for r in chosen], [r.gold for r in chosen], forced_out=[out[text] for text in texts])
    return _correct(again)
