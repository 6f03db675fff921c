"""What each table shows, in a sentence or two; also when it shows nothing."""

from __future__ import annotations

from collections.abc import Sequence

from softprune.report.formatting import interval, number, p_value, percent, points
from softprune.token_pruning.analysis.clusters import Clusters
from softprune.token_pruning.analysis.keywords import KeywordReport
from softprune.token_pruning.analysis.measure import Analysis
from softprune.token_pruning.analysis.retention import Row
from softprune.token_pruning.analysis.words import NAMES

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


def group_name(table: str, row: Row) -> str:
    """A row's group for people: a part of speech in words."""
    return f"{NAMES.get(row.name, row.name)} ({row.name})" if table == "pos" else row.name


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
