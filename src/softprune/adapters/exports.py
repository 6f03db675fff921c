"""An adapter for programs that read peft's: LoRA and IA3 as they are, P-tuning's prompt as a PROMPT_TUNING adapter."""

from __future__ import annotations

from pathlib import Path

from softprune.adapters.adapter_io import SavedAdapter
from softprune.adapters.ptuning import STORED as VECTORS
from softprune.errors import SoftpruneError
from softprune.prompts.prompt_io import CONFIG, TASK_TYPES, WEIGHTS, adapter_files
from softprune.runs.atomic_io import json_text, tensor_bytes, write_folder

_TWICE = "peft lays out a prefix otherwise for encoder-decoders, and has no task for encoders that embed or fill masks"
_WHY_NOT = {
    "full": "all weights were trained: there is nothing beside them",
    "last-layer": "weights of the model itself were trained",
    "p-tuning": "peft puts a prompt before CLS, softprune after it",
    "prefix": _TWICE,
    "p-tuning-v2": _TWICE,
}


def export_adapter(adapter: SavedAdapter, folder: str | Path) -> tuple[str, ...]:
    """Write an adapter as peft does into a new or empty folder, whole or not at all.

    Args:
        adapter: of lora or ia3, or of p-tuning with a seq2seq or causal backbone.
        folder: where.

    Returns:
        The names of its files.

    Raises:
        SoftpruneError: for other methods, for a family whose prompts peft reads otherwise, and for a folder that holds
            something.
    """
    files = _files(adapter)
    write_folder(Path(folder), files)
    return tuple(files)


def _files(adapter: SavedAdapter) -> dict[str, bytes]:
    info, method = adapter.info, adapter.plan.method
    if method == "p-tuning" and info.family in TASK_TYPES:
        return adapter_files(adapter.tensors[VECTORS], info.backbone, info.family)
    if adapter.peft is None:
        raise SoftpruneError(
            "an adapter of lora or ia3, or of p-tuning for a seq2seq or causal backbone, to be written as peft's",
            f"one of {method}: {_WHY_NOT[method]}",
            "use it with softprune predict, or softprune.read_adapter(FOLDER).load() in Python",
        )
    # peft keeps numbers under the name of the module, without the adapter's own.
    tensors = {f"base_model.model.{name.replace('.default', '')}": t for name, t in adapter.tensors.items()}
    config = adapter.peft | {
        "base_model_name_or_path": info.backbone,
        "inference_mode": True,
        "task_type": TASK_TYPES.get(info.family),
    }
    return {
        CONFIG: (json_text(config, indent=2) + "\n").encode(),
        WEIGHTS: tensor_bytes(tensors, {"format": "pt"}),
    }
