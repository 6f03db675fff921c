"""Gradient checkpointing: layers computed again in the backward pass, instead of what they computed being kept.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost". transformers recomputes in train mode only, so the
model is put into it with everything that is drawn at random there switched off.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from softprune.errors import SoftpruneError

# Parts of the names under which modules and configurations hold probabilities that act in train mode alone.
_RANDOM = ("drop", "jitter_noise")


def enable_checkpointing(model: Any, inputs: dict[str, torch.Tensor], name: str, tolerance: float = 1e-3) -> None:
    """Make a frozen model compute its layers again in the backward pass, and leave it in train mode.

    Args:
        model: the Hugging Face model, in eval mode.
        inputs: a few ordinary tokens as its forward takes them, on which both modes are held to the same numbers.
        name: of the model, for errors.
        tolerance: relative; quantised layers multiply otherwise in train mode.

    Raises:
        SoftpruneError: where transformers doesn't recompute this architecture, or train mode changes its numbers.
    """
    kind = model.config.model_type
    before = _read(model, inputs)
    try:
        _enable(model)
    except ValueError as error:
        raise SoftpruneError(
            "an architecture whose layers transformers can recompute, for backbone.checkpointing=true",
            f'{name} ("{kind}"): {error}',
            "leave backbone.checkpointing out; tuning.accumulate=2 or a smaller search.group saves memory too",
        ) from error
    switch_off_chance(model)
    model.train()
    after = _read(model, inputs)
    if not torch.allclose(after, before, rtol=0, atol=tolerance * float(before.abs().max())):
        raise SoftpruneError(
            "an architecture that gives the same numbers in train mode once nothing is dropped",
            f'{name} ("{kind}"), which differs by {float((after - before).abs().max()):.3g}',
            "leave backbone.checkpointing out",
        )


def switch_off_chance(model: Any) -> None:
    """Set every dropout, layer drop and jitter of a model to 0: modules, and the probabilities of functional ones."""
    owners = [*model.modules(), *{id(m.config): m.config for m in model.modules() if hasattr(m, "config")}.values()]
    for owner in owners:
        if isinstance(owner, nn.modules.dropout._DropoutNd):
            owner.p = 0.0
        for key, value in list(vars(owner).items()):
            if any(part in key for part in _RANDOM) and isinstance(value, float):
                setattr(owner, key, 0.0)


def _enable(model: Any) -> None:
    """Without reentry: the weights are frozen, and inputs such as the decoder's require no gradient."""
    # Nothing is random, so no state of a generator has to be put back.
    how = {"use_reentrant": False, "preserve_rng_state": False}
    # transformers 5.20 gave it a new name.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable(how)
    # Made for reentry: every embedding, of plain text too, would be part of the graph.
    model.disable_input_require_grads()


@torch.no_grad()
def _read(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    options = {"use_cache": False} if "decoder_input_ids" in inputs else {}
    output: torch.Tensor = model(**inputs, **options)[0]
    return output.float()
