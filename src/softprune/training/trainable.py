"""What the loop trains: parameters, a loss per candidate and example, and a way to save and load them."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import nn

from softprune.models.base import Backbone
from softprune.prompts.soft_prompts import Reading, reading
from softprune.types import Batch, Mask


class Trainable(Protocol):
    """Anything the loop can train. Its candidates (often one) share batches and stay independent of each other."""

    @property
    def candidates(self) -> int:
        """K, the candidates still in training."""

    def parameters(self) -> list[nn.Parameter]:
        """What the optimiser updates; K is the first axis where there are several candidates."""

    def loss(self, batch: Batch) -> torch.Tensor:
        """Loss of each candidate on each example, `[K, B]`."""

    def save(self) -> dict[str, torch.Tensor]:
        """Current values; every tensor has K as its first axis."""

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take saved values back."""

    def keep(self, indices: Sequence[int]) -> None:
        """Go on with some of the candidates only."""


class RowTrainable(Trainable, Protocol):
    """One whose candidates may see different examples at a step."""

    def row_losses(self, batch: Batch, counts: Sequence[int]) -> torch.Tensor:
        """Loss of each row `[R]`: candidate 0 on the first `counts[0]` examples, candidate 1 on those after, and on."""


class PromptTrainable:
    """K soft prompts in front of a frozen backbone (equation 1).

    Args:
        backbone: frozen.
        vectors_KPH, masks: starting values, and what of them survives: the rest is set to zero and stays there. Under
            `drop` all masks have equally many surviving tokens.
        removal, loss, score: as in the recipe; `score` is how answers are scored under `rank`.
    """

    def __init__(
        self,
        backbone: Backbone,
        vectors_KPH: torch.Tensor,
        masks: Sequence[Mask],
        *,
        removal: str,
        loss: str,
        score: str,
    ) -> None:
        self.backbone, self.loss_name, self.score = backbone, loss, score
        start = vectors_KPH.to(backbone.device, backbone.prompt_dtype)
        self.reading: Reading = reading(masks, start.shape[2], removal, start)
        self.vectors_KPH = nn.Parameter(start * self.reading.elements_KPH)

    @property
    def candidates(self) -> int:
        """K."""
        return int(self.vectors_KPH.shape[0])

    def parameters(self) -> list[nn.Parameter]:
        """The prompts, `[K, P, H]`."""
        return [self.vectors_KPH]

    def survivors(self) -> torch.Tensor:
        """1 where a dimension survives, `[K, P, H]`."""
        return self.reading.elements_KPH

    def prompts(self) -> torch.Tensor:
        """What the backbone reads, `[K, Q, H]`."""
        return self.reading(self.vectors_KPH)

    def loss(self, batch: Batch) -> torch.Tensor:
        """`[K, B]`."""
        return self.backbone.losses(self.prompts(), batch, self.loss_name, self.score)

    def row_losses(self, batch: Batch, counts: Sequence[int]) -> torch.Tensor:
        """`[R]`; some candidates may have no row."""
        # By expand, whose gradient is a sum in a fixed order: that of an index may differ from run to run on a GPU.
        shares = [prompt.expand(count, -1, -1) for prompt, count in zip(self.prompts().unbind(), counts, strict=True)]
        return self.backbone.row_losses(torch.cat(shares), batch, self.loss_name, self.score)

    def save(self) -> dict[str, torch.Tensor]:
        """The prompts' values."""
        return {"vectors_KPH": self.vectors_KPH.detach().clone()}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take values back, in place."""
        self.vectors_KPH.data = tensors["vectors_KPH"].to(self.vectors_KPH)

    def keep(self, indices: Sequence[int]) -> None:
        """Go on with some of the prompts only."""
        self.reading = self.reading.subset(indices)
        self.vectors_KPH.data = self.vectors_KPH.data[list(indices)]
        self.vectors_KPH.grad = None


class WeightsTrainable(ABC):
    """A model's weights, or what was put beside them, as one candidate."""

    candidates = 1

    def __init__(self, named: Mapping[str, nn.Parameter]) -> None:
        self._named = dict(named)

    @abstractmethod
    def loss(self, batch: Batch) -> torch.Tensor:
        """`[1, B]`."""

    def named(self) -> dict[str, nn.Parameter]:
        """What is trained, by name."""
        return dict(self._named)

    def parameters(self) -> list[nn.Parameter]:
        """The same without names."""
        return list(self._named.values())

    def save(self) -> dict[str, torch.Tensor]:
        """Current values, with an axis for the one candidate."""
        return {name: value.detach().clone()[None] for name, value in self._named.items()}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take saved values back, in place."""
        with torch.no_grad():
            for name, value in self._named.items():
                value.copy_(tensors[name][0])

    def keep(self, indices: Sequence[int]) -> None:
        """Go on with the one candidate."""
        assert list(indices) == [0]


def products_in(compute: torch.dtype, weights: torch.dtype, device: torch.device) -> torch.autocast:
    """Matrix products in a dtype, where the weights are in another."""
    wanted = compute != weights
    return torch.autocast(device.type, dtype=compute if wanted else None, enabled=wanted)


def seed_dropout(seed: int, work: str, indices: Sequence[int]) -> None:
    """Let seed and batch decide what dropout draws, so that training goes on bit by bit after a kill."""
    torch.manual_seed(zlib.crc32(repr((seed, work, tuple(indices))).encode()))
