"""A rule that some tokens are exempt from: what is asked of a model to explain it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from softprune.token_pruning.rules import Alive, Rule


@dataclass(frozen=True, slots=True)
class Forced:
    """A rule that some tokens are exempt from.

    Attributes:
        rule: for the others.
        out, kept: per text of the batch, places of tokens that leave after the first layer that prunes, or stay.
    """

    rule: Rule
    out: tuple[frozenset[int], ...]
    kept: tuple[frozenset[int], ...]

    @property
    def scored(self) -> bool:
        """As the rule."""
        return self.rule.scored

    def prunes(self, layer: int) -> bool:
        """As the rule; and after layer 1, where tokens are forced out of a model that drops nothing."""
        return self.rule.prunes(layer) or (layer == 1 and any(self.out))

    def stays(self, alive: Alive, score_M: torch.Tensor | None) -> torch.Tensor:
        """The rule's choice, exemptions aside."""
        prunes = self.rule.prunes(alive.layer)
        stays_M = self.rule.stays(alive, score_M) if prunes else torch.ones_like(alive.row_M, dtype=torch.bool)
        at = list(zip(alive.row_M.tolist(), alive.position_M.tolist(), strict=True))
        out_M = torch.tensor([place in self.out[row] for row, place in at], device=stays_M.device)
        kept_M = torch.tensor([place in self.kept[row] for row, place in at], device=stays_M.device)
        return (stays_M | kept_M) & ~out_M


@dataclass(frozen=True, slots=True)
class BeforeLast:
    """A rule that takes nothing away after the last layer, where the head's token has read all that it will.

    Nothing but the price of a token decides there, so that trained thresholds drop nearly all: what is left behind the
    last layer's attention says nothing of what the model read.

    Attributes:
        rule: for the other layers.
        layers: L.
    """

    rule: Rule
    layers: int

    @property
    def scored(self) -> bool:
        """As the rule."""
        return self.rule.scored

    def prunes(self, layer: int) -> bool:
        """As the rule, but after the last layer."""
        return layer < self.layers - 1 and self.rule.prunes(layer)

    def stays(self, alive: Alive, score_M: torch.Tensor | None) -> torch.Tensor:
        """As the rule."""
        return self.rule.stays(alive, score_M)


def forced_rule(
    rule: Rule,
    indices: Sequence[int],
    out: Sequence[Collection[int]] | None,
    kept: Sequence[Collection[int]] | None,
) -> Rule:
    """A rule with the exemptions of some of the texts.

    Args:
        rule: for the others.
        indices: the texts of a batch.
        out, kept: per text of all, places of its tokens that leave or stay; None for no exemptions.
    """
    if out is None and kept is None:
        return rule
    nobody: frozenset[int] = frozenset()
    outs = tuple(nobody if out is None else frozenset(out[i]) for i in indices)
    keeps = tuple(nobody if kept is None else frozenset(kept[i]) for i in indices)
    return Forced(rule, outs, keeps)
