"""Everything that an analysis of a pruned model measures, and what each table shows in a sentence or two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from softprune.errors import SoftpruneError
from softprune.report.formatting import interval, number, p_value, percent, points
from softprune.statistics.bootstrap import RESAMPLES, resampled_sums
from softprune.statistics.estimates import Estimate, estimate, quotient
from softprune.token_pruning.analysis.clusters import Clusters, map_states
from softprune.token_pruning.analysis.keywords import KeywordReport, count_correct, keyword_report
from softprune.token_pruning.analysis.retention import ClassWord, Row, retention, typical_words
from softprune.token_pruning.analysis.words import Tagger, WordTable, word_table
from softprune.token_pruning.model import TokenModel, TokenTrace

MOST = 4  # groups that a sentence names
TITLES = {
    "pos": "By part of speech",
    "stop": "Stop words",
    "entity": "Named entities",
    "place": "By place in the text, in tenths",
    "frequency": "By frequency in these texts",
    "class": "By class",
}
FEW = 20  # texts; with fewer, bootstrap intervals are too narrow


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Tokens of all texts, special ones too."""

    read: int
    cut: int  # by truncation
    texts_cut: int
    alive: tuple[Estimate, ...]  # per layer, the share left after its pruning


@dataclass(frozen=True, slots=True)
class Analysis:
    """Everything that the page shows."""

    table: WordTable
    labels: tuple[str, ...]
    tagger: Tagger | None
    tokens: TokenCounts
    accuracy: Estimate  # on the texts whose class is known
    known: int  # how many those are
    overall: Row  # all words
    tables: dict[str, tuple[Row, ...]]  # by name of the grouping: pos, stop, entity, place, frequency, class
    typical: dict[str, list[ClassWord]]  # by class
    keywords: KeywordReport | None
    clusters: Clusters | None  # None where there was nothing to map
    by_gold: bool  # whether the map's classes are the true ones; else those predicted
    seed: int  # of everything random

    def as_json(self) -> dict[str, Any]:
        """What `analysis.json` holds of it: plain values only."""
        tagger = clusters = None
        if self.tagger:
            tagger = {name: getattr(self.tagger, name) for name in ("name", "accuracy", "measured_on", "entities")}
        if self.clusters:
            clusters = asdict(self.clusters) | {
                "pca": self.clusters.pca.tolist(),
                "tsne": self.clusters.tsne.tolist(),
                "classes_are": "gold" if self.by_gold else "predicted",
            }
        return {
            "seed": self.seed,
            "texts": len(self.table.traces),
            "layers": self.table.layers,
            "labels": list(self.labels),
            "accuracy": {**asdict(self.accuracy), "texts": self.known},
            "tokens": asdict(self.tokens),
            "tagger": tagger,
            "overall": asdict(self.overall),
            "retention": {name: list(map(asdict, rows)) for name, rows in self.tables.items()},
            "typical_words": {name: list(map(asdict, words)) for name, words in self.typical.items()},
            "keywords": asdict(self.keywords) if self.keywords else None,
            "clusters": clusters,
        }


