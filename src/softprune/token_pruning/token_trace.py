"""What became of the tokens of a text: all that the analysis needs of a pruned model. Layers count from 0."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TokenTrace:
    """What became of the tokens of one text."""

    text: str  # as it was read; the whole of it, untruncated
    offsets: tuple[tuple[int, int], ...]  # per token, where its characters are in `text`; (0, 0) for special tokens
    special: tuple[bool, ...]  # per token, whether the tokenizer put it there
    # per token, the layer after whose attention it was dropped; `layers` if the last layer's attention read it
    left: tuple[int, ...]
    layers: int
    predicted: int  # place of the class with the highest probability
    probabilities: tuple[float, ...]  # per class
    gold: int | None = None  # place of the true class, where it is known
    cut: int = 0  # tokens that truncation took away; they aren't in `offsets`
    # mean of the last hidden states of the kept tokens that aren't special, [H]; empty unless asked for
    state: tuple[float, ...] = ()

    def alive(self) -> tuple[int, ...]:
        """Per layer, how many tokens are left after its pruning, special ones too."""
        alive = []
        for layer in range(self.layers):
            alive.append(sum(left > layer for left in self.left))
        return tuple(alive)


class TraceableModel(Protocol):
    """What the analysis asks of a model: a `TokenModel`, or the tests' model of a few lines."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""

    def trace(
        self,
        texts: Sequence[str],
        golds: Sequence[int | None] | None = None,
        *,
        states: bool = False,
        forced_out: Sequence[Collection[int]] | None = None,
    ) -> list[TokenTrace]:
        """Trace texts; arguments as of `TokenModel.trace`."""
