"""Prompts on disk: softprune's safetensors files, and `.npy` arrays such as T5X prompt tuning writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from softprune.errors import SoftpruneError

# Where a prompt's vectors are in files of different makers, first found first taken.
_KEYS = ("vectors_PH", "prompt_embeddings")


def load_vectors(path: Path) -> torch.Tensor:
    """A prompt `[P, H]` from a `.safetensors` or `.npy` file, float32. Nothing is unpickled.

    Raises:
        SoftpruneError: when the file is missing, unreadable, or holds no prompt.
    """
    if not path.is_file():
        raise SoftpruneError("a prompt file (.safetensors or .npy)", f"no file {path}", "check prompt.file")
    try:
        if path.suffix == ".npy":
            return torch.from_numpy(np.load(path, allow_pickle=False).astype(np.float32))
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            for key in _KEYS:
                if key in names:
                    return file.get_tensor(key).float()
    except (OSError, ValueError, SafetensorError) as error:
        raise SoftpruneError("a readable prompt file", f"{path}: {error}", "save it anew") from error
    raise SoftpruneError(
        f"a tensor named {' or '.join(_KEYS)}", f"{', '.join(names) or 'nothing'} in {path}", "check prompt.file"
    )
