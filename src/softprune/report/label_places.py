"""Where names are written beside points so that they cover nothing else; all places are shares of the axes, 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# In this order: above and below a point is its own interval.
_SIDES: Final = ("middle right", "middle left", "top right", "top left", "bottom right", "bottom left")
# Of a letter on a phone, whose axes are the narrowest, and of a line of text on paper, whose axes are the lowest.
_LETTER, _LINE = 0.019, 0.085
_MOST: Final = 0.3  # of a name's area; where more would be covered, the name is left out


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle that a name should not lie on."""

    left: float
    low: float
    right: float
    high: float

    def overlap(self, other: Box) -> float:
        """The area that both cover."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        tall = min(self.high, other.high) - max(self.low, other.low)
        return max(wide, 0.0) * max(tall, 0.0)


def place_labels(labels: Sequence[tuple[str, float, float]], taken: Sequence[Box]) -> list[str]:
    """For each name, with the place of its point, the side where it covers least; empty where there is no room.

    Names come in order of importance: an earlier one takes its room from the later ones.
    """
    covered, places = list(taken), []
    for text, x, y in labels:
        by_side = {side: _find_box(text, x, y, side) for side in _SIDES}
        costs = {side: _share_covered(box, covered) for side, box in by_side.items()}
        best = min(_SIDES, key=costs.__getitem__)  # the first of equals
        if costs[best] > _MOST:
            places.append("")
            continue
        places.append(best)
        covered.append(by_side[best])
    return places


def _find_box(text: str, x: float, y: float, side: str) -> Box:
    upright, beside = side.split()
    wide, away = _LETTER * len(text), 0.025
    left = x + away if beside == "right" else x - away - wide
    low = y + {"top": 0.5, "middle": -0.5, "bottom": -1.5}[upright] * _LINE
    return Box(left, low, left + wide, low + _LINE)


def _share_covered(box: Box, covered: Sequence[Box]) -> float:
    """The share of a name's box that lies on others; more than all of it where it leaves the axes."""
    if min(box.left, box.low) < -0.01 or max(box.right, box.high) > 1.01:
        return 2.0
    return sum(box.overlap(other) for other in covered) / box.overlap(box)
