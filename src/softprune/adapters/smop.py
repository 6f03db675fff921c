"""SMoP, a sparse mixture of prompts: K short ones, of which a router gives each input one.

    p(x)    = softmax(W mean(E(x))),  W `[K, H]`, the mean over the input's own tokens
    read    [p_j(x) P_j ; E(x)],  j = argmax p(x),  P_j `[m, H]`
    stored  K m H + K H

Choi et al. (EMNLP 2023, section 2). A prompt is scaled by its probability, through which gradients reach the router;
those of the prompts that weren't chosen are zero. While training, logits are perturbed (section 2.3):

    z_i (1 + d_i),  d_i ~ N(0, 1), of which z_i d_i counts as a constant in gradients

Both were compared with the authors' code (jyjohnchoi/SMoP, peft_models/tuners/prompt_routing.py, routing by prompt with
top 1 and `perturb_router`), which also starts W with orthonormal rows, as here. The paper's text wasn't at hand.
Unless it is switched off, that code also adds 0.01 times a loss that balances the prompts' loads over a batch. It is
left out here: whether the paper's results have it isn't known, and it is a loss of a batch, not of its examples.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from softprune.adapters.base import Adaptation, AdapterPlan, random_entries, seeded, set_values
from softprune.models.architectures import normalises_inputs
from softprune.models.base import Backbone
from softprune.types import Batch

PROMPTS, ROUTER = "prompts_KPH", "router_KH"
"""Names of what is trained and stored."""


class PromptMixture(Adaptation):
    """Prompts `[K, m, H]` and a router `[K, H]`, by which every input has one of them in front."""

    def __init__(self, backbone: Backbone, prompts_KPH: torch.Tensor, router_KH: torch.Tensor) -> None:
        self._prompts, self._router = nn.Parameter(prompts_KPH), nn.Parameter(router_KH)
        self.starts, self._is_perturbed = len(prompts_KPH), False
        super().__init__(backbone, {PROMPTS: self._prompts, ROUTER: self._router})
        backbone.adapter = replace(backbone.adapter, route=self.route)

    def probabilities(self, batch: Batch) -> torch.Tensor:
        """How likely each input is to have each prompt, `[B, K]`: the router's softmax."""
        with torch.no_grad():
            mask_BN1 = batch.input_mask[..., None].to(self._router.dtype)
            inputs_BNH = self.backbone.lookup(batch.input_ids).to(self._router.dtype)
            mean_BH = (inputs_BNH * mask_BN1).sum(1) / mask_BN1.sum(1)
        logits_BK = mean_BH @ self._router.T
        if self._is_perturbed:
            logits_BK = logits_BK + torch.randn_like(logits_BK) * logits_BK.detach()
        return logits_BK.softmax(-1)

    def route(self, batch: Batch) -> torch.Tensor:
        """Each input's prompt, scaled by its probability, `[B, m, H]`."""
        shares_BK = self.probabilities(batch)
        # A product with zeros and one share, not an index: its gradient is a sum in a fixed order on GPUs too.
        chosen_BK = shares_BK * F.one_hot(shares_BK.argmax(-1), self.starts).to(shares_BK.dtype)
        return torch.einsum("bk,kph->bph", chosen_BK, self._prompts)

    def start_from(self, vectors_PH: torch.Tensor) -> None:
        """Begin as these K prompts, one behind another."""
        set_values({PROMPTS: self._prompts}, {PROMPTS: vectors_PH.view(self._prompts.shape)})

    def train(self, mode: bool) -> None:
        """Perturb the router, or don't."""
        self._is_perturbed = mode


def mixture_not_defined(config: Any, family: str) -> str | None:
    """Why a router can't learn in a model, whatever its family, by its configuration; None where it can."""
    del family
    if not normalises_inputs(config):
        return None
    return f'"{config.model_type}" normalises every vector first, so that a share of a prompt reads as the whole prompt'


def new_mixture(backbone: Backbone, plan: AdapterPlan, seed: int) -> PromptMixture:
    """Fresh prompts and a router, on the backbone's device, in the dtype of prompts."""
    vectors_PH = random_entries(backbone, plan.prompts * plan.tokens, seed)
    with seeded(seed):
        router_KH = nn.init.orthogonal_(torch.empty(plan.prompts, backbone.info.hidden))
    prompts_KPH = vectors_PH.view(plan.prompts, plan.tokens, -1)
    return PromptMixture(backbone, prompts_KPH, router_KH.to(backbone.device, backbone.prompt_dtype))
