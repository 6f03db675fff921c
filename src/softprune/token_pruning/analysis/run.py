"""What a pruned model keeps, from one call: numbers, the kept words as CSV, figures and a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from softprune.errors import SoftpruneError
from softprune.runs import atomic_io
from softprune.statistics.bootstrap import RESAMPLES, Floats, resampled_sums
from softprune.statistics.estimates import Estimate, estimate, quotient
from softprune.token_pruning.analysis.clusters import Clusters, clusters
from softprune.token_pruning.analysis.export import write_csv
from softprune.token_pruning.analysis.keywords import KeywordReport, keyword_report, read_keywords
from softprune.token_pruning.analysis.retention import Retention, retention
from softprune.token_pruning.analysis.tagging import Tagger
from softprune.token_pruning.analysis.word_table import WordTable, word_table
from softprune.token_pruning.analysis.words_per_class import ClassWord, typical_words
from softprune.token_pruning.token_trace import TokenReader, TokenReading

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of all texts, special ones too.

    Attributes:
        read, cut: how many the model read, and how many truncation took away.
        texts_cut: texts that were truncated.
        alive: per layer, the share left after its pruning.
    """

    read: int
    cut: int
    texts_cut: int
    alive: tuple[Estimate, ...]


@dataclass(frozen=True, slots=True)
class Analysis:
    """Everything that the page shows.

    Attributes:
        table: the words.
        labels: names of the classes.
        tagger: that told parts of speech, if there was one.
        tokens: counts.
        accuracy: on the texts whose class is known, and how many those are.
        retention: tables.
        typical: kept words that tell classes apart, by class.
        keywords: None without any.
        clusters: None where there was nothing to map.
        by_gold: whether the map's classes are the true ones; else those predicted.
        seed: of everything random.
    """

    table: WordTable
    labels: tuple[str, ...]
    tagger: Tagger | None
    tokens: Tokens
    accuracy: Estimate
    known: int
    retention: Retention
    typical: dict[str, list[ClassWord]]
    keywords: KeywordReport | None
    clusters: Clusters | None
    by_gold: bool
    seed: int


def analyse(
    readings: Sequence[TokenReading],
    tagging: Tagger | None,
    out: Path | str,
    *,
    labels: Sequence[str] | None = None,
    keywords: Sequence[str] | str | Path | None = None,
    reader: TokenReader | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    title: str = "",
) -> dict[str, Any]:
    """Analyse what was kept, and write `analysis.json`, `kept.csv`, `figures/` and `analysis.html` into a folder.

    Args:
        readings: of the texts; with states, or there is no map.
        tagging: the tagger; None: words are split at spaces and punctuation, and there are no parts of speech.
        out: the folder; its files are replaced.
        labels: names of the classes; the reader's by default.
        keywords: the user's own words, as a list or a file with one a line.
        reader: the model that made the readings; it reads texts with keywords again, without them.
        seed: of everything random.
        resamples: of every bootstrap.
        title: of the page.

    Returns:
        What `analysis.json` holds. Shares are fractions.

    Raises:
        SoftpruneError: without texts or words, for keywords that can't be read, and without matplotlib, jinja2
            or (for the map) scikit-learn.
    """
    from softprune.token_pruning.analysis.page import write_page

    wanted = None if keywords is None else read_keywords(keywords)  # a wrong file is told before minutes of work
    found = study(readings, tagging, labels, wanted, reader, seed=seed, resamples=resamples)
    folder = Path(out)
    answer = as_json(found)
    rows = zip(found.table.readings, found.table.words, strict=True)
    write_csv(folder / "kept.csv", rows, found.labels)
    write_page(found, folder, title)
    atomic_io.write_bytes(
        folder / "analysis.json", (atomic_io.json_text(answer, indent=1) + "\n").encode(errors="replace")
    )
    return answer


