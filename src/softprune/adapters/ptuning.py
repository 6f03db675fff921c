"""P-tuning: a network makes the prompt, and is what is trained.

    p_i = MLP(e_i),  e `[P, H]` and the MLP trained, i = 1 .. P     (Liu et al. 2021, "GPT Understands, Too")

The paper has an LSTM in front of the MLP; here it is peft's `PromptEncoder` as it comes, with three linear layers and
ReLU between them, which peft recommends. The network is for training alone: what inference needs is the prompt
`[P, H]`, which stands in front of the input's embeddings as any soft prompt does.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from softprune.models.base import Backbone

STORED = "vectors_PH"
"""Name of the one tensor that inference needs."""


class PromptNetwork(nn.Module):
    """Makes P vectors; its parameters are what is trained.

    Args:
        tokens: P.
        width: H.
        hidden: units of each hidden layer.
    """

    def __init__(self, tokens: int, width: int, hidden: int) -> None:
        from peft import PromptEncoder, PromptEncoderConfig

        super().__init__()
        config = PromptEncoderConfig(
            num_virtual_tokens=tokens,
            token_dim=width,
            encoder_hidden_size=hidden,
            num_transformer_submodules=1,
        )
        self.encoder: nn.Module = PromptEncoder(config)  # type: ignore[no-untyped-call]
        self.tokens = tokens

    def forward(self) -> torch.Tensor:
        """The prompt `[P, H]`; gradients flow into the network."""
        at = torch.arange(self.tokens, device=next(self.parameters()).device)
        return cast(torch.Tensor, self.encoder(at[None])[0])

    def stored(self) -> dict[str, torch.Tensor]:
        """What inference needs, for safetensors."""
        return {STORED: self().detach().cpu().contiguous()}


def prompt_network(backbone: Backbone, tokens: int, *, hidden: int | None, seed: int) -> PromptNetwork:
    """A fresh network for a backbone, on its device, in the dtype of prompts.

    Args:
        backbone: the frozen model; `network()[None]` are prompts for it, `[1, P, H]`.
        tokens: P.
        hidden: units of each hidden layer; None for H.
        seed: of the values that it starts from.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PromptNetwork(tokens, backbone.info.hidden, hidden or backbone.info.hidden)
    return network.to(backbone.device, backbone.prompt_dtype)
