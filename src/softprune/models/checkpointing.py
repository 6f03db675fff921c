"""Gradient checkpointing: layers computed again in the backward pass, instead of what they computed being kept.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost". transformers recomputes in train mode only, so the
model is put into it with everything that is drawn at random there switched off.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from softprune.errors import SoftpruneError
from softprune.models.base import Backbone
from softprune.models.load_check import QUANTIZED_TOLERANCE, ordinary_ids

# Parts of the names under which modules and configurations hold probabilities that act in train mode alone.
_RANDOM = ("drop", "jitter_noise")


def enable_checkpointing(backbone: Backbone) -> None:
    """Make a backbone compute its layers again in the backward pass, or refuse it; its model is left in train mode."""
    backbone.fused = None  # fused layers keep what they computed
    model, described = backbone.model, f'{backbone.info.name} ("{backbone.model.config.model_type}")'
    before = _read(backbone)
    # transformers 5.20 gave it a new name.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    try:
        # Without reentry: the weights are frozen, and inputs such as the decoder's require no gradient.
        # Nothing is random, so no state of a generator has to be put back.
        enable({"use_reentrant": False, "preserve_rng_state": False})
    except ValueError as error:
        raise SoftpruneError(
            "an architecture whose layers transformers can recompute, for backbone.checkpointing=true",
            f"{described}: {error}",
            "leave backbone.checkpointing out; tuning.accumulate=2 or a smaller search.group saves memory too",
        ) from error
    # transformers makes embeddings require gradients, for reentry: every one, of plain text too, would be in the graph.
    model.disable_input_require_grads()
    switch_off_chance(model)
    model.train()
    after = _read(backbone)
    # Relative; quantised layers multiply otherwise in train mode.
    tolerance = 1e-3 if backbone.info.quantization is None else QUANTIZED_TOLERANCE
    if not torch.allclose(after, before, rtol=0, atol=tolerance * float(before.abs().max())):
        raise SoftpruneError(
            "an architecture that gives the same numbers in train mode once nothing is dropped",
            f"{described}, which differs by {float((after - before).abs().max()):.3g}",
            "leave backbone.checkpointing out",
        )


@torch.no_grad()
def _read(backbone: Backbone) -> torch.Tensor:
    inputs: dict[str, Any] = {"input_ids": ordinary_ids(backbone.model)}
    if backbone.family == "seq2seq":
        inputs |= {"decoder_input_ids": inputs["input_ids"], "use_cache": False}
    output: torch.Tensor = backbone.model(**inputs)[0]
    return output.float()


def switch_off_chance(model: Any) -> None:
    """Set every dropout, layer drop and jitter of a model to 0: modules, and the probabilities of functional ones."""
    owners = [*model.modules(), *{id(m.config): m.config for m in model.modules() if hasattr(m, "config")}.values()]
    for owner in owners:
        if isinstance(owner, nn.modules.dropout._DropoutNd):
            owner.p = 0.0
        for key, value in list(vars(owner).items()):
            if any(part in key for part in _RANDOM) and isinstance(value, float):
                setattr(owner, key, 0.0)
