"""Prompts from files of several makers."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from softprune.errors import SoftpruneError
from softprune.prompt.exchange import load_vectors

VECTORS = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("key", ["vectors_PH", "prompt_embeddings"])
def test_safetensors(tmp_path: Path, key: str) -> None:
    path = tmp_path / "p.safetensors"
    save_file({"other": torch.zeros(1), key: VECTORS}, path)
    assert torch.equal(load_vectors(path), VECTORS)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_npy(tmp_path: Path, dtype: type[np.floating]) -> None:
    path = tmp_path / "p.npy"
    np.save(path, VECTORS.numpy().astype(dtype))
    found = load_vectors(path)
    assert found.dtype == torch.float32
    assert torch.allclose(found, VECTORS, atol=1e-3)


def test_bfloat16_becomes_float32(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    save_file({"vectors_PH": VECTORS.bfloat16()}, path)
    assert torch.equal(load_vectors(path), VECTORS.bfloat16().float())


def test_a_peft_adapter_gives_its_encoders_prompt(tmp_path: Path) -> None:
    """With peft's default of two submodules, the file's second half belongs to the decoder."""
    path = tmp_path / "adapter_model.safetensors"
    save_file({"prompt_embeddings": VECTORS}, path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"num_virtual_tokens": 3}))
    assert torch.equal(load_vectors(path), VECTORS[:3])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def junk(path: Path) -> None:
    path.write_bytes(b"junk" * 10)


def pickled(path: Path) -> None:
    if path.suffix == ".npy":
        np.save(path, np.array([object()]), allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(VECTORS))


def words(path: Path) -> None:
    if path.suffix == ".npy":
        np.save(path, np.array([["a", "b"]]))
    else:
        save_file({"words": VECTORS}, path)


def flat(path: Path) -> None:
    if path.suffix == ".npy":
        np.save(path, np.zeros(5))
    else:
        save_file({"vectors_PH": torch.zeros(0, 4)}, path)


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
@pytest.mark.parametrize("spoil", [empty, junk, pickled, words, flat])
def test_bad_files_end_in_one_message(tmp_path: Path, suffix: str, spoil: Callable[[Path], None]) -> None:
    path = tmp_path / f"p{suffix}"
    spoil(path)
    with pytest.raises(SoftpruneError) as error:
        load_vectors(path)
    assert str(path) in str(error.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SoftpruneError, match="no file"):
        load_vectors(tmp_path / "nothing.npy")
