"""What all forms of a prompt are to the rest: numbers that are trained, and the vectors that they make."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Self

import torch
from torch import nn

Tensors = dict[str, torch.Tensor]
FORM_FILE: Final = "prompts/form.safetensors"
"""Within a run's folder, what was trained in place of its prompt's vectors, and what explains it."""


@dataclass(frozen=True, slots=True)
class Labels:
    """Tokens inside K prompts that a causal model is to predict as well, M at most; a prompt with fewer has weights 0.

    Their loss is a prompt's own: `-sum_m weight_m log p(id_m | what precedes its place)`, over `count` tokens.
    """

    places_KM: torch.Tensor  # long, at least 1
    ids_KM: torch.Tensor  # long
    weights_KM: torch.Tensor
    count_K: torch.Tensor  # how many of the M are there


class Form(ABC):
    """K prompts `[K, P, H]` made of numbers that are trained in their place.

    Every tensor has K as its first axis, and no prompt depends on another's numbers. What is `trained` makes the
    prompts together with what is `fixed`, which the same recipe makes again: it needs no place in a checkpoint.

    `sizes` says by name how large a step of a trained tensor's numbers moves the prompt's vectors by about the RMS of
    the input embeddings: so a learning rate means the same for all of them as for vectors that are trained themselves.
    """

    stored: ClassVar[tuple[str, ...]] = ()
    """Fixed tensors that a run keeps beside what it trained, since they explain it."""

    def __init__(self, trained: Tensors, sizes: Mapping[str, float], fixed: Tensors | None = None) -> None:
        self.trained = {name: nn.Parameter(values) for name, values in trained.items()}
        self.sizes, self.fixed = dict(sizes), fixed or {}

    @abstractmethod
    def produce(self) -> torch.Tensor:
        """The prompts' vectors, `[K, P, H]`; gradients flow into what is trained."""

    def labels(self) -> Labels | None:
        """What in the prompts is to be predicted too; None for nothing."""
        return None

    @property
    def candidates(self) -> int:
        """K."""
        return len(next(iter(self.trained.values())))

    @property
    def numbers(self) -> int:
        """How many numbers are trained for one prompt."""
        return sum(values[0].numel() for values in self.trained.values())

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """The same on a device, its numbers (but whole ones) in a dtype; in place."""
        for values in self.trained.values():
            values.data = values.data.to(device, dtype)
        for name, fixed in self.fixed.items():
            self.fixed[name] = fixed.to(device, dtype if fixed.is_floating_point() else None)
        return self

    def save(self) -> Tensors:
        """Current values of what is trained."""
        return {name: values.detach().clone() for name, values in self.trained.items()}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take values back, in place."""
        for name, values in self.trained.items():
            values.data = tensors[name].to(values)

    def keep(self, indices: Sequence[int]) -> None:
        """Go on with some of the prompts only."""
        chosen = list(indices)
        for values in self.trained.values():
            values.data, values.grad = values.data[chosen], None
        self.fixed = {name: values[chosen] for name, values in self.fixed.items()}


class Draws:
    """Random numbers of K prompts, each of its own seed: a prompt is the same beside others and alone."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def normal(self, *shape: int, sd: float = 1.0) -> torch.Tensor:
        """`[K, *shape]` with a mean of 0 and this standard deviation."""
        return torch.stack([torch.randn(shape, generator=generator) for generator in self._generators]) * sd

    def uniform(self, *shape: int, most: float) -> torch.Tensor:
        """`[K, *shape]` between -most and most."""
        drawn = torch.stack([torch.rand(shape, generator=generator) for generator in self._generators])
        return (2 * drawn - 1) * most