def study(
    readings: Sequence[TokenReading],
    tagging: Tagger | None,
    labels: Sequence[str] | None = None,
    keywords: Sequence[str] | None = None,
    reader: TokenReader | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Analysis:
    """The analysis without its files; arguments as in `analyse`, keywords as `read_keywords` gives them."""
    if not readings:
        raise SoftpruneError("at least one text", "none", "analyse a set that has some")
    names = _labels(readings, labels, reader)
    table = word_table(readings, tagging)
    golds = [reading.gold for reading in readings]
    by_gold = all(gold is not None for gold in golds)
    known = [reading for reading in readings if reading.gold is not None]
    classes = [gold for gold in golds if gold is not None] if by_gold else [r.predicted for r in readings]
    entities = tagging is not None and tagging.entities
    return Analysis(
        table=table,
        labels=names,
        tagger=tagging,
        tokens=_tokens(readings, seed, resamples),
        accuracy=_accuracy(known, seed, resamples),
        known=len(known),
        retention=retention(table, names, entities=entities, seed=seed, resamples=resamples),
        typical=typical_words(table, names),
        keywords=keyword_report(table, keywords, reader, seed=seed, resamples=resamples) if keywords else None,
        clusters=clusters([reading.state for reading in readings], classes, seed=seed),
        by_gold=by_gold,
        seed=seed,
    )


def as_json(found: Analysis) -> dict[str, Any]:
    """What `analysis.json` holds: plain values only."""
    tagger = found.tagger
    return {
        "schema": SCHEMA,
        "seed": found.seed,
        "texts": len(found.table.readings),
        "layers": found.table.layers,
        "labels": list(found.labels),
        "accuracy": {**asdict(found.accuracy), "texts": found.known},
        "tokens": asdict(found.tokens),
        "tagger": tagger
        and {
            "name": tagger.name,
            "accuracy": tagger.accuracy,
            "measured_on": tagger.measured_on,
            "entities": tagger.entities,
        },
        "overall": asdict(found.retention.overall),
        "retention": {name: [asdict(row) for row in rows] for name, rows in found.retention.tables.items()},
        "typical_words": {name: [asdict(word) for word in words] for name, words in found.typical.items()},
        "keywords": asdict(found.keywords) if found.keywords else None,
        "clusters": _clusters_json(found.clusters, found.by_gold),
        "findings": _findings(found),
    }


def _findings(found: Analysis) -> dict[str, str]:
    """What each table shows, in words; the tagger's accuracy goes with its table."""
    from softprune.token_pruning.analysis import findings

    tables = found.retention.tables
    told = {"overall": findings.overall_finding(found.retention.overall, len(found.table.readings))}
    told |= {name: f"{findings.TITLES[name]}: {findings.finding(name, rows)}" for name, rows in tables.items()}
    if found.tagger and "pos" in told:
        told["pos"] += f" ({found.tagger.accuracy_in_words}.)"
    if found.keywords:
        told["keywords"] = " ".join(findings.keyword_finding(found.keywords))
    if found.clusters:
        told["clusters"] = findings.cluster_finding(found.clusters)
    return told


def _clusters_json(found: Clusters | None, by_gold: bool) -> dict[str, Any] | None:
    if found is None:
        return None
    maps = {"pca": found.pca.tolist(), "tsne": found.tsne.tolist()}
    return {**asdict(found), **maps, "classes_are": "gold" if by_gold else "predicted"}


def _labels(
    readings: Sequence[TokenReading], labels: Sequence[str] | None, reader: TokenReader | None
) -> tuple[str, ...]:
    if labels is not None:
        return tuple(labels)
    return reader.labels if reader else tuple(str(i) for i in range(len(readings[0].probabilities)))


def _tokens(readings: Sequence[TokenReading], seed: int, resamples: int) -> Tokens:
    counts_NC = np.array([[len(reading.left), *reading.alive()] for reading in readings], np.float64)
    sums_RC = resampled_sums(counts_NC, seed=seed, resamples=resamples)
    shares, shares_RL = _alive(counts_NC.sum(axis=0)), _alive(sums_RC)
    return Tokens(
        read=int(counts_NC[:, 0].sum()),
        cut=sum(reading.cut for reading in readings),
        texts_cut=sum(reading.cut > 0 for reading in readings),
        alive=tuple(estimate(float(share), shares_RL[:, i], len(readings)) for i, share in enumerate(shares)),
    )


def _alive(totals: Floats) -> Floats:
    return quotient(totals[..., 1:], totals[..., :1])


def _accuracy(known: Sequence[TokenReading], seed: int, resamples: int) -> Estimate:
    if not known:
        return Estimate(None)
    counts_NC = np.array([[reading.predicted == reading.gold, 1] for reading in known], np.float64)
    sums_RC = resampled_sums(counts_NC, seed=seed, resamples=resamples)
    return estimate(float(counts_NC[:, 0].mean()), quotient(sums_RC[:, 0], sums_RC[:, 1]), len(known))
