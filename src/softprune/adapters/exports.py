"""An adapter for programs that read peft's: LoRA and IA3 as they are, P-tuning's prompt as a PROMPT_TUNING adapter."""

from __future__ import annotations

from pathlib import Path

from softprune.adapters.adapter_io import SavedAdapter
from softprune.adapters.p_tuning import STORED as VECTORS
from softprune.errors import SoftpruneError
from softprune.prompts.prompt_io import CONFIG, TASK_TYPES, WEIGHTS, adapter_files
from softprune.runs.atomic_io import json_text, tensor_bytes, write_folder

_PREFIX = "peft lays out a prefix otherwise for encoder-decoders, and has no task for encoders that embed or fill masks"
_WHY_NOT = {
    "full": "all weights were trained: there is nothing beside them",
    "last-layer": "weights of the model itself were trained",
    "p-tuning": "peft puts a prompt before CLS, softprune after it",
    "prefix": _PREFIX,
    "p-tuning-v2": _PREFIX,
}


def export_adapter(adapter: SavedAdapter, folder: str | Path) -> tuple[str, ...]:
    """Write an adapter as peft does into a new or empty folder, whole or not at all; returns the names of its files.

    Raises:
        SoftpruneError: for methods and families that peft has no place for, and for a folder that holds something.
    """
    info, method = adapter.info, adapter.plan.method
    if method == "p-tuning" and info.family in TASK_TYPES:
        files = adapter_files(adapter.tensors[VECTORS], info.backbone, info.family)
    elif adapter.peft is not None:
        config = adapter.peft | {
            "base_model_name_or_path": info.backbone,
            "inference_mode": True,
            "task_type": TASK_TYPES.get(info.family),
        }
        # peft keeps numbers under the name of the module, without the adapter's own.
        tensors = {f"base_model.model.{name.replace('.default', '')}": t for name, t in adapter.tensors.items()}
        weights = tensor_bytes(tensors, {"format": "pt"})
        files = {CONFIG: (json_text(config, indent=2) + "\n").encode(), WEIGHTS: weights}
    else:
        raise SoftpruneError(
            "an adapter of lora or ia3, or of p-tuning for a seq2seq or causal backbone, to be written as peft's",
            f"one of {method}: {_WHY_NOT[method]}",
            "use it with softprune predict, or softprune.read_adapter(FOLDER).load() in Python",
        )
    write_folder(Path(folder), files)
    return tuple(files)
