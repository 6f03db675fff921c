"""Answer sums and their gradients, to hold one reading of a model against another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from reference import EXAMPLES

from softprune.models.base import Backbone


def scored(backbone: Backbone, examples: int = len(EXAMPLES), seed: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Answer sums, and the gradient of a weighted sum of them, of one prompt an example."""
    generator = torch.Generator().manual_seed(seed)
    shape = (examples, 3, backbone.info.hidden)
    prompts = torch.randn(shape, generator=generator, dtype=torch.float64)
    prompts = prompts.to(backbone.prompt_dtype).requires_grad_()
    batch = backbone.batch(backbone.encode(EXAMPLES[:examples], max_length=64, max_answer_length=16))
    sums = backbone.answer_sums(prompts, batch)
    sums = sums[torch.isfinite(sums)]
    weights = torch.randn(sums.shape, generator=generator, dtype=torch.float64).to(sums.dtype)
    (gradient,) = torch.autograd.grad((sums * weights).sum(), prompts)
    return sums.detach().double(), gradient.double()


def gap(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def several(backbone: Backbone) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums and gradients of eight prompts: rounding differs by chance."""
    found = [scored(backbone, seed=seed) for seed in range(8)]
    return torch.cat([sums for sums, _ in found]), torch.cat([gradient for _, gradient in found])


def assert_as_near(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor], truth: Sequence[torch.Tensor]) -> None:
    """Ours are hardly further from the truth than theirs."""
    for mine, other, wanted in zip(ours, theirs, truth, strict=True):
        assert (mine - wanted).norm() <= 1.3 * (other - wanted).norm()
