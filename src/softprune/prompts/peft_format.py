"""peft's PROMPT_TUNING adapters, read and written without peft: a JSON file and a safetensors file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from softprune.errors import SoftpruneError
from softprune.runs.atomic_io import json_text, tensor_bytes

CONFIG: Final = "adapter_config.json"
WEIGHTS: Final = "adapter_model.safetensors"
TYPE: Final = "PROMPT_TUNING"

# Where peft puts a prompt as softprune does: first in the (encoder's) input.
TASK_TYPES: Final = {"seq2seq": "SEQ_2_SEQ_LM", "causal": "CAUSAL_LM"}
_WHY_NOT: Final = {
    "masked": "peft puts a prompt before CLS, softprune after it, and peft has no task type for masked models",
    "sentence": "peft puts a prompt before CLS, softprune after it, and peft scores no answers by cosine",
}


@dataclass(frozen=True, slots=True)
class Adapter:
    """What an adapter's configuration says.

    Attributes:
        tokens: its `num_virtual_tokens`, of one prompt where it holds two.
        backbone: name of the model that it was trained on, "" where it doesn't say.
    """

    tokens: int
    backbone: str


def read_adapter(path: Path) -> Adapter:
    """The configuration of a prompt tuning adapter.

    Raises:
        SoftpruneError: when it can't be read, or is of another type.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SoftpruneError("a peft adapter's configuration", f"{path}: {error}", "save the adapter again") from error
    if not isinstance(config, dict):
        raise SoftpruneError("a peft adapter's configuration", f"no JSON object in {path}", "save the adapter again")
    kind, tokens = config.get("peft_type"), config.get("num_virtual_tokens")
    if kind != TYPE:
        raise SoftpruneError(
            f"a peft adapter of type {TYPE}", f"{kind} in {path}", "only prompts that are vectors alone can be read"
        )
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
        raise SoftpruneError("num_virtual_tokens of 1 or more", f"{tokens} in {path}", "save the adapter again")
    return Adapter(tokens, str(config.get("base_model_name_or_path") or ""))


def check_family(family: str) -> None:
    """Hold a family to those whose prompts peft reads as softprune does.

    Raises:
        SoftpruneError: for masked and sentence backbones; it says why.
    """
    if family not in TASK_TYPES:
        raise SoftpruneError(
            "a seq2seq or causal backbone for a peft adapter",
            f"a {family} backbone: {_WHY_NOT[family]}",
            "export with --format safetensors",
        )


def adapter_files(vectors_QH: torch.Tensor, backbone: str, family: str) -> dict[str, bytes]:
    """The files of an adapter by name.

    `num_transformer_submodules` is 1: under peft's default of 2, half of a sequence-to-sequence prompt is never read.
    Layers and heads mean nothing to a prompt before the input, but peft asks for them, and refuses a model whose
    configuration has other names for them (MPT) or none (Mamba, RWKV).

    Args:
        vectors_QH: the prompt as the backbone reads it, `[Q, H]`.
        backbone: name of the model that it was trained on.
        family: the backbone's, seq2seq or causal.
    """
    check_family(family)
    config = {
        "base_model_name_or_path": backbone,
        "inference_mode": True,
        "num_attention_heads": 1,
        "num_layers": 1,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": vectors_QH.shape[0],
        "peft_type": TYPE,
        "prompt_tuning_init": "RANDOM",
        "task_type": TASK_TYPES[family],
        "token_dim": vectors_QH.shape[1],
    }
    return {
        CONFIG: (json_text(config, indent=2) + "\n").encode(),
        WEIGHTS: tensor_bytes({"prompt_embeddings": vectors_QH.float()}, {"format": "pt"}),
    }
