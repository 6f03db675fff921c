"""Linear layers in bfloat16 on a CPU, by the one-call kernels that torch.compile uses.

A separate pass for the bias, or a gelu in bfloat16, costs a CPU about as much as the matrix product itself. Anywhere
else (a GPU, float32, training) these functions call the modules as they are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from softprune.models.fused.layers import has_fused_linear


def linear(module: nn.Linear, x_MH: torch.Tensor) -> torch.Tensor:
    """`module(x)`."""
    output: torch.Tensor
    if uses_kernel(module, x_MH):
        output = torch.ops.mkldnn._linear_pointwise(x_MH, module.weight, module.bias, "none", [], "")
    else:
        output = module(x_MH)
    return output


def activated_linear(
    module: nn.Linear, activation: Callable[[torch.Tensor], torch.Tensor], x_MH: torch.Tensor
) -> torch.Tensor:
    """`activation(module(x))`."""
    output: torch.Tensor
    if is_exact_gelu(activation) and uses_kernel(module, x_MH):
        output = torch.ops.mkldnn._linear_pointwise(x_MH, module.weight, module.bias, "gelu", [], "none")
    else:
        output = activation(module(x_MH))
    return output


def uses_kernel(module: nn.Linear, x_MH: torch.Tensor) -> bool:
    """Whether a product can be one call: in bfloat16, on a CPU, without gradients, by an untouched linear layer."""
    if torch.is_grad_enabled() or x_MH.is_cuda or {x_MH.dtype, module.weight.dtype} != {torch.bfloat16}:
        return False
    return type(module) is nn.Linear and has_fused_linear()  # a subclass may compute something else


def is_exact_gelu(activation: object) -> bool:
    """Whether an activation is the gelu that the kernel computes, without the tanh approximation."""
    return activation is F.gelu or getattr(activation, "act", None) is F.gelu
