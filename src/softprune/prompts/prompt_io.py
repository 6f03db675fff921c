"""Prompts on disk: safetensors files, peft adapters, and `.npy` arrays such as T5X prompt tuning writes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from softprune.errors import SoftpruneError
from softprune.prompts.peft_format import CONFIG, WEIGHTS, Adapter, read_adapter
from softprune.runs.atomic_io import tensor_bytes
from softprune.runs.tensor_files import read_tensors, real_numbers
from softprune.types import Mask

# Where a prompt's vectors are in files of different makers, first found first taken.
_KEYS = ("vectors_PH", "prompt_embeddings")
# Formats that run code when they are read, or may.
_PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


@dataclass(frozen=True, slots=True)
class SavedPrompt:
    """A prompt as a file holds it.

    Attributes:
        vectors_PH: `[P, H]` float32.
        kind: what the file is, in words.
        metadata: what the file says of itself.
        notes: what of it was left out.
    """

    vectors_PH: torch.Tensor
    kind: str
    metadata: Mapping[str, str]
    notes: tuple[str, ...] = ()


def load_vectors(path: str | Path) -> torch.Tensor:
    """The vectors `[P, H]` of `read_prompt`."""
    return read_prompt(path).vectors_PH


def read_prompt(path: str | Path) -> SavedPrompt:
    """A prompt from a `.safetensors` or `.npy` file, or a folder with a peft adapter. Nothing is unpickled.

    A peft adapter may hold a second prompt for the decoder; its first `num_virtual_tokens` rows are the encoder's.

    Raises:
        SoftpruneError: when it is missing, unreadable, pickled, or no prompt.
    """
    path = Path(path)
    file = _adapter_weights(path) if path.is_dir() else path
    if not file.is_file():
        raise SoftpruneError(
            "a prompt file (.safetensors or .npy) or a peft adapter's folder", f"no file {file}", "check its path"
        )
    if file.suffix in _PICKLED:
        raise _pickled(file)
    try:
        saved = _read_array(file) if file.suffix == ".npy" else _read_tensor(file)
    except (OSError, ValueError, TypeError, EOFError, MemoryError, OverflowError, SafetensorError) as error:
        raise SoftpruneError("a readable prompt file of numbers", f"{file}: {error}", "save it again") from error
    if saved.vectors_PH.dim() != 2 or 0 in saved.vectors_PH.shape:
        raise SoftpruneError(
            "a prompt of shape [P, H]", f"{list(saved.vectors_PH.shape)} in {file}", "choose another file"
        )
    return saved


def load_mask(path: str | Path) -> Mask:
    """The mask of a `.safetensors` file that has `token_P` and `piece_PS`, as a ticket's tensors do.

    Raises:
        SoftpruneError: when it is missing or unreadable, holds no mask, or one that leaves nothing.
    """
    try:
        token_P, piece_PS = read_tensors(Path(path), ("token_P", "piece_PS")).values()
    except (OSError, ValueError, SafetensorError) as error:
        do = "give a ticket's ticket.safetensors, or a file that softprune.prompts.prompt_io.mask_bytes made"
        raise SoftpruneError("a .safetensors file with token_P and piece_PS", f"{path}: {error}", do) from error
    mask = Mask(token_P, piece_PS)
    if not _agree(mask) or not bool(token_P.any()):
        found = f"token_P {list(token_P.shape)}, piece_PS {list(piece_PS.shape)} in {path}"
        raise SoftpruneError("a mask [P] and [P, S] that agree, and leave a token", found, "choose another file")
    return mask


def _agree(mask: Mask) -> bool:
    """Whether both levels are truth values, and a token survives just where a piece of it does."""
    levels = (mask.token_P, mask.piece_PS)
    if any(level.dtype != torch.bool for level in levels) or mask.piece_PS.dim() != 2:
        return False
    return torch.equal(mask.piece_PS.any(1), mask.token_P)


def mask_bytes(mask: Mask) -> bytes:
    """A safetensors file that `load_mask` reads."""
    return tensor_bytes({"token_P": mask.token_P, "piece_PS": mask.piece_PS}, {})


def prompt_bytes(vectors_PH: torch.Tensor, metadata: Mapping[str, str]) -> bytes:
    """A safetensors file with `prompt_embeddings` `[P, H]` in float32, as `read_prompt` and peft read it."""
    return tensor_bytes({"prompt_embeddings": vectors_PH.float()}, metadata)


def _adapter_weights(folder: Path) -> Path:
    """The weights of a peft adapter's folder."""
    if not (folder / CONFIG).is_file():
        raise SoftpruneError(
            "a prompt file, or a folder with a peft adapter", f"no {CONFIG} in {folder}", "check its path"
        )
    read_adapter(folder / CONFIG)  # an adapter of another type is refused as that, whatever its weights are in
    pickled = folder / "adapter_model.bin"
    if not (folder / WEIGHTS).is_file() and pickled.is_file():
        raise _pickled(pickled)
    return folder / WEIGHTS


def _pickled(path: Path) -> SoftpruneError:
    return SoftpruneError(
        "a prompt in a format that can't run code (.safetensors, .npy)",
        f"{path}, which is pickled; softprune never loads such files",
        "save it as safetensors where you trust it (peft: save_pretrained(folder, safe_serialization=True))",
    )


def _read_array(path: Path) -> SavedPrompt:
    # NumPy warns of headers that Python 2 wrote, and of numbers beyond float32: these are refused below as infinite.
    with path.open("rb") as file, warnings.catch_warnings(action="ignore"):
        array = np.lib.format.read_array(file, allow_pickle=False)
        if array.dtype.kind not in "fiu":
            raise ValueError(f"an array of {array.dtype}, not of numbers")
        return SavedPrompt(torch.from_numpy(array.astype(np.float32)), "NumPy array", {})


def _read_tensor(path: Path) -> SavedPrompt:
    with safe_open(path, framework="pt") as file:
        names, metadata = list(file.keys()), dict(file.metadata() or {})
        key = next((key for key in _KEYS if key in names), None)
        if key is None:
            raise SoftpruneError(
                f"a tensor named {' or '.join(_KEYS)}", f"{', '.join(names) or 'nothing'} in {path}", "check its path"
            )
        vectors = real_numbers(file.get_tensor(key), key)
    config = path.with_name(CONFIG)
    if key != "prompt_embeddings" or not config.is_file():
        return SavedPrompt(vectors, "prompt (safetensors)", metadata)
    return _encoder_prompt(vectors, read_adapter(config), path)


def _encoder_prompt(vectors: torch.Tensor, adapter: Adapter, path: Path) -> SavedPrompt:
    """The prompt that stands before the encoder's (or the only) input."""
    rows, tokens = vectors.shape[0], adapter.tokens
    if rows not in (tokens, 2 * tokens):
        raise SoftpruneError(
            f"{tokens} or {2 * tokens} rows in a peft prompt of {tokens} virtual tokens",
            f"{rows} in {path}",
            "save the adapter again",
        )
    notes: tuple[str, ...] = ()
    if rows > tokens:
        notes = (f"the first {tokens} of {rows} rows were taken: the others are a prompt for the decoder",)
    return SavedPrompt(vectors[:tokens], "peft adapter", {"backbone": adapter.backbone}, notes)
