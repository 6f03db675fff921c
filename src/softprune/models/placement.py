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
    """Hold what was asked for against itself, before anything is loaded.

    Raises:
        SoftpruneError: for unknown names, and for a device beside a map of devices.
    """
    if isinstance(device_map, str) and device_map not in DEVICE_MAPS:
        raise unknown("device map", device_map, DEVICE_MAPS)
    if quantization not in QUANTIZATIONS:
        raise unknown("quantization", quantization, QUANTIZATIONS)
    if device_map != "none" and device != "auto":
        raise SoftpruneError(
            "backbone.device or backbone.device_map, not both", f"{device} and {device_map}", "leave one of them out"
        )


def check_quantizer(quantization: str, device: torch.device) -> None:
    """Refuse what bitsandbytes can't do here.

    Raises:
        SoftpruneError: when it isn't installed, doesn't load, or doesn't know the device.
    """
    if quantization == "none":
        return
    try:
        _ask_for_no_kernel()
        library = import_module("bitsandbytes")
    except (ImportError, OSError, RuntimeError) as error:
        if out_of_memory(error):
            raise
        raise SoftpruneError(
            f"bitsandbytes, for backbone.quantization={quantization}",
            reason(error),
            "pip install 'softprune[quantization]', or leave backbone.quantization out",
        ) from error
    known = sorted(
        getattr(library, "supported_torch_devices", {"cuda"})
    )  # older versions lack the list, and know CUDA alone
    if device.type not in known:
        raise SoftpruneError(
            f"a device that this bitsandbytes quantises on: {', '.join(known)}",
            str(device),
            "set --device cuda on a machine with such a GPU, or leave backbone.quantization out",
        )


def _ask_for_no_kernel() -> None:
    """Keep bitsandbytes from asking for a kernel on some CPUs that `keep_differentiable` would turn off at once."""
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    if _about_another not in logger.filters:
        logger.addFilter(_about_another)


def _about_another(record: logging.LogRecord) -> bool:
    return "gemm_4bit_forward" not in record.msg


def placement_options(
    device: torch.device, dtype: torch.dtype, device_map: DeviceMap, quantization: str, quantised: bool
) -> dict[str, Any]:
    """What `from_pretrained` is given beside the dtype; nothing for a whole model on one device.

    Args:
        device: for a model without a device map.
        dtype: that 4-bit weights are multiplied in.
        device_map, quantization: what was asked for.
        quantised: whether the checkpoint itself holds packed weights.
    """
    options: dict[str, Any] = {}
    if device_map != "none":
        options["device_map"] = device_map if isinstance(device_map, str) else dict(device_map)
    elif quantization != "none" or quantised:
        options["device_map"] = {"": device}  # packed weights go to their device while they load
    packing: dict[str, Any] = {"load_in_8bit": True}
    if quantization == "4bit":
        # NF4 suits weights that are about normally distributed (QLoRA, Dettmers et al. 2023).
        packing = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
    if quantization != "none":
        options["quantization_config"] = import_module("transformers").BitsAndBytesConfig(**packing)
    return options


def keep_differentiable(model: Any) -> None:
    """Keep bitsandbytes from packing 4-bit weights again for inference on a CPU: no gradient passes through those."""
    for module in model.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            module.support_avx512bf16_for_cpu = False


def check_packed(name: str, model: Any) -> None:
    """Refuse a checkpoint without packed weights whose configuration says that bitsandbytes packed them.

    Raises:
        SoftpruneError: for the first layer without them.
    """
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
    """Refuse a model of which a part was left on the CPU or the disk: each step would carry it over again.

    Raises:
        SoftpruneError: when the accelerators hold only a part of it.
    """
    places = {str(place) for place in getattr(model, "hf_device_map", {}).values()}
    left = places & ({"disk"} if places <= {"cpu", "disk"} else {"cpu", "disk"})
    if left:
        raise SoftpruneError(
            f"room for all of {name} on the devices of backbone.device_map",
            f"a part of it on {' and '.join(sorted(left))}",
            "take --dtype bfloat16, backbone.quantization=4bit, more devices or a smaller model",
        )
