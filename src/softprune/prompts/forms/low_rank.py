"""Low-rank prompts: the product of two thin matrices.

    P = A B,  A `[P, b]`, B `[b, H]`

Xiao et al., "Decomposed Prompt Tuning via Low-Rank Reparameterization", Findings of EMNLP 2023, section 3 (DPT); Guo
et al., "LoPT: Low-Rank Prompt Tuning for Parameter Efficient Language Models", arXiv 2406.19486. Both matrices are
trained, b(P + H) numbers, and start as Gaussian noise; here of such a size that the prompt has the RMS of the model's
embeddings. AdamW; b is 10 in DPT.
"""

from __future__ import annotations

import torch

from softprune.prompts.forms.base import Draws, Form


class LowRank(Form):
    """See the module's docstring."""

    def __init__(self, tokens: int, hidden: int, rank: int, scale: float, draws: Draws) -> None:
        """Noise; `scale` is the RMS of the prompts that it makes."""
        each = scale * rank**-0.5
        trained = {"left_KPb": draws.normal(tokens, rank), "right_KbH": draws.normal(rank, hidden, sd=each)}
        super().__init__(trained, {"left_KPb": 1.0, "right_KbH": each})

    def produce(self) -> torch.Tensor:
        """`[K, P, H]`."""
        return self.trained["left_KPb"] @ self.trained["right_KbH"]
