"""The last layer's feed-forward part, at the few places where something is predicted and at no other.

What it computes at a place depends on that place alone, and no later layer looks at the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

NAMES = ("mlp", "feed_forward", "ffn", "block_sparse_moe")
"""What decoders call it, as an attribute of a layer."""


def find_last_feed_forward(trunk: nn.Module) -> nn.Module | None:
    """It, by its name; None where a layer has none, such as OPT's, whose products stand in the layer itself."""
    stacks = [child for child in trunk.children() if isinstance(child, nn.ModuleList) and len(child)]
    if not stacks:
        return None
    last = max(stacks, key=len)[-1]
    return next((part for name in NAMES if isinstance(part := getattr(last, name, None), nn.Module)), None)


@contextmanager
def compute_only_at(part: nn.Module | None, at_U: torch.Tensor) -> Iterator[None]:
    """Within the block, let a module `[R, L, H]` to `[R, L, H]` compute these places of R * L; the others are zero."""
    shapes: list[torch.Size] = []

    def gather(_part: nn.Module, given: tuple[Any, ...]) -> tuple[torch.Tensor]:
        (x_RLH,) = given
        shapes.append(x_RLH.shape)
        return (x_RLH.flatten(0, 1).index_select(0, at_U)[None],)

    def scatter(_part: nn.Module, _given: tuple[Any, ...], y_1UH: torch.Tensor) -> torch.Tensor:
        y_RLH = y_1UH.new_zeros(shapes[-1])
        return y_RLH.flatten(0, 1).index_copy(0, at_U, y_1UH[0]).view_as(y_RLH)

    with ExitStack() as hooks:
        if part is not None:
            hooks.callback(part.register_forward_pre_hook(gather).remove)
            hooks.callback(part.register_forward_hook(scatter).remove)
        yield
