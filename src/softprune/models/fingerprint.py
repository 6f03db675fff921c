"""Which backbone a ticket or a run belongs to: a short hash that distinguishes weights, whatever dtype they are in."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from softprune.models.pooling import Head

# What changes a model's numbers without changing a weight's name, shape or value.
_SWITCHES = ("scale_embedding", "hidden_act", "feed_forward_proj", "activation_function", "num_attention_heads")


def fingerprint(model: Any, head: Head | None = None, lead: str = "") -> str:
    """Short hash of a model's kind and of a few numbers of every weight: which backbone a ticket fits.

    Two halves. The first holds values, rounded to bfloat16, so that a model loaded in float32 and in bfloat16 is the
    same backbone. The second holds signs, which no dtype changes: float16 rounds elsewhere than bfloat16.

    A quantised model is another backbone than the one that it was made of, and gives other numbers. Its packed weights
    count by name, kind and shape in both halves, by value in the first alone: devices may round them differently.
    `head` is what follows a sentence model's encoder, and `lead` the words that it puts in front of every text.
    """
    # Of the configuration no more than this counts: every release of transformers writes other ones.
    switches = [getattr(model.config, name, None) for name in _SWITCHES]
    kind = f"{model.config.model_type} {switches}"
    weights = sorted(model.named_parameters())
    if head is not None:
        kind += f"{head.modes} {head.layers}{lead}"
        weights += sorted(head.named_parameters())
    values, signs = hashlib.sha256(kind.encode()), hashlib.sha256(kind.encode())
    for name, weight in weights:
        is_packed = not weight.is_floating_point()
        label = f"{name} {tuple(weight.shape)}" + (f" {weight.dtype}" if is_packed else "")
        rounded = [f"{value:.3g}" for value in _sample(weight, 16).bfloat16().tolist()]
        values.update(f"{label} {rounded}".encode())
        signs.update(label.encode())
        if not is_packed:
            signs.update(bytes(_sample(weight, 256).signbit().tolist()))
    return f"{values.hexdigest()[:16]}-{signs.hexdigest()[:16]}"


def same_backbone(one: str, other: str) -> bool:
    """Whether two fingerprints are of the same weights, in whatever dtypes these were loaded."""
    return one == other or ("-" in one and one.partition("-")[2] == other.partition("-")[2])


def _sample(weight: torch.Tensor, size: int) -> torch.Tensor:
    """About `size` numbers of a weight, evenly spread."""
    return weight.detach().flatten()[:: max(1, weight.numel() // size)][:size]
