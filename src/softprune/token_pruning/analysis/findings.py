"""What each table shows, in a sentence or two; also when it shows nothing."""

from __future__ import annotations

from collections.abc import Sequence

from softprune.report.formatting import interval, number, p_value, percent, points
from softprune.statistics.estimates import Estimate
from softprune.token_pruning.analysis.clusters import Clusters
from softprune.token_pruning.analysis.keywords import KeywordReport
from softprune.token_pruning.analysis.measure import Analysis
from softprune.token_pruning.analysis.retention import Row
from softprune.token_pruning.analysis.tagging import NAMES

MOST = 4
TITLES = {
    "pos": "By part of speech",
    "stop": "Stop words",
    "entity": "Named entities",
    "place": "By place in the text, in tenths",
    "frequency": "By frequency in these texts",
    "class": "By class",
}
ALONE = 20
"""With fewer texts than this, bootstrap intervals are too narrow."""


def all_findings(analysis: Analysis) -> dict[str, str]:
    """What every table of an analysis shows, by its name; the tagger's accuracy goes with its table."""
    tables = analysis.retention.tables
    sentences = {"overall": overall_finding(analysis.retention.overall, len(analysis.table.traces))}
    for name, rows in tables.items():
        sentences[name] = f"{TITLES[name]}: {finding(name, rows)}"
    if analysis.tagger and "pos" in tables:
        sentences["pos"] += f" ({analysis.tagger.accuracy_in_words}.)"
    if analysis.keywords:
        sentences["keywords"] = " ".join(keyword_finding(analysis.keywords))
    if analysis.clusters:
        sentences["clusters"] = cluster_finding(analysis.clusters)
    return sentences


def named(table: str, row: Row) -> str:
    """A row's group for people: a part of speech in words."""
    return f"{NAMES.get(row.name, row.name)} ({row.name})" if table == "pos" else row.name


def finding(table: str, rows: Sequence[Row]) -> str:
    """What one retention table shows."""
    against = "random dropping at the rate of all texts" if table == "class" else "random dropping"
    above = sorted((row for row in rows if row.clear and _difference(row) > 0), key=_difference, reverse=True)
    below = sorted((row for row in rows if row.clear and _difference(row) < 0), key=_difference)
    if not above and not below:
        return f"This table shows no preference: no group can be told from {against}."
    sentences = []
    if above:
        sentences.append(f"Kept more often than {against}: {_listed(table, above)}.")
    if below:
        sentences.append(f"Kept less often than {against}: {_listed(table, below)}.")
    rest = len(rows) - len(above) - len(below)
    if rest:
        sentences.append(f"The other {'group' if rest == 1 else f'{rest} groups'} can't be told from it.")
    return " ".join(sentences)


def overall_finding(row: Row, texts: int) -> str:
    """How much is kept at all."""
    text = (
        f"{percent(row.kept.value)}% of {number(row.words)} words are kept to the end "
        f"(95% interval {interval(row.kept.interval)})."
    )
    text += " Intervals on this page cover the sampling of texts, not of training seeds: another seed may differ."
    if texts < ALONE:
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
    row = report.overall
    if not row.words:
        return ["None of the keywords occurs in these texts."]
    verdict = "which can't be told from random dropping"
    if row.clear:
        verdict = f"{'more' if (row.difference.value or 0) > 0 else 'less'} than random dropping keeps"
    sentences = [
        f"Keywords are kept {percent(row.kept.value)}% of the time, {verdict} "
        f"({percent(row.baseline)}%; difference {points(row.difference.value)} points, "
        f"{_points(row.difference)})."
    ]
    accuracy = report.accuracy
    if accuracy and accuracy.effect and accuracy.beyond_random:
        effect, beyond = accuracy.effect, accuracy.beyond_random
        doubt = "" if not effect.low <= 0 <= effect.high else ", which can't be told from no change"
        sentences.append(
            f"Forced out at the first layer that prunes, they change accuracy by {points(effect.value)} points "
            f"(95% interval {points(effect.low)} to {points(effect.high)}){doubt}. Against as many other tokens forced "
            f"out at random: {points(beyond.value)} points ({points(beyond.low)} to {points(beyond.high)})."
        )
    return sentences


def _points(difference: Estimate) -> str:
    if difference.interval is None:
        return "no interval: too few texts"
    return f"95% interval {points(difference.low)} to {points(difference.high)}"


def _difference(row: Row) -> float:
    return row.difference.value or 0.0


def _listed(table: str, rows: Sequence[Row]) -> str:
    shown = [f"{named(table, row)}, {percent(row.kept.value)}% against {percent(row.baseline)}%" for row in rows[:MOST]]
    more = [f"and {len(rows) - MOST} more"] if len(rows) > MOST else []
    return "; ".join(shown + more)
