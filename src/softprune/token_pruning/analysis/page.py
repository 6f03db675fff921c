"""What a pruned model keeps, from one call: numbers, the kept words as CSV, figures and a page.

The page is one HTML file that needs nothing else, for a reader who didn't run the analysis.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from softprune.errors import SoftpruneError
from softprune.printable import printable
from softprune.runs import atomic_io
from softprune.statistics.bootstrap import RESAMPLES, Floats
from softprune.statistics.estimates import Estimate
from softprune.token_pruning.analysis import measure as findings
from softprune.token_pruning.analysis.clusters import Clusters
from softprune.token_pruning.analysis.keywords import KeywordRow, read_keywords
from softprune.token_pruning.analysis.measure import Analysis, all_findings, group_name, measure
from softprune.token_pruning.analysis.retention import Row
from softprune.token_pruning.analysis.words import Tagger, Word
from softprune.token_pruning.model import TokenModel, TokenTrace

try:
    from matplotlib.figure import Figure

    from softprune.report.mpl_style import SMALL, Plan, Theme, draw_pictures, dress, legend_below, new_figure
    from softprune.report.templating import environment
except ImportError as error:
    raise SoftpruneError("matplotlib and jinja2 for pages", str(error), "pip install 'softprune[report]'") from error

HEADER = ("text", "kept_text", "label", "predicted", "pos", "layers")
MARKERS = "osD^vPX*"
MORE_COLOURS = ("#cc79a7", "#e69f00", "#8c6bb1")  # beside the theme's own, for tasks of many classes


def analyse(
    traces: Sequence[TokenTrace],
    tagger: Tagger | None,
    out: Path | str,
    *,
    labels: Sequence[str] | None = None,
    keywords: Sequence[str] | str | Path | None = None,
    model: TokenModel | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    title: str = "",
) -> dict[str, Any]:
    """Analyse what was kept, and write `analysis.json`, `kept.csv`, `figures/` and `analysis.html` into a folder.

    Args:
        traces: of the texts; without states there is no map.
        tagger: None splits words at spaces and punctuation, and there are no parts of speech.
        labels: names of the classes; the model's by default.
        keywords: the user's own words, as a list or a file with one a line.
        model: that made the traces; it reads texts with keywords again, without them.

    Returns:
        What `analysis.json` holds. Shares are fractions.
    """
    words = None if keywords is None else read_keywords(keywords)  # before minutes of work
    analysis = measure(traces, tagger, labels, words, model, seed=seed, resamples=resamples)
    folder = Path(out)
    contents = {"schema": 1, **analysis.as_json(), "findings": all_findings(analysis)}
    write_csv(folder / "kept.csv", zip(analysis.table.traces, analysis.table.words, strict=True), analysis.labels)
    tables = {name: _shown_order(name, rows) for name, rows in analysis.tables.items()}
    page = (
        environment(Path(__file__).parent / "templates")
        .get_template("analysis.html.j2")
        .render(
            title=printable(title) if title else "What was kept",
            a=analysis,
            tables=tables,
            findings=findings,
            pictures={picture.plan.name: picture for picture in draw_pictures(plans(analysis), folder / "figures")},
            verdict=verdict,
        )
    )
    atomic_io.write_bytes(folder / "analysis.html", page.encode("utf-8", errors="replace"))
    text = atomic_io.json_text(contents, indent=1) + "\n"
    atomic_io.write_bytes(folder / "analysis.json", text.encode(errors="replace"))
    return contents


def write_csv(path: Path, rows: Iterable[tuple[TokenTrace, Sequence[Word]]], labels: Sequence[str]) -> None:
    """Write the kept words, one text a row: the form in which studies of pruned tokens publish them.

    `pos` has a tag for each kept word (none without a tagger); `layers` is JSON, `[[word, layer], ...]` of all words
    read, with the number of layers for a word that was kept to the end.
    """
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(HEADER)
    for trace, words in rows:
        kept = [word for word in words if word.left == trace.layers]
        writer.writerow(
            (
                trace.text,
                " ".join(word.text for word in kept),
                "" if trace.gold is None else labels[trace.gold],
                labels[trace.predicted],
                " ".join(word.mark.pos for word in kept).strip(),
                json.dumps([[word.text, word.left] for word in words], ensure_ascii=False),
            )
        )
    # "replace": half a surrogate pair, which JSON data may hold, has no UTF-8.
    atomic_io.write_bytes(path, buffer.getvalue().encode("utf-8", errors="replace"))


def verdict(row: Row | KeywordRow) -> str:
    """A row's difference in a word; bracketed where only the interval says so."""
    if not row.difference.excludes_zero or row.difference.value is None:
        return "–"
    word = "▲ more" if row.difference.value > 0 else "▼ less"
    return word if row.clear else f"({word})"


