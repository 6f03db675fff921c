"""Residual prompt tuning: a shared network beside the prompt, which is thrown away when the prompt is made.

    p'_i = p_i + LN(W2 relu(W1 p_i + b1) + b2),  i = 1 .. P

Razdaibiedina et al., "Residual Prompt Tuning: Improving Prompt Tuning with Residual Reparameterization", Findings of
ACL 2023, section 3. p `[P, H]`, W1 `[b, H]`, W2 `[H, b]` and the gain and shift of LN are trained:
PH + 2Hb + b + 3H numbers. AdamW; b is 400 there for a model of 768 dimensions.

LN's gain starts at the RMS of the model's embeddings, not at 1: beside embeddings of 0.02 a network's output of 1 would
be all that is left of the prompt's start.
"""

from __future__ import annotations

import torch
from torch.nn.functional import layer_norm

from softprune.prompts.forms.base import Draws, Form


class Residual(Form):
    """See the module's docstring."""

    def __init__(self, start_KPH: torch.Tensor, bottleneck: int, scale: float, draws: Draws) -> None:
        """Prompts that start from `start_KPH` beside a network as torch's linear layers start; `scale` is LN's gain."""
        count, _, hidden = start_KPH.shape
        wide, narrow = hidden**-0.5, bottleneck**-0.5
        trained = {
            "tokens_KPH": start_KPH.clone(),
            "down_KHb": draws.uniform(hidden, bottleneck, most=wide),
            "down_bias_Kb": draws.uniform(bottleneck, most=wide),
            "up_KbH": draws.uniform(bottleneck, hidden, most=narrow),
            "up_bias_KH": draws.uniform(hidden, most=narrow),
            "gain_KH": start_KPH.new_full((count, hidden), scale),
            "shift_KH": start_KPH.new_zeros(count, hidden),
        }
        # The network's numbers are as large as they start; what LN gives has the size of embeddings.
        sizes = {"tokens_KPH": scale, "gain_KH": scale, "shift_KH": scale, "down_KHb": wide, "down_bias_Kb": wide}
        super().__init__(trained, sizes | {"up_KbH": narrow, "up_bias_KH": narrow})

    def produce(self) -> torch.Tensor:
        """`[K, P, H]`."""
        own = self.trained
        inner_KPb = (own["tokens_KPH"] @ own["down_KHb"] + own["down_bias_Kb"][:, None]).relu()
        outer_KPH = inner_KPb @ own["up_KbH"] + own["up_bias_KH"][:, None]
        normed_KPH = layer_norm(outer_KPH, outer_KPH.shape[-1:])
        return own["tokens_KPH"] + normed_KPH * own["gain_KH"][:, None] + own["shift_KH"][:, None]
