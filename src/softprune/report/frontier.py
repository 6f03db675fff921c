"""Scores against what they cost: a panel for each cost, and in each the contenders that no other one dominates.

A mark describes scores as they were measured. It is no verdict: where intervals overlap, figure and caption say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import ceil, floor, log10
from typing import Final

from matplotlib.ticker import MaxNLocator

from softprune.report import formatting
from softprune.report.formatting import NOT_APPLICABLE, NOT_MEASURED
from softprune.report.interactive import Cell, Numbers
from softprune.report.label_places import Box, place_labels
from softprune.report.plotting import Facet, Series
from softprune.statistics.frontier import Ends, non_dominated, overlapping_cheaper

COSTS: Final = {"stored": "stored numbers", "tokens": "prompt tokens read", "seconds": "training seconds"}
"""Names of the costs, in the order of their panels."""
RINGED, CLEAR = "non-dominated", "… above all cheaper intervals"
MEANING: Final = (
    "A ring marks what is non-dominated by its score alone: no other one has a higher score at the same or lower cost, "
    "or as high a one at a lower cost. Horizontal lines cost nothing, and count too. A second ring marks an interval "
    "that lies above those of everything that costs no more."
)
OVERLAP: Final = "Where intervals overlap, a higher cost isn't shown to buy a higher score: here"
_LOGARITHMIC: Final = ("stored", "seconds")  # many methods read no prompt token at all: that axis is linear
_APART: Final = 0.022  # of an axis: points that are nearer would lie on each other
_LEAST: Final = 0.5  # of the axis of scores: what points with their intervals take up at least


@dataclass(frozen=True, slots=True)
class Contender:
    """A method, or a prompt, with its score on `report` and what it costs."""

    name: str  # unique
    label: str  # beside its point: short
    colour: str  # a field of `Theme`
    marker: str  # one of `plotting.MARKERS`; empty for what never costs anything
    score: float  # as it is drawn: percent, or minus a loss
    interval: Ends
    costs: Mapping[str, float | None]  # by the keys of `COSTS`; None where it wasn't measured
    line: str = "solid"  # the dashes of its horizontal line, where it costs nothing
    size: float = 7.0  # of the marker, in points
    group: str = ""  # in the legend, where many share an entry; else the name is

    def is_point(self, cost: str) -> bool:
        """Whether it has a place on a cost's axis; what costs nothing has none on a logarithmic one."""
        price = self.costs.get(cost)
        return bool(self.marker) and price is not None and (price > 0 or cost not in _LOGARITHMIC)


@dataclass(frozen=True, slots=True)
class Mark:
    """A contender that no other one dominates by a cost."""

    contender: Contender
    # Those that cost no more, and whose intervals reach into its own; None where nobody can know.
    overlapping: list[Contender] | None


@dataclass(frozen=True, slots=True)
class Frontier:
    """Contenders in panels, in a table and in words."""

    contenders: Sequence[Contender]
    score: str  # what scores are, as axis and table say it
    digits: int  # of a score behind the point

    def write(self, score: float) -> str:
        """A score as it is shown."""
        return f"{score:.{self.digits}f}"

    def marks(self, cost: str) -> list[Mark]:
        """Those that no other one dominates, the cheapest first; what has no such cost doesn't take part."""
        known = [(price, each) for each in self.contenders if (price := each.costs.get(cost)) is not None]
        known.sort(key=lambda pair: pair[0])
        prices, intervals = [price for price, _ in known], [each.interval for _, each in known]
        marks = []
        for place, kept in enumerate(non_dominated([(price, each.score) for price, each in known])):
            if kept:
                found = overlapping_cheaper(place, prices, intervals)
                overlapping = None if found is None else [known[other][1] for other in found]
                marks.append(Mark(known[place][1], overlapping))
        return marks

    def panels(self) -> list[Facet]:
        """One for each cost by which something is a point."""
        measured = []
        for cost in COSTS:
            if any(each.is_point(cost) for each in self.contenders):
                measured.append(cost)
        return [_make_panel(self, cost) for cost in measured]

    def caption(self) -> str:
        """What the marks mean, and where intervals overlap."""
        parts = []
        for cost, name in COSTS.items():
            unsure = [mark.contender for mark in self.marks(cost) if mark.overlapping]
            if any(each.is_point(cost) for each in unsure):
                parts.append(f"by {name} for {', '.join(each.label for each in unsure if each.is_point(cost))}")
        return f"{MEANING} {OVERLAP} {'; '.join(parts)}." if parts else MEANING

    def numbers(self) -> Numbers:
        """The table: costs, by which of them a contender is non-dominated, and with which cheaper ones it overlaps."""
        marks = [(name, mark) for cost, name in COSTS.items() for mark in self.marks(cost)]
        headings = ("", self.score, "95% interval", *COSTS.values(), "non-dominated by", "overlaps with cheaper")
        rows: list[tuple[Cell, ...]] = []
        for each in self.contenders:
            own = [(name, mark) for name, mark in marks if mark.contender is each]
            overlaps = dict.fromkeys(other.label for _, mark in own for other in mark.overlapping or ())
            texts = [", ".join(parts) or NOT_APPLICABLE for parts in ([name for name, _ in own], overlaps)]
            interval = NOT_MEASURED if each.interval is None else " to ".join(map(self.write, each.interval))
            rows.append((each.name, self.write(each.score), interval, *map(each.costs.get, COSTS), *texts))
        return Numbers(headings, tuple(rows))


