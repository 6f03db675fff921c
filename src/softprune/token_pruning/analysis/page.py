"""The page of an analysis: one HTML file that needs nothing else, for a reader who didn't run it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from softprune.errors import SoftpruneError
from softprune.printable import printable
from softprune.runs import atomic_io
from softprune.token_pruning.analysis import findings
from softprune.token_pruning.analysis.keywords import KeywordRow
from softprune.token_pruning.analysis.measure import Analysis
from softprune.token_pruning.analysis.retention import Row

try:
    from softprune.report.pictures import Picture, Plan, draw_pictures
    from softprune.report.templating import environment
    from softprune.token_pruning.analysis import figures
except ImportError as error:
    raise SoftpruneError("matplotlib and jinja2 for pages", str(error), "pip install 'softprune[report]'") from error


def write_page(analysis: Analysis, folder: Path, title: str = "") -> Path:
    """Write `figures/` (PNG and SVG) and `analysis.html`."""
    pictures = {picture.plan.name: picture for picture in draw_pictures(plans(analysis), folder / "figures")}
    page = folder / "analysis.html"
    atomic_io.write_bytes(page, html(analysis, pictures, title).encode("utf-8", errors="replace"))
    return page


def plans(analysis: Analysis) -> list[Plan]:
    """The figures, those too for which there are no numbers."""
    return [_by_layer(analysis), _by_pos(analysis), _by_place(analysis), _map(analysis)]


def html(analysis: Analysis, pictures: dict[str, Picture], title: str = "") -> str:
    """The page's text."""
    tables = {name: shown_order(name, rows) for name, rows in analysis.retention.tables.items()}
    template = environment(Path(__file__).parent / "templates").get_template("analysis.html.j2")
    return template.render(
        title=printable(title) if title else "What was kept",
        a=analysis,
        overall=analysis.retention.overall,
        tables=tables,
        titles=findings.TITLES,
        findings={name: findings.finding(name, rows) for name, rows in tables.items()},
        named=findings.named,
        overall_finding=findings.overall_finding(analysis.retention.overall, len(analysis.table.traces)),
        cluster_finding=findings.cluster_finding(analysis.clusters) if analysis.clusters else None,
        keyword_findings=findings.keyword_finding(analysis.keywords) if analysis.keywords else [],
        pictures=pictures,
        pos_note=analysis.tagger.accuracy_in_words if analysis.tagger else None,
        verdict=verdict,
    )


def shown_order(table: str, rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """Parts of speech from the most kept one down; the other tables have an order of their own."""
    return tuple(sorted(rows, key=lambda row: -(row.kept.value or 0))) if table == "pos" else rows


def verdict(row: Row | KeywordRow) -> str:
    """A row's difference in a word; bracketed where only the interval says so."""
    if not row.difference.excludes_zero or row.difference.value is None:
        return "–"
    word = "▲ more" if row.difference.value > 0 else "▼ less"
    return word if row.clear else f"({word})"


def _by_pos(analysis: Analysis) -> Plan:
    rows = shown_order("pos", analysis.retention.tables.get("pos", ()))
    names = [findings.named("pos", row) for row in rows]
    return Plan(
        "retention_by_pos",
        "Words kept, by part of speech",
        "Bars with 95% intervals; the orange tick is what random dropping in the same texts keeps. Blue bars can be "
        f"told from it, gray ones can't.{f' {analysis.tagger.accuracy_in_words}.' if analysis.tagger else ''}",
        partial(figures.group_bars, rows, names) if rows else None,
        "" if rows else "parts of speech",
    )


def _by_place(analysis: Analysis) -> Plan:
    rows = analysis.retention.tables["place"]
    caption = "Each text is cut into tenths by its words; the dashed line is what random dropping keeps."
    return Plan("retention_by_place", "Words kept along the text", caption, partial(figures.place_line, rows))


def _by_layer(analysis: Analysis) -> Plan:
    caption = "Share of all tokens, special ones too, that are left after each layer's pruning. Layer 0 never prunes."
    return Plan("tokens_by_layer", "Tokens left", caption, partial(figures.layer_steps, analysis.tokens.alive))


def _map(analysis: Analysis) -> Plan:
    shown, classes = analysis.clusters, "true class" if analysis.by_gold else "predicted class"
    return Plan(
        "state_map",
        "Texts by the states of their kept tokens",
        f"Each point is a text: the mean last hidden state of its kept tokens, by {classes}. t-SNE keeps neighbours, "
        "not distances: the size of gaps and of groups in it means nothing.",
        partial(figures.state_map, shown, analysis.labels) if shown else None,
        "" if shown else "states of at least ten texts of two classes",
    )
