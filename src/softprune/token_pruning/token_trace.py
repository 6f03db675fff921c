"""What became of the tokens of a text: all that the analysis needs of a pruned model.

Layers count from 0. Axes here: N texts, L layers, H hidden.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TokenTrace:
    """What became of the tokens of one text.

    Attributes:
        text: as it was read; the whole of it, untruncated.
        offsets: per token, where its characters are in `text`; (0, 0) for special tokens.
        special: per token, whether the tokenizer put it there.
        left: per token, the layer after whose attention it was dropped; `layers` if it was kept to the end,
            that is, until the last layer's attention read it.
        layers: L.
        predicted: place of the class with the highest probability.
        probabilities: per class.
        gold: place of the true class, where it is known.
        cut: tokens that truncation took away; they aren't in `offsets`.
        state: mean of the last hidden states of the kept tokens that aren't special, `[H]`; empty unless asked for.
    """

    text: str
    offsets: tuple[tuple[int, int], ...]
    special: tuple[bool, ...]
    left: tuple[int, ...]
    layers: int
    predicted: int
    probabilities: tuple[float, ...]
    gold: int | None = None
    cut: int = 0
    state: tuple[float, ...] = ()

    def alive(self) -> tuple[int, ...]:
        """Per layer, how many tokens are left after its pruning, special ones too."""
        return tuple(sum(left > layer for left in self.left) for layer in range(self.layers))


class TraceableModel(Protocol):
    """A model with pruned tokens, as the analysis uses it."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""

    @property
    def layers(self) -> int:
        """L."""

    def trace(
        self,
        texts: Sequence[str],
        golds: Sequence[int | None] | None = None,
        *,
        states: bool = False,
        forced_out: Sequence[Collection[int]] | None = None,
        forced_in: Sequence[Collection[int]] | None = None,
    ) -> list[TokenTrace]:
        """Trace texts.

        Args:
            texts: N.
            golds: true class of each text.
            states: whether to fill `state`.
            forced_out: per text, positions of tokens that must leave after the first layer that prunes.
            forced_in: per text, positions of tokens that must stay.
        """
