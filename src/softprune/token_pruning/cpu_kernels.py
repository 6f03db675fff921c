"""Linear layers in bfloat16 on a CPU, by the one-call kernels that torch.compile uses.

A separate pass for the bias, or a gelu in bfloat16, costs a CPU about as much as the matrix product itself.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from softprune.models.fused.layers import has_fused_linear

Activation = Callable[[torch.Tensor], torch.Tensor]


def linear(module: nn.Linear, x_MH: torch.Tensor, activation: Activation | None = None) -> torch.Tensor:
    """`activation(module(x))`, as the modules compute it where no kernel does: on a GPU, in float32, in training."""
    if uses_kernel(module, x_MH) and (activation is None or is_exact_gelu(activation)):
        # The last argument is the gelu's algorithm: without the tanh approximation.
        kind, algorithm = ("none", "") if activation is None else ("gelu", "none")
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x_MH, module.weight, module.bias, kind, [], algorithm)
        return output
    output = module(x_MH)
    return output if activation is None else activation(output)


def uses_kernel(module: nn.Linear, x_MH: torch.Tensor) -> bool:
    """Whether a product can be one call: in bfloat16, on a CPU, without gradients, by an untouched linear layer."""
    if torch.is_grad_enabled() or x_MH.is_cuda or {x_MH.dtype, module.weight.dtype} != {torch.bfloat16}:
        return False
    return type(module) is nn.Linear and has_fused_linear()  # a subclass may compute something else


def is_exact_gelu(activation: object) -> bool:
    """Whether an activation is the gelu that the kernel computes, without the tanh approximation."""
    return activation is F.gelu or getattr(activation, "act", None) is F.gelu
