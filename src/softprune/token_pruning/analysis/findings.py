"""What a table shows, in a sentence or two; and when it shows nothing, that."""

from __future__ import annotations

from collections.abc import Sequence

from softprune.report.formatting import interval, number, p_value, percent, points
from softprune.statistics.estimates import Estimate
from softprune.token_pruning.analysis.clusters import Clusters
from softprune.token_pruning.analysis.keywords import KeywordReport
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
"""Fewer texts than this, and a bootstrap over texts makes its intervals too narrow."""


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
    told = [
        f"Kept {word} often than {against}: {_listed(table, found)}."
        for word, found in (("more", above), ("less", below))
        if found
    ]
    rest = len(rows) - len(above) - len(below)
    if rest:
        told.append(f"The other {'group' if rest == 1 else f'{rest} groups'} can't be told from it.")
    return " ".join(told)


def overall_finding(row: Row, texts: int) -> str:
    """How much is kept at all."""
    told = (
        f"{percent(row.kept.value)}% of {number(row.words)} words are kept to the end "
        f"(95% interval {interval(row.kept.interval)})."
    )
    told += " Intervals on this page are over other texts, for this very trained model: another seed's may differ."
    if texts < ALONE:
        told += f" With only {texts} texts the intervals on this page are too narrow to be relied on."
    return told


def cluster_finding(found: Clusters) -> str:
    """Whether classes part in the states, and whether the map says the same."""
    states = next(s for s in found.silhouettes if s.space == "states")
    told = f"silhouette {states.value:.2f}; classes dealt out at random stay below {states.chance:.2f} 95 times in 100"
    if states.p >= 0.05:
        return f"The states don't part by class more than by chance ({told}): what the map seems to show isn't there."
    how = "clearly" if states.value >= 0.25 else "weakly"
    return (
        f"The states of the kept tokens part {how} by class ({told}; p {p_value(states.p)}). That is what the "
        "classifier was trained for; it isn't pruning's doing."
    )


def keyword_finding(report: KeywordReport) -> list[str]:
    """What keywords are worth to the model."""
    row, told = report.overall, []
    if not row.words:
        return ["None of the keywords occurs in these texts."]
    if not row.clear:
        verdict = "which can't be told from random dropping"
    else:
        verdict = f"{'more' if (row.difference.value or 0) > 0 else 'less'} than random dropping keeps"
    told.append(
        f"Keywords are kept {percent(row.kept.value)}% of the time, {verdict} "
        f"({percent(row.baseline)}%; difference {points(row.difference.value)} points, "
        f"{_points(row.difference)})."
    )
    accuracy = report.accuracy
    if accuracy and accuracy.effect and accuracy.beyond_random:
        effect, beyond = accuracy.effect, accuracy.beyond_random
        sure = "" if not effect.low <= 0 <= effect.high else ", which can't be told from no change"
        told.append(
            f"Forced out at the first layer that prunes, they change accuracy by {points(effect.value)} points "
            f"(95% interval {points(effect.low)} to {points(effect.high)}){sure}. Against as many other tokens forced "
            f"out at random: {points(beyond.value)} points ({points(beyond.low)} to {points(beyond.high)})."
        )
    return told


def _points(found: Estimate) -> str:
    if found.interval is None:
        return "no interval: too few texts"
    return f"95% interval {points(found.low)} to {points(found.high)}"


def _difference(row: Row) -> float:
    return row.difference.value or 0.0


def _listed(table: str, rows: Sequence[Row]) -> str:
    shown = [f"{named(table, row)}, {percent(row.kept.value)}% against {percent(row.baseline)}%" for row in rows[:MOST]]
    more = [f"and {len(rows) - MOST} more"] if len(rows) > MOST else []
    return "; ".join(shown + more)
