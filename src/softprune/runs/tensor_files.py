"""Saved tensors of any dtype, read into dtypes that torch can compare and add."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def read_tensors(path: Path, names: Iterable[str] | None = None) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file (all, or those named), those narrower than 16 bits as float32.

    Raises:
        OSError, SafetensorError, ValueError: it can't be read, lacks one of them, or holds complex numbers.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        held = list(file.keys())
        return {name: widen(file.get_tensor(name), name) for name in (held if names is None else names)}


def widen(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """The same numbers in a dtype that torch can compare and add: float8 types become float32.

    Raises:
        ValueError: for complex numbers, and for packed ones (several in a byte).
    """
    if tensor.is_complex():
        raise ValueError(f"complex numbers in {name}")
    if not tensor.is_floating_point() or tensor.element_size() > 1:
        return tensor
    try:
        return tensor.float()
    except (RuntimeError, TypeError) as error:  # such as float4, two numbers to a byte
        raise ValueError(f"{tensor.dtype} in {name}, which holds no single numbers") from error


def real_numbers(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """A tensor of floating or whole numbers in float32.

    Raises:
        ValueError: for truth values and complex or packed numbers.
    """
    import torch

    wide = widen(tensor, name)
    if wide.dtype is torch.bool:
        raise ValueError(f"true and false in {name}, not numbers")
    return wide.float()
