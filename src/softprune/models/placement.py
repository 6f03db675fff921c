"""Where a backbone's weights lie and in how many bits: over several devices, or quantised.

Both are transformers' own: accelerate spreads a model's layers, bitsandbytes packs its matrices.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

from softprune.config.registry import unknown
from softprune.errors import SoftpruneError, out_of_memory
from softprune.models.load_errors import reason

if TYPE_CHECKING:
    import torch

DEVICE_MAPS = ("none", "auto", "balanced", "balanced_low_0", "sequential")
QUANTIZATIONS = ("none", "8bit", "4bit")

DeviceMap: TypeAlias = str | Mapping[str, Any]
"""One of `DEVICE_MAPS`, or modules' names with their devices, as accelerate takes them."""


def check_placement(device: str, device_map: DeviceMap, quantization: str) -> None:
    """Check what was asked for against itself, before anything is loaded."""
    if isinstance(device_map, str) and device_map not in DEVICE_MAPS:
        raise unknown("device map", device_map, DEVICE_MAPS)
    if quantization not in QUANTIZATIONS:
        raise unknown("quantization", quantization, QUANTIZATIONS)
    if device_map != "none" and device != "auto":
        raise SoftpruneError(
            "backbone.device or backbone.device_map, not both", f"{device} and {device_map}", "leave one of them out"
        )


def check_quantizer(quantization: str, device: torch.device) -> None:
    """Refuse what bitsandbytes can't do here: it isn't installed, doesn't load, or doesn't know the device."""
    if quantization == "none":
        return
    # On some CPUs it warns that it lacks a kernel, which loading would turn off at once.
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    if _is_about_another_kernel not in logger.filters:
        logger.addFilter(_is_about_another_kernel)
    try:
        library = import_module("bitsandbytes")
    except (ImportError, OSError, RuntimeError) as error:
        if out_of_memory(error):
            raise
        raise SoftpruneError(
            f"bitsandbytes, for backbone.quantization={quantization}",
            reason(error),
            "pip install 'softprune[quantization]', or leave backbone.quantization out",
        ) from error
    known = sorted(getattr(library, "supported_torch_devices", {"cuda"}))  # older versions lack it, and know CUDA alone
    if device.type not in known:
        raise SoftpruneError(
            f"a device that this bitsandbytes quantises on: {', '.join(known)}",
            str(device),
            "set --device cuda on a machine with such a GPU, or leave backbone.quantization out",
        )


def _is_about_another_kernel(record: logging.LogRecord) -> bool:
    return "gemm_4bit_forward" not in record.msg


def placement_options(
    config: Any, device: torch.device, dtype: torch.dtype, device_map: DeviceMap, quantization: str
) -> dict[str, Any]:
    """What `from_pretrained` is given beside the dtype; nothing for a whole model on one device.

    The configuration says whether the checkpoint itself holds packed weights. 4-bit ones are multiplied in `dtype`.
    """
    options: dict[str, Any] = {}
    if device_map != "none":
        options["device_map"] = device_map if isinstance(device_map, str) else dict(device_map)
    elif quantization != "none" or getattr(config, "quantization_config", None) is not None:
        options["device_map"] = {"": device}  # packed weights go to their device while they load
    packing: dict[str, Any] = {"load_in_8bit": True}
    if quantization == "4bit":
        # NF4 suits weights that are about normally distributed (QLoRA, Dettmers et al. 2023).
        packing = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
    if quantization != "none":
        options["quantization_config"] = import_module("transformers").BitsAndBytesConfig(**packing)
    return options


def detect_quantization(model: Any) -> str | None:
    """How a model's matrices are packed: 8bit, 4bit, or another method by its name; None where they aren't."""
    for kind in ("8bit", "4bit"):
        if getattr(model, f"is_loaded_in_{kind}", False):
            return kind
    method = getattr(getattr(model.config, "quantization_config", None), "quant_method", None)
    return None if method is None else str(getattr(method, "value", method))


def check_packed(name: str, model: Any) -> None:
    """Refuse a checkpoint without packed weights whose configuration says that bitsandbytes packed them."""
    for where, module in model.named_modules():
        kind, weight = type(module).__name__, getattr(module, "weight", None)
        lacks_4bit = kind in ("Linear4bit", "LinearNF4", "LinearFP4") and getattr(weight, "quant_state", None) is None
        if lacks_4bit or (kind == "Linear8bitLt" and getattr(weight, "SCB", None) is None):
            raise SoftpruneError(
                f"weights of {name} that bitsandbytes packed, as quantization_config in its config.json says",
                f"none packed for {where}",
                "copy or download the model again, or take quantization_config out of config.json",
            )


def check_placed(name: str, model: Any) -> None:
    """Refuse a model of which a part was left on the CPU or the disk: each step would carry it over again."""
    places = {str(place) for place in getattr(model, "hf_device_map", {}).values()}
    left = places & {"cpu", "disk"}
    if places <= {"cpu", "disk"}:  # without an accelerator the CPU is no place to be left behind
        left = places & {"disk"}
    if left:
        raise SoftpruneError(
            f"room for all of {name} on the devices of backbone.device_map",
            f"a part of it on {' and '.join(sorted(left))}",
            "take --dtype bfloat16, backbone.quantization=4bit, more devices or a smaller model",
        )
