"""Everything that an analysis of a pruned model measures, without its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from softprune.data.metrics import with_ones
from softprune.errors import SoftpruneError
from softprune.statistics.bootstrap import RESAMPLES, resampled_sums
from softprune.statistics.estimates import Estimate, estimate, quotient
from softprune.token_pruning.analysis.clusters import Clusters, map_states
from softprune.token_pruning.analysis.keywords import KeywordReport, keyword_report
from softprune.token_pruning.analysis.retention import Retention, retention
from softprune.token_pruning.analysis.word_table import WordTable, word_table
from softprune.token_pruning.analysis.words import Tagger
from softprune.token_pruning.analysis.words_per_class import ClassWord, typical_words
from softprune.token_pruning.model import TokenModel, TokenTrace


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
    retention: Retention
    typical: dict[str, list[ClassWord]]  # by class
    keywords: KeywordReport | None
    clusters: Clusters | None  # None where there was nothing to map
    by_gold: bool  # whether the map's classes are the true ones; else those predicted
    seed: int  # of everything random

    def as_json(self) -> dict[str, Any]:
        """What `analysis.json` holds of it: plain values only."""
        tagger, clusters = None, None
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
            "overall": asdict(self.retention.overall),
            "retention": {name: list(map(asdict, rows)) for name, rows in self.retention.tables.items()},
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
    """Measure what was kept; arguments as of `analysis.run.analyse`, keywords as `read_keywords` gives them."""
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
        right_NC = with_ones([trace.predicted == trace.gold for trace in known])
        drawn_RC = resampled_sums(right_NC, seed=seed, resamples=resamples)
        right_R = quotient(drawn_RC[:, 0], drawn_RC[:, 1])
        accuracy = estimate(float(right_NC[:, 0].mean()), right_R, len(known))

    by_gold = len(known) == len(traces)
    classes = golds if by_gold else [trace.predicted for trace in traces]
    entities = tagger is not None and tagger.entities
    return Analysis(
        table=table,
        labels=tuple(labels),
        tagger=tagger,
        tokens=tokens,
        accuracy=accuracy,
        known=len(known),
        retention=retention(table, labels, entities=entities, seed=seed, resamples=resamples),
        typical=typical_words(table, labels),
        keywords=keyword_report(table, keywords, model, seed=seed, resamples=resamples) if keywords else None,
        clusters=map_states([trace.state for trace in traces], classes, seed=seed),
        by_gold=by_gold,
        seed=seed,
    )
