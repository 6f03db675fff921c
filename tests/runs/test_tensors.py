"""Saved tensors of any dtype are read as numbers, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from softprune.errors import SoftpruneError
from softprune.prompts.prompt_io import load_mask, load_vectors
from softprune.runs.tensor_files import read_tensors, real_numbers, widen

VALUES = torch.tensor([[1.0, -2.0, 0.5], [4.0, 0.25, -1.0]])


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_prompts_of_every_floating_dtype(tmp_path: Path, dtype: str) -> None:
    save_file({"vectors_PH": VALUES.to(getattr(torch, dtype))}, tmp_path / "p.safetensors")
    found = load_vectors(tmp_path / "p.safetensors")
    assert found.dtype == torch.float32
    assert torch.equal(found, VALUES)  # each of these numbers is one of float8's
    assert bool(found.isfinite().all())


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64"])
def test_prompts_of_whole_numbers(tmp_path: Path, dtype: str) -> None:
    save_file({"vectors_PH": torch.tensor([[1, 2], [3, 4]]).to(getattr(torch, dtype))}, tmp_path / "p.safetensors")
    assert load_vectors(tmp_path / "p.safetensors").tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (VALUES > 0, "true and false in vectors_PH, not numbers"),
        (VALUES.to(torch.complex64), "complex numbers in vectors_PH"),
        (torch.zeros(2, 3, dtype=torch.uint8).view(torch.float4_e2m1fn_x2), "torch.float4_e2m1fn_x2 in vectors_PH"),
    ],
    ids=["bool", "complex", "float4"],
)
def test_what_holds_no_numbers_is_refused(tmp_path: Path, tensor: torch.Tensor, message: str) -> None:
    save_file({"vectors_PH": tensor}, tmp_path / "p.safetensors")
    with pytest.raises(SoftpruneError) as caught:
        load_vectors(tmp_path / "p.safetensors")
    assert message in caught.value.found
    with pytest.raises(ValueError, match="vectors_PH"):
        real_numbers(tensor, "vectors_PH")


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "complex64", "int64", "float32"])
def test_masks_are_of_truth_values(tmp_path: Path, dtype: str) -> None:
    ones = {"token_P": torch.ones(2), "piece_PS": torch.ones(2, 4)}
    save_file({name: value.to(getattr(torch, dtype)) for name, value in ones.items()}, tmp_path / "m.safetensors")
    with pytest.raises(SoftpruneError):
        load_mask(tmp_path / "m.safetensors")
    save_file({name: value.bool() for name, value in ones.items()}, tmp_path / "m.safetensors")
    assert load_mask(tmp_path / "m.safetensors").tokens == 2


def test_arrays_beyond_float32_without_numpy_s_own_words(tmp_path: Path) -> None:
    """Warnings are errors here: NumPy's of an overflow would be one."""
    np.save(tmp_path / "p.npy", np.full((2, 3), 1e300))
    assert not bool(load_vectors(tmp_path / "p.npy").isfinite().any())


def test_other_dtypes_stay(tmp_path: Path) -> None:
    tensors = {"a": VALUES.double(), "b": VALUES > 0, "c": torch.tensor([3]), "d": VALUES.to(torch.float8_e5m2)}
    save_file(tensors, tmp_path / "t.safetensors")
    found = read_tensors(tmp_path / "t.safetensors")
    assert {name: tensor.dtype for name, tensor in found.items()} == {
        "a": torch.float64,
        "b": torch.bool,
        "c": torch.int64,
        "d": torch.float32,
    }
    assert list(read_tensors(tmp_path / "t.safetensors", ("c",))) == ["c"]
    assert widen(VALUES, "a") is VALUES
