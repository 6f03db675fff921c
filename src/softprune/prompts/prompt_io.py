"""Prompts on disk: safetensors files, peft's PROMPT_TUNING adapters (without peft), and `.npy` arrays such as T5X's."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from softprune.errors import SoftpruneError
from softprune.runs.atomic_io import json_text, tensor_bytes
from softprune.runs.tensor_files import read_tensors, real_numbers
from softprune.types import Chat, Mask

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
_PEFT: Final = "PROMPT_TUNING"
TASK_TYPES: Final = {"seq2seq": "SEQ_2_SEQ_LM", "causal": "CAUSAL_LM"}
"""Families where peft puts a prompt as softprune does: first in the (encoder's) input."""
_WHY_NOT: Final = {
    "masked": "peft puts a prompt before CLS, softprune after it, and peft has no task type for masked models",
    "sentence": "peft scores no answers by cosine, and puts a prompt before CLS where softprune puts it after it",
}
# Where a prompt's vectors are in files of different makers; the first that is there counts.
_KEYS: Final = ("vectors_PH", "prompt_embeddings")
_PICKLED: Final = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
"""Formats that run code when they are read, or may."""


@dataclass(frozen=True, slots=True)
class SavedPrompt:
    """A prompt as a file holds it."""

    vectors_PH: torch.Tensor  # `[P, H]` float32
    kind: str  # what the file is, in words
    metadata: Mapping[str, str]  # what the file says of itself
    notes: tuple[str, ...] = ()  # what of it was left out


def load_vectors(path: str | Path) -> torch.Tensor:
    """The vectors `[P, H]` of `read_prompt`."""
    return read_prompt(path).vectors_PH


def read_prompt(path: str | Path) -> SavedPrompt:
    """A prompt from a `.safetensors` or `.npy` file, or a folder with a peft adapter. Nothing is unpickled.

    A peft adapter may hold a second prompt for the decoder; its first `num_virtual_tokens` rows are the encoder's.

    Raises:
        SoftpruneError: when it is missing, unreadable, pickled, or no prompt.
    """
    file = Path(path)
    if file.is_dir():
        if not (file / CONFIG).is_file():
            expected, found = "a prompt file, or a folder with a peft adapter", f"no {CONFIG} in {file}"
            raise SoftpruneError(expected, found, "check its path")
        _read_adapter_config(file / CONFIG)  # an adapter of another type is refused as that, whatever its weights are
        # Older peft saved pickles; a folder may hold both.
        is_pickled = not (file / WEIGHTS).is_file() and (file / "adapter_model.bin").is_file()
        file /= "adapter_model.bin" if is_pickled else WEIGHTS
    if not file.is_file():
        expected = "a prompt file (.safetensors or .npy) or a peft adapter's folder"
        raise SoftpruneError(expected, f"no file {file}", "check its path")
    if file.suffix in _PICKLED:
        raise SoftpruneError(
            "a prompt in a format that can't run code (.safetensors, .npy)",
            f"{file}, which is pickled; softprune never loads such files",
            "save it as safetensors where you trust it (peft: save_pretrained(folder, safe_serialization=True))",
        )
    try:
        saved = _read_array(file) if file.suffix == ".npy" else _read_tensor(file)
    except (OSError, ValueError, TypeError, EOFError, MemoryError, OverflowError, SafetensorError) as error:
        raise SoftpruneError("a readable prompt file of numbers", f"{file}: {error}", "save it again") from error
    shape = list(saved.vectors_PH.shape)
    if len(shape) != 2 or 0 in shape:
        raise SoftpruneError("a prompt of shape [P, H]", f"{shape} in {file}", "choose another file")
    return saved


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
            found = f"{', '.join(names) or 'nothing'} in {path}"
            raise SoftpruneError(f"a tensor named {' or '.join(_KEYS)}", found, "check its path")
        vectors = real_numbers(file.get_tensor(key), key)
    config = path.with_name(CONFIG)
    if key != "prompt_embeddings" or not config.is_file():
        return SavedPrompt(vectors, "prompt (safetensors)", metadata)
    tokens, backbone = _read_adapter_config(config)
    rows = len(vectors)
    if rows not in (tokens, 2 * tokens):
        expected = f"{tokens} or {2 * tokens} rows in a peft prompt of {tokens} virtual tokens"
        raise SoftpruneError(expected, f"{rows} in {path}", "save the adapter again")
    notes: tuple[str, ...] = ()
    if rows > tokens:
        notes = (f"the first {tokens} of {rows} rows were taken: the others are a prompt for the decoder",)
    return SavedPrompt(vectors[:tokens], "peft adapter", {"backbone": backbone}, notes)


def _read_adapter_config(path: Path) -> tuple[int, str]:
    """Of a prompt tuning adapter `num_virtual_tokens`, and the name of its backbone or ""."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SoftpruneError("a peft adapter's configuration", f"{path}: {error}", "save the adapter again") from error
    if not isinstance(config, dict):
        raise SoftpruneError("a peft adapter's configuration", f"no JSON object in {path}", "save the adapter again")
    kind, tokens = config.get("peft_type"), config.get("num_virtual_tokens")
    if kind != _PEFT:
        do = "only prompts that are vectors alone can be read"
        raise SoftpruneError(f"a peft adapter of type {_PEFT}", f"{kind} in {path}", do)
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:  # JSON's true is an int of Python
        raise SoftpruneError("num_virtual_tokens of 1 or more", f"{tokens} in {path}", "save the adapter again")
    return tokens, str(config.get("base_model_name_or_path") or "")


def load_mask(path: str | Path) -> Mask:
    """The mask, which leaves something, of a `.safetensors` file with `token_P` and `piece_PS`, such as a ticket's."""
    try:
        token_P, piece_PS = read_tensors(Path(path), ("token_P", "piece_PS")).values()
    except (OSError, ValueError, SafetensorError) as error:
        do = "give a ticket's ticket.safetensors, or a file that softprune.prompts.prompt_io.mask_bytes made"
        raise SoftpruneError("a .safetensors file with token_P and piece_PS", f"{path}: {error}", do) from error
    is_bool = token_P.dtype == piece_PS.dtype == torch.bool
    # A token survives exactly where a piece of it does.
    if not is_bool or piece_PS.dim() != 2 or not torch.equal(piece_PS.any(1), token_P) or not token_P.any():
        found = f"token_P {list(token_P.shape)}, piece_PS {list(piece_PS.shape)} in {path}"
        raise SoftpruneError("a mask [P] and [P, S] that agree, and leave a token", found, "choose another file")
    return Mask(token_P, piece_PS)


def mask_bytes(mask: Mask) -> bytes:
    """A safetensors file that `load_mask` reads."""
    return tensor_bytes({"token_P": mask.token_P, "piece_PS": mask.piece_PS}, {})


def prompt_bytes(vectors_PH: torch.Tensor, metadata: Mapping[str, str]) -> bytes:
    """A safetensors file with `prompt_embeddings` `[P, H]` in float32, as `read_prompt` and peft read it."""
    return tensor_bytes({"prompt_embeddings": vectors_PH.float()}, metadata)


def check_reading(backbone: str, embedding_scale: float, has_layer_embeddings: bool) -> None:
    """A SoftpruneError for a backbone to which peft gives something else than it reads itself."""
    do = "export with --format safetensors"
    # Pegasus, Marian and others multiply the embeddings of ids, but not vectors that are given in their place.
    if embedding_scale != 1:
        expected = "a backbone whose input embeddings peft gives it as it reads them itself"
        found = f"{backbone}, which multiplies them by {embedding_scale:g}, and peft doesn't"
        raise SoftpruneError(expected, found, do)
    if has_layer_embeddings:
        expected = "a backbone that reads nothing of a token but its vector"
        found = f"{backbone}, which looks up an embedding of every token id for each layer: peft gives it none"
        raise SoftpruneError(expected, found, do)


def adapter_files(vectors_QH: torch.Tensor, backbone: str, family: str, chat: Chat | None = None) -> dict[str, bytes]:
    """The files of a peft adapter by name, of a prompt as the backbone reads it, if peft's of its family do too."""
    if family not in TASK_TYPES:
        expected, found = "a seq2seq or causal backbone for a peft adapter", f"a {family} backbone: {_WHY_NOT[family]}"
        raise SoftpruneError(expected, found, "export with --format safetensors")
    if chat is not None and chat.place == "system":
        expected = "a prompt in front of the whole input, which is where peft puts it"
        found = "one inside the system's turn (chat.place: system)"
        raise SoftpruneError(expected, found, "export with --format safetensors, or train with chat.place: front")
    config = {
        "base_model_name_or_path": backbone,
        "inference_mode": True,
        # Layers and heads mean nothing to a prompt before the input, but peft asks for them, and refuses a model whose
        # configuration has other names for them (MPT) or none (Mamba, RWKV).
        "num_attention_heads": 1,
        "num_layers": 1,
        "num_transformer_submodules": 1,  # peft's default of 2 never reads half of a sequence-to-sequence prompt
        "num_virtual_tokens": vectors_QH.shape[0],
        "peft_type": _PEFT,
        "prompt_tuning_init": "RANDOM",
        "task_type": TASK_TYPES[family],
        "token_dim": vectors_QH.shape[1],
    }
    return {
        CONFIG: (json_text(config, indent=2) + "\n").encode(),
        WEIGHTS: prompt_bytes(vectors_QH, {"format": "pt"}),
    }
