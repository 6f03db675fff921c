"""Adapters as the loop trains them."""

from __future__ import annotations

import torch

from softprune.adapters.base import Adaptation
from softprune.training.trainable import WeightsTrainable, products_in
from softprune.types import Batch


class AdapterTrainable(WeightsTrainable):
    """One adapter and the loss of the backbone that reads with it.

    Args:
        adaptation: what is trained.
        loss: `likelihood` or `rank`.
        score: `sum` or `mean`, how answers are scored under `rank`.
        compute: dtype of the matrix products, where weights that are trained have another one.
    """

    def __init__(self, adaptation: Adaptation, loss: str, score: str, compute: torch.dtype) -> None:
        super().__init__(adaptation.named())
        self.adaptation, self.loss_name, self.score, self.compute = adaptation, loss, score, compute

    def loss(self, batch: Batch) -> torch.Tensor:
        """`[1, B]`."""
        backbone = self.adaptation.backbone
        self.adaptation.train(True)
        with products_in(self.compute, backbone.dtype, backbone.device):
            return backbone.losses(self.adaptation.prompts(), batch, self.loss_name, self.score)