# --- a panel ---


@dataclass(frozen=True, slots=True)
class Axis:
    """From one end to the other; places on it are shares, 0 to 1."""

    low: float
    high: float
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Where a value lies."""
        low, high, at = map(log10, (self.low, self.high, value)) if self.logarithmic else (self.low, self.high, value)
        return (at - low) / (high - low)

    def value(self, share: float) -> float:
        """What lies at a place."""
        if self.logarithmic:
            return float(self.low * (self.high / self.low) ** share)
        return self.low + share * (self.high - self.low)


def _make_panel(frontier: Frontier, cost: str) -> Facet:
    points = [each for each in frontier.contenders if each.is_point(cost)]
    levels = [each for each in frontier.contenders if each.costs.get(cost) == 0 and not each.is_point(cost)]
    marks = [mark for mark in frontier.marks(cost) if mark.contender.is_point(cost)]
    prices = [each.costs[cost] or 0.0 for each in points]
    x_axis, y_axis = find_cost_axis(prices, cost in _LOGARITHMIC), find_score_axis(frontier.contenders)
    shares = spread_apart([x_axis.share(price) for price in prices])
    spots = {each.name: (share, y_axis.share(each.score)) for share, each in zip(shares, points, strict=True)}
    places = {name: x_axis.value(share) for name, (share, _) in spots.items()}
    taken = [Box(0, y_axis.share(each.score) - 0.01, 1, y_axis.share(each.score) + 0.01) for each in levels]
    for each in points:
        taken += _find_point_boxes(each, spots[each.name], y_axis)
    series = [
        *(_draw_level(frontier, each, x_axis, y_axis) for each in levels),
        *(_draw_point(frontier, each, places[each.name]) for each in points),
        *_draw_rings(frontier, marks, places, _place_names(marks, spots, taken)),
    ]
    ends = (x_axis.low, x_axis.high), (y_axis.low, y_axis.high)
    return Facet(
        "", COSTS[cost], frontier.score, ends[0], tuple(series), ends[1], x_axis.logarithmic, find_ticks(x_axis)
    )


def _place_names(marks: Sequence[Mark], spots: Mapping[str, tuple[float, float]], taken: list[Box]) -> list[str]:
    """On which side of its point each name stands; they cover neither `taken` nor the steps from ring to ring."""
    names = [(mark.contender.label, *spots[mark.contender.name]) for mark in marks]
    steps = []
    for (_, left, score), (_, right, _) in pairwise(names):
        steps.append(Box(left, score - 0.02, right, score + 0.02))
    return place_labels(names, [*taken, *steps])


def find_cost_axis(prices: Sequence[float], logarithmic: bool) -> Axis:
    """An axis with all prices on it, and room for names beside the outermost."""
    low, high = min(prices), max(prices)
    if logarithmic:
        room = max((high / low) ** 0.25, 2.0)
        return Axis(low / room, high * room, logarithmic)
    room = 0.15 * (high - low) or max(high, 1.0)
    return Axis(low - room, high + room)


def find_ticks(axis: Axis) -> tuple[float, ...]:
    """Round numbers on it, none below zero."""
    if not axis.logarithmic:
        values = MaxNLocator(nbins=6, integer=True).tick_values(axis.low, axis.high)
        return tuple(float(value) for value in values if max(axis.low, 0) <= value <= axis.high)
    decades = range(floor(log10(axis.low)), ceil(log10(axis.high)) + 1)
    steps: tuple[int, ...] = (1, 2, 5) if len(decades) < 6 else (1,)
    if axis.high < 10 * axis.low:
        steps = (1, 2, 3, 4, 5, 7)
    if len(decades) > 8:
        decades = decades[::2]
    values = [step * 10.0**decade for decade, step in product(decades, steps)]
    return tuple(value for value in values if axis.low <= value <= axis.high)


def find_score_axis(contenders: Sequence[Contender]) -> Axis:
    """An axis with all points and intervals on it, and as many of the lines as leave these apart from each other."""
    ends, lines = [], []
    for each in contenders:
        if each.marker:
            ends += [each.score, *(each.interval or ())]
        else:
            lines.append(each.score)
    low, high = min(ends), max(ends)
    span = high - low
    for line in sorted(lines, reverse=True):
        wider = min(low, line), max(high, line)
        if span >= _LEAST * (wider[1] - wider[0]) or not span:
            low, high = wider
    room = 0.12 * (high - low) or 0.5
    return Axis(low - room, high + room)


def spread_apart(shares: Sequence[float]) -> list[float]:
    """Places on an axis, moved apart where points would lie on each other; those of one cost stay in their order.

    Neighbours that are too near form a block, whose members lie side by side around the mean of their own places.
    """
    blocks: list[list[int]] = []

    def first_and_last(block: list[int]) -> tuple[float, float]:
        middle, reach = sum(shares[at] for at in block) / len(block), _APART * (len(block) - 1) / 2
        return middle - reach, middle + reach

    for at in sorted(range(len(shares)), key=lambda at: shares[at]):
        blocks.append([at])
        while len(blocks) > 1 and first_and_last(blocks[-1])[0] < first_and_last(blocks[-2])[1] + _APART - 1e-9:
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    placed = dict.fromkeys(range(len(shares)), 0.0)
    for block in blocks:
        left, _ = first_and_last(block)
        for number, at in enumerate(block):
            placed[at] = left + _APART * number
    return list(placed.values())


def _find_point_boxes(each: Contender, spot: tuple[float, float], y_axis: Axis) -> list[Box]:
    """What a point and its interval cover."""
    x, y = spot
    boxes = [Box(x - 0.015, y - 0.04, x + 0.015, y + 0.04)]
    if each.interval is not None:
        low, high = map(y_axis.share, each.interval)
        boxes.append(Box(x - 0.01, low, x + 0.01, high))
    return boxes


def _draw_level(frontier: Frontier, each: Contender, x_axis: Axis, y_axis: Axis) -> Series:
    text = f"{each.name} ({frontier.write(each.score)}"
    text += ", off the axis)" if not 0 <= y_axis.share(each.score) <= 1 else ")"
    ends, scores = (x_axis.low, x_axis.high), (each.score, each.score)
    return Series(text, ends, scores, each.colour, (text, text), each.line, width=1.2)


def _draw_rings(
    frontier: Frontier, marks: Sequence[Mark], places: Mapping[str, float], sides: list[str]
) -> list[Series]:
    """The rings of a panel, with names; second ones around what lies above the intervals of all that is cheaper."""
    rings = []
    clear = [mark for mark in marks if mark.overlapping == []]
    for name, size, ringed, line in ((RINGED, 12.0, list(marks), "step"), (CLEAR, 16.0, clear, "")):
        if ringed:
            own = [mark.contender for mark in ringed]
            labels = zip([each.label for each in own], sides, strict=True) if line else ()
            x, y = tuple(places[each.name] for each in own), tuple(each.score for each in own)
            hover = tuple(describe(frontier, each) for each in own)
            ring = Series(name, x, y, "front", hover, line, "circle-open", width=0.8, size=size, labels=tuple(labels))
            rings.append(ring)
    return rings


def _draw_point(frontier: Frontier, each: Contender, x: float) -> Series:
    return Series(
        each.group or each.name,
        (x,),
        (each.score,),
        each.colour,
        (describe(frontier, each),),
        marker=each.marker,
        size=each.size,
        intervals=(each.interval,),
    )


def describe(frontier: Frontier, each: Contender) -> str:
    """What is said of a contender where it is pointed at."""
    interval = "" if each.interval is None else f" ({' to '.join(map(frontier.write, each.interval))})"
    lines = [each.name, f"{frontier.score}: {frontier.write(each.score)}{interval}"]
    lines += [f"{name}: {formatting.number(each.costs.get(cost))}" for cost, name in COSTS.items()]
    return "\n".join(lines)
