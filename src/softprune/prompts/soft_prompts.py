"""K masked prompts side by side: what is trained, and what the backbone reads of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from softprune.types import Mask, PromptState


@dataclass(frozen=True, slots=True)
class Reading:
    """How surviving values become the sequence that the backbone reads."""

    elements_KPH: torch.Tensor  # 1 where a dimension survives, in the prompts' dtype
    # Under `drop`, indices of each candidate's surviving tokens (all have Q of them); under `zero`, None.
    kept_KQ: torch.Tensor | None

    def __call__(self, vectors_KPH: torch.Tensor) -> torch.Tensor:
        """Masked prompts `[K, Q, H]` (equations 2 and 4); differentiable."""
        masked_KPH = vectors_KPH * self.elements_KPH
        if self.kept_KQ is None:
            return masked_KPH
        return masked_KPH.gather(1, self.kept_KQ[..., None].expand(-1, -1, masked_KPH.shape[2]))


def reading(masks: Sequence[Mask], hidden: int, removal: str, like: torch.Tensor) -> Reading:
    """The reading of K masks over the same P and S, in dtype and device of `like`.

    Under `drop` pruned tokens are taken out of the sequence, so all masks must have equally many survivors; under
    `zero` they keep their positions.
    """
    elements_KPH = torch.stack([mask.elements_PH(hidden) for mask in masks]).to(like)
    if removal == "zero":
        return Reading(elements_KPH, None)
    counts = {mask.tokens for mask in masks}
    if len(counts) != 1:
        raise ValueError(f"prompts read together under drop need equally many tokens, not {sorted(counts)}")
    return Reading(elements_KPH, torch.stack([mask.token_P.nonzero()[:, 0] for mask in masks]).to(like.device))


def full_mask(tokens: int, pieces: int) -> Mask:
    """The mask that prunes nothing."""
    return Mask(torch.ones(tokens, dtype=torch.bool), torch.ones(tokens, pieces, dtype=torch.bool))


def masked_state(vectors_PH: torch.Tensor, mask: Mask) -> PromptState:
    """A prompt with everything pruned set to exactly zero."""
    elements_PH = mask.elements_PH(vectors_PH.shape[1]).to(vectors_PH.device)
    # Not a product: NaN times 0 is NaN, and -1 times 0 is -0.
    return PromptState(torch.where(elements_PH, vectors_PH, torch.zeros_like(vectors_PH)), mask)


def read_one(state: PromptState, removal: str) -> torch.Tensor:
    """What the backbone reads of one prompt, `[Q, H]`."""
    return reading([state.mask], state.vectors_PH.shape[1], removal, state.vectors_PH)(state.vectors_PH[None])[0]