def measure(
    traces: Sequence[TokenTrace],
    tagger: Tagger | None,
    labels: Sequence[str] | None = None,
    keywords: Sequence[str] | None = None,
    model: TokenModel | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Analysis:
    """Measure what was kept; arguments as of `analysis.page.analyse`, keywords as `read_keywords` gives them."""
    if not traces:
        raise SoftpruneError("at least one text", "none", "analyse a set that has some")
    if labels is None:
        labels = model.labels if model else [str(i) for i in range(len(traces[0].probabilities))]
    table = word_table(traces, tagger)

    counts_NC = np.array([[len(trace.left), *trace.alive()] for trace in traces], np.float64)
    total_C, drawn_RC = counts_NC.sum(axis=0), resampled_sums(counts_NC, seed=seed, resamples=resamples)
    share_L, drawn_RL = quotient(total_C[1:], total_C[:1]), quotient(drawn_RC[:, 1:], drawn_RC[:, :1])
    tokens = TokenCounts(
        read=int(total_C[0]),
        cut=sum(trace.cut for trace in traces),
        texts_cut=sum(trace.cut > 0 for trace in traces),
        alive=tuple(estimate(float(share), drawn_RL[:, i], len(traces)) for i, share in enumerate(share_L)),
    )

    known = [trace for trace in traces if trace.gold is not None]
    golds = [trace.gold for trace in traces if trace.gold is not None]
    accuracy = Estimate(None)
    if known:
        right_NC = count_correct(known)
        drawn_RC = resampled_sums(right_NC, seed=seed, resamples=resamples)
        right_R = quotient(drawn_RC[:, 0], drawn_RC[:, 1])
        accuracy = estimate(float(right_NC[:, 0].mean()), right_R, len(known))

    by_gold = len(known) == len(traces)
    classes = golds if by_gold else [trace.predicted for trace in traces]
    entities = tagger is not None and tagger.entities
    tables = retention(table, labels, entities=entities, seed=seed, resamples=resamples)
    return Analysis(
        table=table,
        labels=tuple(labels),
        tagger=tagger,
        tokens=tokens,
        accuracy=accuracy,
        known=len(known),
        overall=tables.pop("overall")[0],
        tables=tables,
        typical=typical_words(table, labels),
        keywords=keyword_report(table, keywords, model, seed=seed, resamples=resamples) if keywords else None,
        clusters=map_states([trace.state for trace in traces], classes, seed=seed),
        by_gold=by_gold,
        seed=seed,
    )


def all_findings(analysis: Analysis) -> dict[str, str]:
    """What every table of an analysis shows, by its name; the tagger's accuracy goes with its table."""
    sentences = {"overall": overall_finding(analysis.overall, len(analysis.table.traces))}
    for name, rows in analysis.tables.items():
        sentences[name] = f"{TITLES[name]}: {finding(name, rows)}"
    if analysis.tagger and "pos" in analysis.tables:
        sentences["pos"] += f" ({analysis.tagger.accuracy_in_words}.)"
    if analysis.keywords:
        sentences["keywords"] = " ".join(keyword_finding(analysis.keywords))
    if analysis.clusters:
        sentences["clusters"] = cluster_finding(analysis.clusters)
    return sentences


def group_name(table: str, row: Row) -> str:
    """A row's group for people: a part of speech in words."""
    if table != "pos":
        return row.name
    from spacy.glossary import GLOSSARY  # it is installed where a tagger was used

    return f"{GLOSSARY.get(row.name, row.name)} ({row.name})"


def finding(table: str, rows: Sequence[Row]) -> str:
    """What one retention table shows."""
    against = "random dropping at the rate of all texts" if table == "class" else "random dropping"

    def difference(row: Row) -> float:
        return row.difference.value or 0.0

    above = sorted((row for row in rows if row.clear and difference(row) > 0), key=difference, reverse=True)
    below = sorted((row for row in rows if row.clear and difference(row) < 0), key=difference)
    if not above and not below:
        return f"This table shows no preference: no group can be distinguished from {against}."
    sentences = []
    for how, clear in (("more", above), ("less", below)):
        if clear:
            names = []
            for row in clear[:MOST]:
                names.append(f"{group_name(table, row)}, {percent(row.kept.value)}% against {percent(row.baseline)}%")
            if len(clear) > MOST:
                names.append(f"and {len(clear) - MOST} more")
            sentences.append(f"Kept {how} often than {against}: {'; '.join(names)}.")
    rest = len(rows) - len(above) - len(below)
    if rest:
        others = "group" if rest == 1 else f"{rest} groups"
        sentences.append(f"The other {others} can't be distinguished from it.")
    return " ".join(sentences)


def overall_finding(row: Row, texts: int) -> str:
    """How much is kept at all."""
    text = (
        f"{percent(row.kept.value)}% of {number(row.words)} words are kept to the end "
        f"(95% interval {interval(row.kept.interval)})."
    )
    text += " Intervals on this page cover the sampling of texts, not of training seeds: another seed may differ."
    if texts < FEW:
        text += f" With only {texts} texts the intervals on this page are too narrow to be relied on."
    return text


def cluster_finding(clusters: Clusters) -> str:
    """Whether states cluster by class, and whether the map may be believed."""
    states = next(s for s in clusters.silhouettes if s.space == "states")
    figures = f"silhouette {states.value:.2f}; 95% of shuffled classes stay below {states.chance:.2f}"
    if states.p >= 0.05:
        return f"The states don't cluster by class more than by chance ({figures}): ignore what the map seems to show."
    how = "clearly" if states.value >= 0.25 else "weakly"
    return (
        f"The states of the kept tokens cluster {how} by class ({figures}; p {p_value(states.p)}). That is what the "
        "classifier was trained for; pruning is not the cause."
    )


def keyword_finding(report: KeywordReport) -> list[str]:
    """What keywords are worth to the model."""
    row, difference = report.overall, report.overall.difference
    if not row.words:
        return ["None of the keywords occurs in these texts."]
    verdict = "which can't be distinguished from random dropping"
    if row.clear:
        more = "more" if (difference.value or 0) > 0 else "less"
        verdict = f"{more} than random dropping keeps"
    interval_shown = "no interval: too few texts"
    if difference.interval is not None:
        interval_shown = f"95% interval {points(difference.low)} to {points(difference.high)}"
    sentences = [
        f"Keywords are kept {percent(row.kept.value)}% of the time, {verdict} "
        f"({percent(row.baseline)}%; difference {points(difference.value)} points, {interval_shown})."
    ]
    accuracy = report.accuracy
    if accuracy and accuracy.effect and accuracy.beyond_random:
        effect, beyond = accuracy.effect, accuracy.beyond_random
        doubt = ", which can't be distinguished from no change" if effect.low <= 0 <= effect.high else ""
        sentences.append(
            f"Forced out at the first layer that prunes, they change accuracy by {points(effect.value)} points "
            f"(95% interval {points(effect.low)} to {points(effect.high)}){doubt}. Against as many other tokens forced "
            f"out at random: {points(beyond.value)} points ({points(beyond.low)} to {points(beyond.high)})."
        )
    return sentences
