"""What a backbone reads when it is checked at load, and how exactly two readings must agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

TOLERANCE = {torch.float16: 0.01, torch.bfloat16: 0.04}
"""Relative to the largest logit. A number of bfloat16 is off by up to 1/256, and some ten roundings add up between
other shapes of the same products; float16 has three more bits."""
WIDE_TOLERANCE = 1e-4
"""Of float32 and float64: some norms and softmaxes are computed in float32 whatever the dtype of the weights."""
QUANTIZED_TOLERANCE = 0.05
"""Of 8-bit weights, whose products depend on what else is in a batch."""
LEAST_LOGIT = 0.03
"""The least scale of a comparison: smaller logits say nothing about rounding, as a log-probability of ten is off by
1e-6 in float32."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A text that is read at load, by its token ids.

    Attributes:
        text: its tokens.
        slot: the position of a masked model's answer in it.
        answer: the tokens to score.
    """

    text: tuple[int, ...]
    slot: int
    answer: tuple[int, ...]


def ordinary_ids(model: Any) -> torch.Tensor:
    """Four token ids other than padding, `[1, 4]` on the device of the embeddings."""
    pad = getattr(model.config, "pad_token_id", None)
    return torch.tensor([[i for i in range(3, 9) if i != pad][:4]], device=model.get_input_embeddings().weight.device)
