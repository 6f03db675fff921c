"""Adapters by the name of their method: made again, or from what was stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch

from softprune.adapters.base import Adaptation, AdapterPlan, check_tensors, put
from softprune.config.registry import Registry
from softprune.models.base import Backbone

Build: TypeAlias = Callable[[Backbone, AdapterPlan, int], Adaptation]
Restore: TypeAlias = Callable[[Backbone, AdapterPlan, Mapping[str, torch.Tensor]], Adaptation]

_NEW: Registry[Build] = Registry(
    "method",
    {
        "full": "softprune.adapters.full_finetuning:full",
        "last-layer": "softprune.adapters.full_finetuning:last_layer",
        "lora": "softprune.adapters.peft_layers:lora",
        "ia3": "softprune.adapters.peft_layers:ia3",
        "p-tuning": "softprune.adapters.virtual_tokens:p_tuning",
        "prefix": "softprune.adapters.virtual_tokens:prefix",
        "p-tuning-v2": "softprune.adapters.virtual_tokens:prefix",
    },
)
# Methods that keep something else than what was trained.
_STORED: Registry[Restore] = Registry(
    "method",
    {
        "p-tuning": "softprune.adapters.virtual_tokens:stored_prompt",
        "prefix": "softprune.adapters.virtual_tokens:stored_prefix",
        "p-tuning-v2": "softprune.adapters.virtual_tokens:stored_prefix",
    },
)


def adapt(backbone: Backbone, plan: AdapterPlan, seed: int) -> Adaptation:
    """Make a backbone's adapter, with its first values; from then on the backbone reads with it.

    Raises:
        SoftpruneError: where the architecture has no place for it.
    """
    return _NEW[plan.method](backbone, plan, seed)


def restore(backbone: Backbone, plan: AdapterPlan, tensors: Mapping[str, torch.Tensor]) -> Adaptation:
    """Give a backbone an adapter that was stored.

    Raises:
        SoftpruneError: where the tensors aren't those of such an adapter of this backbone.
    """
    if plan.method in _STORED:
        return _STORED[plan.method](backbone, plan, tensors)
    made = adapt(backbone, plan, seed=0)
    wanted = {name: tuple(p.shape) for name, p in made.named().items()}
    check_tensors(plan, wanted, tensors)
    put(made.named(), tensors)
    return made
