"""Ultra-low-dimensional prompt tuning: a few numbers a token, projected by a random matrix that nobody trains.

    P = s * (Z R) + c,  Z `[P, r]`, R `[r, H]` fixed, s and c `[H]`

Wu, Hao and Mou, "Ultra-Low-Dimensional Prompt Tuning via Random Projection", EACL 2026 (arXiv 2502.04501), section 3.
Z, the scale s and the shift c are trained: Pr + 2H numbers, with r = 2. R is drawn by the seed from N(0, 1/r) and kept
nowhere. Z starts as N(0, 1), s as the RMS of the model's embeddings and c as 0, so that the prompt has that RMS. AdamW.
"""

from __future__ import annotations

import torch

from softprune.prompts.forms.base import Draws, Form


class UltraLow(Form):
    """See the module's docstring."""

    def __init__(self, tokens: int, hidden: int, rank: int, scale: float, draws: Draws) -> None:
        """Noise; `scale` is the RMS of the prompts that it makes."""
        projection_KrH = draws.normal(rank, hidden, sd=rank**-0.5)
        count = len(projection_KrH)
        trained = {
            "codes_KPr": draws.normal(tokens, rank),
            "scale_KH": torch.full((count, hidden), scale),
            "shift_KH": torch.zeros(count, hidden),
        }
        sizes = {"codes_KPr": 1.0, "scale_KH": scale, "shift_KH": scale}
        super().__init__(trained, sizes, {"projection_KrH": projection_KrH})

    def produce(self) -> torch.Tensor:
        """`[K, P, H]`."""
        own = self.trained
        projected_KPH = own["codes_KPr"] @ self.fixed["projection_KrH"]
        return own["scale_KH"][:, None] * projected_KPH + own["shift_KH"][:, None]
