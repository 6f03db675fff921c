"""A rule with exceptions, by which `TokenModel.trace` measures what single tokens do."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from softprune.token_pruning.rules import AliveTokens, Rule


@dataclass(frozen=True, slots=True)
class ForcedTokens:
    """A rule that some tokens are exempt from.

    Attributes:
        rule: for the others.
        out, kept: per text of the batch, positions of tokens that leave after the first layer that prunes, or stay.
    """

    rule: Rule
    out: tuple[frozenset[int], ...]
    kept: tuple[frozenset[int], ...]

    @property
    def scored(self) -> bool:
        """As the rule."""
        return self.rule.scored

    def prunes(self, layer: int) -> bool:
        """As the rule; and after layer 1 where tokens are forced out of a model that removes none."""
        return self.rule.prunes(layer) or (layer == 1 and any(self.out))

    def keep_mask(self, alive: AliveTokens, score_M: torch.Tensor | None) -> torch.Tensor:
        """The rule's choice but for the exceptions."""
        keep_M = torch.ones_like(alive.row_M, dtype=torch.bool)
        if self.rule.prunes(alive.layer):
            keep_M = self.rule.keep_mask(alive, score_M)
        for i, (row, position) in enumerate(zip(alive.row_M.tolist(), alive.position_M.tolist(), strict=True)):
            if position in self.out[row]:
                keep_M[i] = False
            elif position in self.kept[row]:
                keep_M[i] = True
        return keep_M