def _shown_order(table: str, rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """Parts of speech from the most kept one down; the other tables have an order of their own."""
    return tuple(sorted(rows, key=lambda row: -(row.kept.value or 0))) if table == "pos" else rows


def plans(analysis: Analysis) -> list[Plan]:
    """The figures, those too for which there are no numbers."""
    by_pos = _shown_order("pos", analysis.tables.get("pos", ()))
    names = [group_name("pos", row) for row in by_pos]
    tagger = f" {analysis.tagger.accuracy_in_words}." if analysis.tagger else ""
    shown = analysis.clusters
    classes = "true class" if analysis.by_gold else "predicted class"
    return [
        Plan(
            "tokens_by_layer",
            "Tokens left",
            "Share of all tokens, special ones too, that are left after each layer's pruning. Layer 0 never prunes.",
            partial(layer_steps, analysis.tokens.alive),
        ),
        Plan(
            "retention_by_pos",
            "Words kept, by part of speech",
            "Bars with 95% intervals; the orange tick is what random dropping in the same texts keeps. Blue bars can "
            f"be distinguished from it, gray ones can't.{tagger}",
            partial(group_bars, by_pos, names) if by_pos else None,
            "parts of speech",
        ),
        Plan(
            "retention_by_place",
            "Words kept along the text",
            "Each text is cut into tenths by its words; the dashed line is what random dropping keeps.",
            partial(place_line, analysis.tables["place"]),
        ),
        Plan(
            "state_map",
            "Texts by the states of their kept tokens",
            f"Each point is a text: the mean last hidden state of its kept tokens, by {classes}. t-SNE keeps "
            "neighbours, not distances: the size of gaps and of groups in it means nothing.",
            partial(state_map, shown, analysis.labels) if shown else None,
            "states of at least ten texts of two classes",
        ),
    ]


def group_bars(rows: Sequence[Row], names: Sequence[str], theme: Theme) -> Figure:
    """Share kept of each group with its interval; a tick marks random dropping."""
    figure = new_figure(theme, height=1.3 + 0.27 * len(rows))
    axes = figure.subplots()
    places: Floats = np.arange(len(rows), dtype=np.float64)[::-1]
    values = np.array([100 * (row.kept.value or 0) for row in rows])
    colours = [theme.kept if row.clear else theme.pruned for row in rows]
    axes.barh(places, values, height=0.68, color=colours)
    for value, place, row in zip(values, places, rows, strict=True):
        if row.kept.interval is not None:
            low, high = (100 * end for end in row.kept.interval)
            reach = [[max(0.0, value - low)], [max(0.0, high - value)]]
            axes.errorbar(value, place, xerr=reach, color=theme.ink, capsize=2.5, linewidth=1.1)
    baselines = [100 * (row.baseline or 0) for row in rows]
    axes.plot(baselines, places, "|", color=theme.control, markersize=13, markeredgewidth=2.4, label="random dropping")
    axes.set_yticks(places, [printable(name) for name in names], fontsize=SMALL)
    axes.set_xlim(0, 104)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    dress(axes, theme, "words kept to the end (%)", "", grid="x")
    legend_below(figure, axes, theme)
    return figure


def place_line(rows: Sequence[Row], theme: Theme) -> Figure:
    """Share kept along the text, in tenths, beside random dropping."""
    figure = new_figure(theme, height=2.9)
    axes = figure.subplots()
    places = np.arange(len(rows))
    values = np.array([100 * (row.kept.value or 0) for row in rows])
    low, high = (100 * np.array([row.kept.interval or (np.nan, np.nan) for row in rows])).T
    axes.fill_between(places, low, high, color=theme.kept, alpha=0.22, linewidth=0, label="95% interval")
    axes.plot(places, values, "o-", color=theme.kept, linewidth=1.8, markersize=4.5, label="kept")
    baselines = [100 * (row.baseline or 0) for row in rows]
    axes.plot(places, baselines, "--", color=theme.control, linewidth=1.6, label="random dropping")
    axes.set_xticks(places, [row.name for row in rows], fontsize=SMALL, rotation=35, ha="right")
    axes.set_ylim(0, min(104, 1.2 * max(*values, *baselines, 1, *high[np.isfinite(high)])))
    dress(axes, theme, "place in the text", "words kept (%)")
    legend_below(figure, axes, theme)
    return figure


def layer_steps(alive_L: Sequence[Estimate], theme: Theme) -> Figure:
    """Share of tokens left after each layer."""
    figure = new_figure(theme, height=2.6)
    axes = figure.subplots()
    values = np.array([100 * (share.value or 0) for share in alive_L])
    axes.bar(np.arange(len(values)), values, width=0.68, color=theme.kept)
    for layer, value in enumerate(values):
        axes.annotate(f"{value:.0f}", (layer, value), ha="center", va="bottom", fontsize=SMALL, color=theme.ink)
    axes.set_xticks(np.arange(len(values)), [str(layer) for layer in range(len(values))])
    axes.set_ylim(0, 112)
    axes.set_yticks([0, 25, 50, 75, 100])
    dress(axes, theme, "layer", "tokens left (%)")
    return figure


def state_map(found: Clusters, labels: Sequence[str], theme: Theme) -> Figure:
    """Texts by the states of their kept tokens, PCA beside t-SNE; a class has a colour and a shape."""
    figure = new_figure(theme, height=3.6)
    left, right = figure.subplots(1, 2)
    colours = (theme.kept, theme.control, theme.tuned, *MORE_COLOURS, theme.front, theme.other)
    class_N = np.array(found.classes)
    size = float(np.clip(6000 / len(class_N), 8, 26))
    for axes, place_N2, title in ((left, found.pca, "PCA"), (right, found.tsne, "t-SNE")):
        for rank, place in enumerate(np.unique(class_N)):
            own: Floats = place_N2[class_N == place]
            marker, colour = MARKERS[rank % len(MARKERS)], colours[rank % len(colours)]
            axes.scatter(own[:, 0], own[:, 1], s=size, marker=marker, color=colour, alpha=0.7, linewidths=0)
            if axes is left:  # a point of its own for the legend, where those of the map are too small to tell apart
                label = printable(labels[place])
                if label.startswith("_"):  # matplotlib leaves such names out of the legend
                    label = f" {label}"
                axes.scatter([], [], s=32, marker=marker, color=colour, label=label)
        dress(axes, theme, "", "", title=title, grid=None)
        axes.set_xticks([])
        axes.set_yticks([])
    left.set_xlabel(f"{100 * found.explained[0]:.0f}% of the variance", color=theme.ink, fontsize=SMALL)
    left.set_ylabel(f"{100 * found.explained[1]:.0f}% of the variance", color=theme.ink, fontsize=SMALL)
    right.set_xlabel(f"perplexity {found.perplexity:.0f}; axes have no unit", color=theme.ink, fontsize=SMALL)
    legend_below(figure, left, theme, columns=4)
    return figure
