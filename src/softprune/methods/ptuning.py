"""P-tuning: a soft prompt that a small network makes (Liu et al. 2021, "GPT understands, too", section 3.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from softprune.backbone.base import Backbone
from softprune.methods.adaptation import Adaptation, AdapterPlan, Tensors, check_tensors

VECTORS = "vectors_PH"


class MadePrompt(Adaptation):
    """A prompt `[P, H]` that peft's prompt encoder makes of P embeddings.

    Args:
        backbone: frozen.
        encoder: peft's module; None for a prompt that is only served.
        vectors_PH: then, its values.
    """

    def __init__(self, backbone: Backbone, encoder: Any, vectors_PH: torch.Tensor | None = None) -> None:
        super().__init__(backbone)
        self._encoder, self._vectors_PH, self._on = encoder, vectors_PH, True

    def named(self) -> dict[str, nn.Parameter]:
        """The network's weights, and the embeddings that it reads."""
        return {} if self._encoder is None else dict(self._encoder.named_parameters())

    def stored(self) -> Tensors:
        """The prompt alone: the network isn't needed any more."""
        with torch.no_grad():
            return {VECTORS: self._made()[0].detach().cpu()}

    def prompts(self) -> torch.Tensor:
        """`[1, P, H]`."""
        return self._made() if self._on else self.nothing()

    @contextmanager
    def off(self) -> Iterator[None]:
        """No prompt."""
        self._on = False
        try:
            yield
        finally:
            self._on = True

    def _made(self) -> torch.Tensor:
        if self._encoder is None:
            assert self._vectors_PH is not None
            return self._vectors_PH[None].to(self.backbone.device, self.backbone.prompt_dtype)
        tokens = self._encoder.embedding.num_embeddings
        vectors: torch.Tensor = self._encoder(torch.arange(tokens, device=self.backbone.device)[None])
        return vectors


def p_tuning(backbone: Backbone, plan: AdapterPlan, seed: int) -> MadePrompt:
    """peft's prompt encoder with its two hidden layers."""
    from peft import PromptEncoder, PromptEncoderConfig

    config = PromptEncoderConfig(
        num_virtual_tokens=plan.tokens,
        token_dim=backbone.info.hidden,
        num_transformer_submodules=1,
        encoder_hidden_size=plan.hidden or backbone.info.hidden,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder: Any = PromptEncoder(config)  # type: ignore[no-untyped-call]
    return MadePrompt(backbone, encoder.to(backbone.device, backbone.prompt_dtype))


def stored_prompt(backbone: Backbone, plan: AdapterPlan, tensors: Mapping[str, torch.Tensor]) -> MadePrompt:
    """The prompt that was stored.

    Raises:
        SoftpruneError: where it isn't one for this backbone.
    """
    check_tensors(plan, {VECTORS: (plan.tokens, backbone.info.hidden)}, tensors)
    return MadePrompt(backbone, None, tensors[VECTORS])
