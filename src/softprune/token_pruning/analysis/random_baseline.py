"""What random dropping would have kept: the baseline of every statement about words.

Of the T tokens of a text (special ones aside), m_l have left by the end of layer l. Were they chosen at random, a
word of p pieces would outlive layer l unless all of its pieces are among them:

    P(left > l) = 1 - C(m_l, p) / C(T, p)

which is the chance that it is kept to the end for the last layer, and sums over the layers to its expected `left`.
A word of one piece is then kept with the text's own share of kept tokens. Axes: T tokens, L layers, W words.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from softprune.token_pruning.token_trace import TokenReading

Floats = npt.NDArray[np.float64]


def gone(reading: TokenReading) -> Floats:
    """How many of a text's tokens, special ones aside, have left by the end of each layer: `[L]`."""
    left_T = [left for left, special in zip(reading.left, reading.special, strict=True) if not special]
    return np.array([sum(left <= layer for left in left_T) for layer in range(reading.layers)], np.float64)


def shares_gone(readings: Sequence[TokenReading]) -> Floats:
    """The share of all texts' tokens, special ones aside, that has left by the end of each layer: `[L]`."""
    total = sum(reading.special.count(False) for reading in readings)
    answer: Floats = sum((gone(reading) for reading in readings), np.zeros(readings[0].layers)) / max(total, 1)
    return answer


class Chance:
    """Random dropping in one text.

    Args:
        tokens: T.
        gone_L: m_l by layer; needn't be whole.
    """

    def __init__(self, tokens: int, gone_L: Floats) -> None:
        self._tokens, self._gone_L = tokens, gone_L
        self._outlives = cache(self._survival)

    @classmethod
    def of(cls, reading: TokenReading) -> Chance:
        """As many tokens leave after each layer as the model dropped in this very text."""
        gone_L = gone(reading)
        return cls(reading.special.count(False), gone_L)

    @classmethod
    def at(cls, share_L: Floats, reading: TokenReading) -> Chance:
        """The same share of tokens has left after each layer, whatever the model dropped in this text."""
        tokens = reading.special.count(False)
        return cls(tokens, tokens * share_L)

    def kept(self, pieces: int) -> float:
        """The chance that a word of so many pieces is kept to the end."""
        return float(self._outlives(pieces)[-1])

    def left(self, pieces: int) -> float:
        """The expected `left` of a word of so many pieces."""
        return float(self._outlives(pieces).sum())

    def _survival(self, pieces: int) -> Floats:
        """P(left > l) by layer, `[L]`."""
        places = np.arange(pieces)[:, None]
        all_gone_L = (np.maximum(self._gone_L - places, 0) / (self._tokens - places)).prod(axis=0)
        return np.asarray(1 - all_gone_L, np.float64)
