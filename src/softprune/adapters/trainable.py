"""Adapters as the loop trains them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from softprune.adapters.base import Adaptation, put
from softprune.models.base import Backbone
from softprune.types import Batch


class AdapterTrainable:
    """One adapter and the loss of the backbone that reads with it.

    Args:
        adaptation: what is trained.
        loss: `likelihood` or `rank`.
        score: `sum` or `mean`, how answers are scored under `rank`.
        compute: dtype of the matrix products, where weights that are trained have another one.
    """

    def __init__(self, adaptation: Adaptation, loss: str, score: str, compute: torch.dtype) -> None:
        self.adaptation, self.loss_name, self.score, self.compute = adaptation, loss, score, compute
        self._named = adaptation.named()

    @property
    def candidates(self) -> int:
        """One."""
        return 1

    def parameters(self) -> list[nn.Parameter]:
        """All that is trained."""
        return list(self._named.values())

    def loss(self, batch: Batch) -> torch.Tensor:
        """`[1, B]`."""
        backbone = self.adaptation.backbone
        self.adaptation.train(True)
        with products_in(backbone, self.compute):
            return backbone.losses(self.adaptation.prompts(), batch, self.loss_name, self.score)

    def save(self) -> dict[str, torch.Tensor]:
        """Current values, with an axis for the one candidate."""
        return {name: value.detach().clone()[None] for name, value in self._named.items()}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take saved values back, in place."""
        put(self._named, {name: value[0] for name, value in tensors.items()})

    def keep(self, indices: Sequence[int]) -> None:
        """There is only one."""


def products_in(backbone: Backbone, compute: torch.dtype) -> Any:
    """Matrix products in a dtype, where the backbone's weights are in another one."""
    wanted = compute != backbone.dtype
    return torch.autocast(backbone.device.type, dtype=compute if wanted else None, enabled=wanted)
