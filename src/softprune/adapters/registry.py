"""The methods by name: what each trains, where it is defined, and what builds its adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from softprune.config.field_types import DEFAULT_RELATIVE_LR
from softprune.config.forms import FORMS, PLAIN
from softprune.config.registry import Registry

if TYPE_CHECKING:
    import torch

    from softprune.adapters.base import Adaptation, AdapterPlan
    from softprune.models.base import Backbone
    from softprune.models.description import BackboneDescription


@dataclass(frozen=True, slots=True)
class Method:
    """One way to adapt a model."""

    name: str  # as `--methods` takes it
    kind: str  # the recipe's kind that runs it
    trains: str  # what it trains, in a few words
    source: str  # where it comes from
    lr: float | None = None  # learning rate of its own; None for a prompt's, which is relative to the embeddings
    relative_lr: float = DEFAULT_RELATIVE_LR  # a prompt's
    whole: bool = False  # whether weights of the model itself change, so that they are float32 while they train
    needs_peft: bool = False


METHODS = {
    method.name: method
    for method in (
        Method("full", "adapt", "all weights", "fine-tuning", lr=5e-5, whole=True),
        Method("last-layer", "adapt", "last block, final norm, an untied head", "fine-tuning", lr=5e-4, whole=True),
        Method("lora", "adapt", "low-rank updates of attention's matrices", "Hu et al. 2021", lr=5e-4, needs_peft=True),
        Method(
            "prefix", "adapt", "keys and values of each layer, projected", "Li and Liang 2021", lr=5e-3, needs_peft=True
        ),
        Method("p-tuning", "adapt", "a network that makes a prompt", "Liu et al. 2021", lr=1e-3, needs_peft=True),
        Method("p-tuning-v2", "adapt", "keys and values of each layer", "Liu et al. 2022", lr=7e-3, needs_peft=True),
        Method(
            "cartridge", "adapt", "keys and values for a document", "Eyuboglu et al. 2025", lr=5e-3, needs_peft=True
        ),
        Method(
            "ia3", "adapt", "scales of keys, values and feed-forward parts", "Liu et al. 2022", lr=3e-3, needs_peft=True
        ),
        Method("dept", "adapt", "a short prompt, and an offset by place", "Shi and Lipani 2024"),
        Method("smop", "adapt", "short prompts, and a router that chooses one", "Choi et al. 2023"),
        Method("prompt", "tune", FORMS[PLAIN].trains, FORMS[PLAIN].source),
        *(
            Method(name, "tune", form.trains, form.source, relative_lr=form.lr)
            for name, form in FORMS.items()
            if name != PLAIN
        ),
        Method("xprompt", "xprompt", "a soft prompt's winning tokens and pieces", "Ma et al. 2022"),
    )
}

_NEW: Registry[Callable[[Backbone, AdapterPlan, int], Adaptation]] = Registry(
    "method",
    {
        "full": "softprune.adapters.full_finetuning:full",
        "last-layer": "softprune.adapters.full_finetuning:last_layer",
        "lora": "softprune.adapters.peft_layers:lora",
        "ia3": "softprune.adapters.peft_layers:ia3",
        "p-tuning": "softprune.adapters.p_tuning:new_prompt",
        "dept": "softprune.adapters.dept:new_offset_prompt",
        "smop": "softprune.adapters.smop:new_mixture",
        "prefix": "softprune.adapters.prefix:new_prefix",
        "p-tuning-v2": "softprune.adapters.prefix:new_prefix",
        "cartridge": "softprune.adapters.cartridge:new_cartridge",
    },
)
# Methods that keep something else than what was trained.
_STORED: Registry[Callable[[Backbone, AdapterPlan, Mapping[str, Any]], Adaptation]] = Registry(
    "method",
    {
        "p-tuning": "softprune.adapters.p_tuning:stored_prompt",
        "prefix": "softprune.adapters.prefix:stored_prefix",
        "p-tuning-v2": "softprune.adapters.prefix:stored_prefix",
        "cartridge": "softprune.adapters.prefix:stored_prefix",
    },
)
# Methods that some architectures have no place for: why, by configuration and family; None where they have.
_NOT_DEFINED: Registry[Callable[[Any, str], str | None]] = Registry(
    "method",
    {
        "prefix": "softprune.adapters.prefix:prefix_not_defined",
        "p-tuning-v2": "softprune.adapters.prefix:prefix_not_defined",
        "cartridge": "softprune.adapters.cartridge:cartridge_not_defined",
        "smop": "softprune.adapters.smop:mixture_not_defined",
    },
)


def why_not_defined(method: str, described: BackboneDescription) -> str | None:
    """Why a model has no place for a method, by its configuration alone; None where it has, as far as that shows."""
    return _NOT_DEFINED[method](described.config, described.family) if method in _NOT_DEFINED else None


def adapt(backbone: Backbone, plan: AdapterPlan, seed: int) -> Adaptation:
    """Give a backbone a new adapter with its first values, if its architecture has a place for it."""
    return _NEW[plan.method](backbone, plan, seed)


def restore(backbone: Backbone, plan: AdapterPlan, tensors: Mapping[str, torch.Tensor]) -> Adaptation:
    """Give a backbone an adapter that was stored; tensors of another adapter or backbone are refused."""
    from softprune.adapters.base import check_tensors, set_values

    if plan.method in _STORED:
        return _STORED[plan.method](backbone, plan, tensors)
    adaptation = adapt(backbone, plan, seed=0)
    check_tensors(plan, {name: tuple(p.shape) for name, p in adaptation.named().items()}, tensors)
    set_values(adaptation.named(), tensors)
    return adaptation
