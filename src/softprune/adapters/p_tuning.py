"""P-tuning: a network makes the prompt, and is what is trained.

    p_i = MLP(e_i),  e `[P, H]` and the MLP trained, i = 1 .. P     (Liu et al. 2021, "GPT Understands, Too")

The paper has an LSTM in front of the MLP; here it is peft's `PromptEncoder` as it comes, with three linear layers and
ReLU between them, which peft recommends. The network is for training alone: what inference needs is the prompt
`[P, H]`, which is put in front of the input's embeddings as any soft prompt does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from softprune.adapters.base import Adaptation, AdapterPlan, Tensors, check_tensors, seeded
from softprune.models.base import Backbone

STORED = "vectors_PH"
"""Name of the one tensor that inference needs."""


class MadePrompt(Adaptation):
    """A prompt `[P, H]` that a network (peft's `PromptEncoder`) makes, or a stored one that a network made."""

    def __init__(self, backbone: Backbone, tokens: int, made_by: nn.Module | torch.Tensor) -> None:
        self.made_by, self._tokens, self._is_on = made_by, tokens, True
        parameters = made_by.named_parameters() if isinstance(made_by, nn.Module) else ()
        # The network's weights and the embeddings that it reads, as checkpoints and run.json name them.
        super().__init__(backbone, {f"encoder.{name}": parameter for name, parameter in parameters})

    def stored(self) -> Tensors:
        """The prompt: the network isn't needed any more."""
        return {STORED: self.prompts()[0].detach().cpu().contiguous()}

    def prompts(self) -> torch.Tensor:
        """`[1, P, H]`; gradients flow into the network."""
        if not self._is_on:
            return self.nothing()
        if isinstance(self.made_by, torch.Tensor):
            return self.made_by[None]
        made: torch.Tensor = self.made_by(torch.arange(self._tokens, device=self.backbone.device)[None])
        return made

    @contextmanager
    def off(self) -> Iterator[None]:
        """No prompt."""
        self._is_on = False
        try:
            yield
        finally:
            self._is_on = True


def new_prompt(backbone: Backbone, plan: AdapterPlan, seed: int) -> MadePrompt:
    """A fresh network, on the backbone's device, in the dtype of prompts."""
    from peft import PromptEncoder, PromptEncoderConfig

    config = PromptEncoderConfig(
        num_virtual_tokens=plan.tokens,
        token_dim=backbone.info.hidden,
        encoder_hidden_size=plan.hidden or backbone.info.hidden,
        num_transformer_submodules=1,
    )
    with seeded(seed):
        network: nn.Module = PromptEncoder(config)  # type: ignore[no-untyped-call]
    return MadePrompt(backbone, plan.tokens, network.to(backbone.device, backbone.prompt_dtype))


def stored_prompt(backbone: Backbone, plan: AdapterPlan, tensors: Mapping[str, torch.Tensor]) -> MadePrompt:
    """The prompt that was stored."""
    check_tensors(plan, {STORED: (plan.tokens, backbone.info.hidden)}, tensors)
    return MadePrompt(backbone, plan.tokens, tensors[STORED].to(backbone.device, backbone.prompt_dtype))
