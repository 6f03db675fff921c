"""Prompts from files of several makers."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from softprune.errors import SoftpruneError
from softprune.prompts.prompt_io import load_vectors, prompt_bytes, read_prompt

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


def adapter(folder: Path, *, rows: int = 6, **config: object) -> Path:
    """A folder as peft's save_pretrained leaves it."""
    stated = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3, "base_model_name_or_path": "org/model"} | config
    (folder / "adapter_config.json").write_text(json.dumps(stated))
    save_file({"prompt_embeddings": VECTORS[:rows].clone()}, folder / "adapter_model.safetensors")
    return folder


def test_a_peft_adapter_gives_its_encoders_prompt(tmp_path: Path) -> None:
    """With peft's default of two submodules, the file's second half belongs to the decoder."""
    folder = adapter(tmp_path)
    for path in (folder, folder / "adapter_model.safetensors"):
        saved = read_prompt(path)
        assert torch.equal(saved.vectors_PH, VECTORS[:3])
        assert saved.notes == ("the first 3 of 6 rows were taken: the others are a prompt for the decoder",)
        assert (saved.kind, saved.metadata) == ("peft adapter", {"backbone": "org/model"})
    one = read_prompt(adapter(tmp_path, rows=3))
    assert torch.equal(one.vectors_PH, VECTORS[:3])
    assert one.notes == ()


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"peft_type": "LORA"}, "adapter of type PROMPT_TUNING\nfound:    LORA"),
        ({"peft_type": "P_TUNING"}, "found:    P_TUNING"),
        ({"peft_type": None}, "found:    None"),
        ({"num_virtual_tokens": 4}, "4 or 8 rows in a peft prompt of 4 virtual tokens\nfound:    6"),
        ({"num_virtual_tokens": "3"}, "num_virtual_tokens of 1 or more\nfound:    3"),
        ({"num_virtual_tokens": 0}, "num_virtual_tokens of 1 or more\nfound:    0"),
        ({"num_virtual_tokens": True}, "num_virtual_tokens of 1 or more\nfound:    True"),
    ],
)
def test_other_adapters_are_told_apart(tmp_path: Path, config: dict[str, object], told: str) -> None:
    with pytest.raises(SoftpruneError) as error:
        read_prompt(adapter(tmp_path, **config))
    assert told in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000])
def test_an_adapter_without_a_readable_configuration(tmp_path: Path, text: str) -> None:
    (adapter(tmp_path) / "adapter_config.json").write_text(text)
    with pytest.raises(SoftpruneError, match="adapter's configuration"):
        read_prompt(tmp_path)


def test_folders_without_an_adapter(tmp_path: Path) -> None:
    with pytest.raises(SoftpruneError, match=r"no adapter_config\.json in"):
        read_prompt(tmp_path)
    (adapter(tmp_path) / "adapter_model.safetensors").unlink()
    with pytest.raises(SoftpruneError, match=r"no file .*adapter_model\.safetensors"):
        read_prompt(tmp_path)


class Trap:
    """Leaves a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("name", ["adapter_model.bin", "prompt.pt", "prompt.npy", "prompt.safetensors"])
def test_nothing_is_unpickled(tmp_path: Path, name: str) -> None:
    mark, path = tmp_path / "sprung", tmp_path / name
    trap = Trap(mark)
    if name.endswith(".npy"):
        np.save(path, np.array([trap], dtype=object), allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(trap))
    with pytest.raises(SoftpruneError):
        read_prompt(path)
    if name == "adapter_model.bin":
        (adapter(tmp_path) / "adapter_model.safetensors").unlink()
        with pytest.raises(SoftpruneError, match="pickled; softprune never loads such files"):
            read_prompt(tmp_path)
    assert not mark.exists()
    # The trap works: whoever unpickles it is caught.
    pickle.loads(pickle.dumps(trap))
    assert mark.exists()


def test_a_written_prompt_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    path.write_bytes(prompt_bytes(VECTORS.double(), {"backbone": "org/model"}))
    saved = read_prompt(path)
    assert torch.equal(saved.vectors_PH, VECTORS)
    assert saved.metadata == {"backbone": "org/model"}


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


def complex_numbers(path: Path) -> None:
    if path.suffix == ".npy":
        np.save(path, np.zeros((2, 4), dtype=np.complex64))
    else:
        save_file({"words": VECTORS}, path)


def flat(path: Path) -> None:
    if path.suffix == ".npy":
        np.save(path, np.zeros(5))
    else:
        save_file({"vectors_PH": torch.zeros(0, 4)}, path)


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
@pytest.mark.parametrize("spoil", [empty, junk, pickled, words, complex_numbers, flat])
def test_bad_files_end_in_one_message(tmp_path: Path, suffix: str, spoil: Callable[[Path], None]) -> None:
    path = tmp_path / f"p{suffix}"
    spoil(path)
    with pytest.raises(SoftpruneError) as error:
        load_vectors(path)
    assert str(path) in str(error.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SoftpruneError, match="no file"):
        load_vectors(tmp_path / "nothing.npy")
