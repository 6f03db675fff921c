"""Methods with virtual tokens: a prompt that a network makes, and keys and values in front of every layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from softprune.adapters.base import Adaptation, AdapterPlan, Tensors, check_tensors
from softprune.adapters.prefix import STORED as KEYS_VALUES
from softprune.adapters.prefix import DeepPrompt, attach_prefix, attach_stored, shape_of
from softprune.adapters.ptuning import STORED as VECTORS
from softprune.adapters.ptuning import PromptNetwork, prompt_network
from softprune.models.base import Backbone


class MadePrompt(Adaptation):
    """A prompt `[P, H]` that a network makes; served, the prompt alone.

    Args:
        backbone: frozen.
        made: the network, or the prompt that it made.
    """

    def __init__(self, backbone: Backbone, made: PromptNetwork | torch.Tensor) -> None:
        super().__init__(backbone)
        self._made, self._on = made, True

    def named(self) -> dict[str, nn.Parameter]:
        """The network's weights, and the embeddings that it reads."""
        return {} if isinstance(self._made, torch.Tensor) else dict(self._made.named_parameters())

    def stored(self) -> Tensors:
        """The prompt: the network isn't needed any more."""
        return {VECTORS: self._made.cpu()} if isinstance(self._made, torch.Tensor) else self._made.stored()

    def prompts(self) -> torch.Tensor:
        """`[1, P, H]`."""
        if not self._on:
            return self.nothing()
        return self._made[None] if isinstance(self._made, torch.Tensor) else self._made()[None]

    @contextmanager
    def off(self) -> Iterator[None]:
        """No prompt."""
        self._on = False
        try:
            yield
        finally:
            self._on = True


class Prefix(Adaptation):
    """Keys and values of P virtual tokens in front of every layer's own.

    Args:
        backbone: what reads them.
        deep: attached to it.
    """

    def __init__(self, backbone: Backbone, deep: DeepPrompt) -> None:
        super().__init__(backbone)
        self._deep = deep

    def named(self) -> dict[str, nn.Parameter]:
        """Of peft's module."""
        return dict(self._deep.module.named_parameters())

    def stored(self) -> Tensors:
        """Keys and values; a network that makes them isn't needed any more."""
        return self._deep.stored()

    @contextmanager
    def off(self) -> Iterator[None]:
        """No prefix."""
        with self.backbone.unadapted():
            yield


def p_tuning(backbone: Backbone, plan: AdapterPlan, seed: int) -> MadePrompt:
    """P-tuning; see `softprune.adapters.ptuning`."""
    return MadePrompt(backbone, prompt_network(backbone, plan.tokens, hidden=plan.hidden, seed=seed))


def stored_prompt(backbone: Backbone, plan: AdapterPlan, tensors: Mapping[str, torch.Tensor]) -> MadePrompt:
    """The prompt that was stored.

    Raises:
        SoftpruneError: where it isn't one for this backbone.
    """
    check_tensors(plan, {VECTORS: (plan.tokens, backbone.info.hidden)}, tensors)
    return MadePrompt(backbone, tensors[VECTORS].to(backbone.device, backbone.prompt_dtype))


def prefix(backbone: Backbone, plan: AdapterPlan, seed: int) -> Prefix:
    """Prefix tuning with its projection, or P-tuning v2 without; see `softprune.adapters.prefix`."""
    project = plan.method == "prefix"
    return Prefix(backbone, attach_prefix(backbone, plan.tokens, project=project, hidden=plan.hidden, seed=seed))


def stored_prefix(backbone: Backbone, plan: AdapterPlan, tensors: Mapping[str, torch.Tensor]) -> Prefix:
    """The keys and values that were stored.

    Raises:
        SoftpruneError: where they aren't those of this backbone.
    """
    check_tensors(plan, {KEYS_VALUES: (plan.tokens, shape_of(backbone).numbers)}, tensors)
    return Prefix(backbone, attach_stored(backbone, tensors))
