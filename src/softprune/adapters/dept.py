"""DePT: a short prompt, and a low-rank offset of the input's embeddings by place.

    read    [P_m ; E(x) + s A B],  P_m `[m, H]`, A `[N, r]`, B `[r, H]`, s = alpha / sqrt(r)
    stored  m H + r (N + H)

Shi and Lipani (ICLR 2024, section 2.2) take a long prompt apart into these, with N the longest input, and train them
with two learning rates. Row i of A B is added to the i-th token of an input, whatever the token is; padding and answers
get none. A starts as uniform numbers between -1 / sqrt(r) and 1 / sqrt(r), B as zeros, so that nothing is added at
first. The definition was compared with the authors' code (ZhengxiangShi/DePT, peft/tuners/prompt_tuning_lora.py and
peft/peft_model.py); the paper's text and its numbers of equations could not be looked up.

The authors' batches are padded to N and a decoder's answer gets the offsets of its places there; here an offset belongs
to the input alone, so that a text is scored as it is generated. A masked model's slot is as wide as the answer, and the
places behind it count from there, as they do for the model's own positions; beyond N there is no offset.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import nn

from softprune.adapters.base import Adaptation, AdapterPlan, random_entries, set_values
from softprune.adapters.p_tuning import STORED
from softprune.models.base import Backbone


class OffsetPrompt(Adaptation):
    """A prompt `[m, H]`, and A `[N, r]` and B `[r, H]`, whose product, scaled, moves the tokens behind it."""

    offset_names = ("A_Nr", "B_rH")

    def __init__(
        self, backbone: Backbone, vectors_PH: torch.Tensor, left_Nr: torch.Tensor, right_rH: torch.Tensor, scale: float
    ) -> None:
        self._scale = scale
        self._prompt, self._left, self._right = map(nn.Parameter, (vectors_PH, left_Nr, right_rH))
        super().__init__(backbone, {STORED: self._prompt, "A_Nr": self._left, "B_rH": self._right})
        backbone.adapter = replace(backbone.adapter, offset=self.offset)

    def offset(self) -> torch.Tensor:
        """What is added to the embeddings of an input's tokens by their place, `[N, H]`."""
        return self._scale * (self._left @ self._right)

    def prompts(self) -> torch.Tensor:
        """`[1, m, H]`."""
        return self.nothing() if self.backbone.adapter.offset is None else self._prompt[None]

    def start_from(self, vectors_PH: torch.Tensor) -> None:
        """Begin as this prompt."""
        set_values({STORED: self._prompt}, {STORED: vectors_PH})


def new_offset_prompt(backbone: Backbone, plan: AdapterPlan, seed: int) -> OffsetPrompt:
    """A fresh prompt and matrices, on the backbone's device, in the dtype of prompts."""
    device, dtype, width = backbone.device, backbone.prompt_dtype, math.sqrt(plan.rank)
    # On the CPU, so that a seed draws the same numbers for every device.
    uniform_Nr = torch.rand(plan.longest, plan.rank, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return OffsetPrompt(
        backbone,
        random_entries(backbone, plan.tokens, seed),
        (uniform_Nr / width).to(device, dtype),
        torch.zeros(plan.rank, backbone.info.hidden, device=device, dtype=dtype),
        scale=plan.alpha / width,
    )
