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

from softprune.token_pruning.token_trace import TokenTrace

Floats = npt.NDArray[np.float64]


def count_dropped(trace: TokenTrace) -> Floats:
    """How many of a text's tokens, special ones aside, have left by the end of each layer: `[L]`."""
    left_T = [left for left, special in zip(trace.left, trace.special, strict=True) if not special]
    return np.array([sum(left <= layer for left in left_T) for layer in range(trace.layers)], np.float64)


def dropped_shares(traces: Sequence[TokenTrace]) -> Floats:
    """The share of all texts' tokens, special ones aside, that has left by the end of each layer: `[L]`."""
    total = sum(trace.special.count(False) for trace in traces)
    shares: Floats = sum((count_dropped(trace) for trace in traces), np.zeros(traces[0].layers)) / max(total, 1)
    return shares


class RandomDropping:
    """Random dropping in one text.

    Args:
        tokens: T.
        dropped_L: m_l by layer; needn't be whole.
    """

    def __init__(self, tokens: int, dropped_L: Floats) -> None:
        self._tokens, self._dropped_L = tokens, dropped_L
        self._outlives = cache(self._survival)

    @classmethod
    def like(cls, trace: TokenTrace) -> RandomDropping:
        """As many tokens leave after each layer as the model dropped in this very text."""
        dropped_L = count_dropped(trace)
        return cls(trace.special.count(False), dropped_L)

    @classmethod
    def at(cls, share_L: Floats, trace: TokenTrace) -> RandomDropping:
        """The same share of tokens has left after each layer, whatever the model dropped in this text."""
        tokens = trace.special.count(False)
        return cls(tokens, tokens * share_L)

    def kept(self, pieces: int) -> float:
        """The chance that a word of `pieces` tokens is kept to the end."""
        return float(self._outlives(pieces)[-1])

    def left(self, pieces: int) -> float:
        """The expected `left` of a word of `pieces` tokens."""
        return float(self._outlives(pieces).sum())

    def _survival(self, pieces: int) -> Floats:
        """P(left > l) by layer, `[L]`."""
        places = np.arange(pieces)[:, None]
        all_dropped_L = (np.maximum(self._dropped_L - places, 0) / (self._tokens - places)).prod(axis=0)
        return np.asarray(1 - all_dropped_L, np.float64)
