"""Adapters by the name of their method: made again, or from what was stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch

from softprune.backbone.base import Backbone
from softprune.methods.adaptation import Adaptation, AdapterPlan, check_tensors, put
from softprune.registry import Registry

Build: TypeAlias = Callable[[Backbone, AdapterPlan, int], Adaptation]
Restore: TypeAlias = Callable[[Backbone, AdapterPlan, Mapping[str, torch.Tensor]], Adaptation]

_NEW: Registry[Build] = Registry(
    "method",
    {
        "full": "softprune.methods.weights:full",
        "last-layer": "softprune.methods.weights:last_layer",
        "lora": "softprune.methods.injected:lora",
        "ia3": "softprune.methods.injected:ia3",
        "p-tuning": "softprune.methods.virtual:p_tuning",
        "prefix": "softprune.methods.virtual:prefix",
        "p-tuning-v2": "softprune.methods.virtual:prefix",
    },
)
# Methods that keep something else than what was trained.
_STORED: Registry[Restore] = Registry(
    "method",
    {
        "p-tuning": "softprune.methods.virtual:stored_prompt",
        "prefix": "softprune.methods.virtual:stored_prefix",
        "p-tuning-v2": "softprune.methods.virtual:stored_prefix",
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
