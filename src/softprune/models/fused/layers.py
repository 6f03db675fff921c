"""What the hand-written layers of frozen models share: activations with their gradients, heads, softmax.

transformers makes a sublayer of some thirty small operations, each of which reads and writes the hidden states. On a
CPU that multiplies matrices in bfloat16 they take most of a step. In `t5.py` and `bert.py` a sublayer is a handful of
matrix products; weights are frozen, so only gradients of its input are computed.

Shapes, there and here: R rows, L positions, M = R * L, H hidden, G = R * heads, D a head's size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def _tanh_gelu(x: torch.Tensor) -> torch.Tensor:
    return F.gelu(x, approximate=_gelu_form(x))


def _tanh_gelu_back(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.ops.aten.gelu_backward(grad, x, approximate=_gelu_form(x))  # type: ignore[no-any-return]


def _gelu_form(x: torch.Tensor) -> str:
    # In bfloat16 GELU by tanh is computed by the error function. The two differ by 5e-4 at most, less than
    # transformers' own operations lose to rounding, and torch has a fast way for the latter alone: a fifth of the time
    # forwards, and two fifths backwards.
    return "none" if x.dtype == torch.bfloat16 else "tanh"


def _relu_back(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.ops.aten.threshold_backward(grad, x, 0.0)  # type: ignore[no-any-return]


ACTIVATIONS: dict[str, tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]]] = {
    "gelu": (F.gelu, torch.ops.aten.gelu_backward),
    "gelu_new": (_tanh_gelu, _tanh_gelu_back),
    "relu": (torch.relu, _relu_back),
}
"""By transformers' names: the function, and the gradient of its input from that of its output and its input."""

NARROW, NARROWEST = 64, 32
"""Below so many positions, torch's softmax of bfloat16, and its gradient, are slower than float32's, conversions in."""

IN_CACHE = 200_000
"""Numbers at a time where float32 is an intermediate step: a megabyte or two, which a core's cache holds."""


def split(x_MI: torch.Tensor, rows: int, heads: int) -> torch.Tensor:
    """`[R * L, heads * D]` to `[R * heads, L, D]`."""
    return x_MI.view(rows, -1, heads, x_MI.shape[-1] // heads).transpose(1, 2).flatten(0, 1)


def join(x_GLD: torch.Tensor, rows: int) -> torch.Tensor:
    """`[R * heads, L, D]` to `[R * L, heads * D]`."""
    joined: torch.Tensor = x_GLD.unflatten(0, (rows, -1)).transpose(1, 2).flatten(2).flatten(0, 1)
    return joined


def softmax(scores: torch.Tensor) -> torch.Tensor:
    """Softmax over the last axis, computed in float32 at least, in the scores' dtype."""
    if scores.shape[-1] >= NARROW or scores.dtype != torch.bfloat16:
        return torch.softmax(scores, -1)
    p = torch.empty_like(scores)
    for at, part in portions(scores):
        p[at] = torch.softmax(part, -1, dtype=torch.float32)
    return p


def softmax_back(grad: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """Gradient of the scores, from that of their softmax and the softmax itself; both `[G, L, L]`."""
    if p.shape[-1] >= NARROWEST or p.dtype != torch.bfloat16:
        return torch._softmax_backward_data(grad, p, -1, p.dtype)
    scores_grad = torch.empty_like(p)
    for at, part in portions(p):
        scores_grad[at] = torch._softmax_backward_data(grad[at].float(), part.float(), -1, torch.float32)
    return scores_grad


def portions(x: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """A tensor by its first axis, in portions that stay in a core's cache, each with its place; whole on a GPU."""
    size = max(1, len(x))
    if x.device.type == "cpu":
        size = max(1, IN_CACHE * len(x) // max(1, x.numel()))
    for start in range(0, max(1, len(x)), size):  # an empty tensor is one empty portion
        at = slice(start, start + size)
        yield at, x[at]


@cache
def has_fused_linear() -> bool:
    """Whether this torch and this processor have oneDNN's products in bfloat16 with additions in them."""
    known: bool = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", bool)()
    return known and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(
    x_MI: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, plus_MO: torch.Tensor | None = None
) -> torch.Tensor:
    """`x W^T + b`, and another tensor added where there is one.

    In bfloat16 torch first writes the bias to every row and then adds the product to that, which took as long again as
    the product. oneDNN's own operation, which torch.compile uses, adds both while it writes.
    """
    if x_MI.dtype == torch.bfloat16 and has_fused_linear():
        fused = torch.ops.mkldnn._linear_pointwise
        if plus_MO is None:
            return fused(x_MI, weight, bias, "none", [], "")  # type: ignore[no-any-return]
        return fused.binary(x_MI, plus_MO, weight, bias, "add")  # type: ignore[no-any-return]
    product_MO = F.linear(x_MI, weight, bias)
    return product_MO if plus_MO is None else product_MO.add_(plus_MO)


def additive_mask(hides: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A mask to add to attention scores: the lowest number where something is hidden, else 0."""
    return torch.zeros_like(hides, dtype=dtype).masked_fill(hides, torch.finfo(dtype).min)


def run(function: type[torch.autograd.Function], *args: Any) -> torch.Tensor:
    """A sublayer's output."""
    return function.apply(*args)  # type: ignore[no-any-return]


def is_plain(model: Any, dtypes: tuple[torch.dtype, ...]) -> bool:
    """Whether all linear layers of a model are torch's own, on a CPU and of one of these dtypes."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    kinds = {(type(module), module.weight.device.type, module.weight.dtype) for module in linear}
    return len(kinds) == 1 and kinds <= {(nn.Linear, "cpu", dtype) for dtype in dtypes}
