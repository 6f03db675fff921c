"""Prompts on disk: softprune's safetensors files, and `.npy` arrays such as T5X prompt tuning writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from softprune.errors import SoftpruneError

# Where a prompt's vectors are in files of different makers, first found first taken.
_KEYS = ("vectors_PH", "prompt_embeddings")


def load_vectors(path: Path) -> torch.Tensor:
    """A prompt `[P, H]` from a `.safetensors` or `.npy` file, float32. Nothing is unpickled.

    A peft adapter (`adapter_model.safetensors` beside its `adapter_config.json`) may hold a second prompt for the
    decoder; its first `num_virtual_tokens` rows are the encoder's.

    Raises:
        SoftpruneError: when the file is missing, unreadable, or holds no prompt.
    """
    if not path.is_file():
        raise SoftpruneError("a prompt file (.safetensors or .npy)", f"no file {path}", "check prompt.file")
    try:
        vectors = _array(path) if path.suffix == ".npy" else _tensor(path)
    except (OSError, ValueError, TypeError, EOFError, SafetensorError) as error:
        raise SoftpruneError("a readable prompt file", f"{path}: {error}", "save it anew") from error
    if vectors.dim() != 2 or 0 in vectors.shape:
        raise SoftpruneError("a prompt of shape [P, H]", f"{list(vectors.shape)} in {path}", "check prompt.file")
    return vectors


def _array(path: Path) -> torch.Tensor:
    with path.open("rb") as file:
        return torch.from_numpy(np.lib.format.read_array(file, allow_pickle=False).astype(np.float32))


def _tensor(path: Path) -> torch.Tensor:
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        for key in _KEYS:
            if key in names:
                vectors: torch.Tensor = file.get_tensor(key).float()
                return vectors[: _virtual_tokens(path)] if key == "prompt_embeddings" else vectors
    raise SoftpruneError(
        f"a tensor named {' or '.join(_KEYS)}",
        f"{', '.join(names) or 'nothing'} in {path}",
        "check prompt.file",
    )


def _virtual_tokens(path: Path) -> int | None:
    """Tokens of a peft prompt, None where no adapter_config.json says."""
    config = path.with_name("adapter_config.json")
    if not config.is_file():
        return None
    tokens = json.loads(config.read_text(encoding="utf-8")).get("num_virtual_tokens")
    return int(tokens) if tokens else None
