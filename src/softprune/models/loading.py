"""Load a backbone: its weights and tokenizer, on the dtype and device that suit this machine.

Models on several devices and quantised ones are transformers' own: accelerate spreads a model's layers, bitsandbytes
packs its matrices.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from softprune.config.registry import unknown
from softprune.errors import SoftpruneError, out_of_memory
from softprune.models.description import FAMILIES, BackboneDescription, describe
from softprune.models.fingerprint import fingerprint
from softprune.models.load_errors import quiet, read_tokenizer, reading_model, reason

if TYPE_CHECKING:
    import torch

    from softprune.models.base import Backbone

DTYPES = ("float32", "bfloat16", "float16", "float64")
DEVICE_MAPS = ("none", "auto", "balanced", "balanced_low_0", "sequential")
QUANTIZATIONS = ("none", "8bit", "4bit")

DeviceMap: TypeAlias = str | Mapping[str, Any]
"""One of `DEVICE_MAPS`, or modules' names with their devices, as accelerate takes them."""

_AUTO_CLASSES = {
    "seq2seq": "AutoModelForSeq2SeqLM",
    "causal": "AutoModelForCausalLM",
    "masked": "AutoModelForMaskedLM",
    "sentence": "AutoModel",
}


def load_backbone(
    name: str | Path | BackboneDescription = "tiny",
    *,
    family: str = "auto",
    dtype: str = "auto",
    device: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    device_map: DeviceMap = "none",
    quantization: str = "none",
    checkpointing: bool = False,
) -> Backbone:
    """A frozen backbone, ready to read prompts.

    Args:
        name: a bundled model (one of `BUNDLED`), a local folder, a Hugging Face hub name; or what `describe` said of
            one, so that its configuration isn't read twice.
        family: seq2seq, causal, masked, sentence, or auto.
        dtype: auto (bfloat16 where the hardware multiplies it fast, else float32), or one of `DTYPES`.
        device: auto (a GPU where there is one), or a torch device.
        revision: of a hub model.
        trust_remote_code: run code that comes with the model; never on unless you ask.
        device_map: none (all on `device`), or how accelerate spreads the layers: auto, balanced, balanced_low_0,
            sequential, or modules' names with their devices.
        quantization: none, 8bit or 4bit: weights packed by bitsandbytes while they load.
        checkpointing: compute layers again in the backward pass instead of keeping what they computed.

    Raises:
        SoftpruneError: when it can't be found, loaded, or is of no known family.
    """
    from softprune.models.checkpointing import enable_checkpointing
    from softprune.models.load_check import check_reading, prefer_eager

    check_placement(device, device_map, quantization)
    described = name if isinstance(name, BackboneDescription) else describe(name, family, revision, trust_remote_code)
    if quantization != "none" and "gguf_file" in described.options:
        expected, found = "backbone.quantization=none for a GGUF file", quantization
        raise SoftpruneError(expected, found, "leave it out: what the file holds is dequantised while it loads")
    place = resolve_device(device)
    check_quantizer(quantization, place)
    number = resolve_dtype(dtype, place)
    placed = placement_options(described.config, place, number, device_map, quantization)
    with reading_model(described.name, described.folder, "its tokenizer"):
        tokenizer = read_tokenizer(described.source, **described.options)
    with reading_model(described.name, described.folder, "its weights", str(place)):
        model = _read_weights(described, dtype=number, **placed)
        # torch's fused attention in bfloat16 on a CPU goes back through a short text 1.5 to 3 times slower than plain
        # products do; from about 300 tokens on they are even (docs/log.md).
        if place.type == "cpu" and str(number) == "torch.bfloat16":
            prefer_eager(model.eval())
        backbone = wrap(described, model if placed else model.to(place), tokenizer)
        with quiet():  # transformers says at a model's first forward that faster kernels aren't installed
            check_reading(backbone)
        if checkpointing:
            enable_checkpointing(backbone)
    return backbone


def _read_weights(described: BackboneDescription, **options: Any) -> Any:
    """The Hugging Face model with all of its weights, each where it was asked for."""
    from softprune.models.architectures import ENCODER_CLASSES

    transformers = import_module("transformers")
    kind = _AUTO_CLASSES[described.family]
    if described.family == "sentence":
        kind = ENCODER_CLASSES.get(described.config.model_type, kind)
    options = {"output_loading_info": True, **described.options, **described.weight_options, **options}
    with quiet():  # transformers lists every weight of a wrapper's other parts, which nobody asked for
        model, loaded = getattr(transformers, kind).from_pretrained(described.source, **options)
    # transformers fills what a checkpoint lacks with random numbers; a sentence model's pooler isn't read.
    harmless = ("pooler.",) if described.family == "sentence" else ()
    lacking = sorted(weight for weight in loaded["missing_keys"] if not any(part in weight for part in harmless))
    if lacking:
        raise SoftpruneError(
            f"weights of a whole {described.family} model",
            f"{described.name} lacks {len(lacking)} of them ({', '.join(lacking[:3])}, ...)",
            "choose a checkpoint that was saved with its head, or another --family",
        )
    check_placed(described.name, model)
    check_packed(described.name, model)
    for module in model.modules():
        # bitsandbytes would pack 4-bit weights again for inference on a CPU, and no gradient passes through those.
        if getattr(module, "support_avx512bf16_for_cpu", False):
            module.support_avx512bf16_for_cpu = False
    return model


def wrap(described: BackboneDescription, model: Any, tokenizer: Any) -> Backbone:
    """A backbone around a loaded model and its tokenizer."""
    from softprune.models.base import BackboneInfo
    from softprune.models.pooling import Head, read_head, read_text_prompts
    from softprune.models.sentence import SentenceBackbone

    weight = model.get_input_embeddings().weight
    head, lead = None, ""
    if described.family == "sentence":
        head = Head(("mean",), [])
        if described.modules is not None:
            head, lead = read_head(described.modules), read_text_prompts(described.modules)[0]
        head = head.to(weight.device, weight.dtype)
    packed = detect_quantization(model)
    # Only transformers knows how many weights a packed matrix holds.
    parameters = model.num_parameters() if packed else sum(p.numel() for p in model.parameters())
    info = BackboneInfo(
        name=described.name,
        family=described.family,
        fingerprint=fingerprint(model, head, lead),
        dtype=str(weight.dtype).removeprefix("torch."),
        device=str(weight.device),
        hidden=int(weight.shape[1]),
        parameters=parameters,
        positions=described.positions,
        quantization=packed,
    )
    if head is None:
        return FAMILIES[described.family](model, tokenizer, info)
    return SentenceBackbone(model, tokenizer, info, head, lead)


def resolve_device(device: str) -> torch.device:
    """The device to use: what was asked for, if it is there; under `auto` a GPU where there is one."""
    import torch

    if device == "auto":
        by_launch = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"  # accelerate launch --cpu
        return torch.device("cuda" if not by_launch and torch.cuda.is_available() else "cpu")
    try:
        torch.device(device)
    except RuntimeError as error:
        raise SoftpruneError("a device: auto, cpu, cuda, cuda:1 or mps", f'"{device}"', "correct --device") from error
    try:
        torch.ones(1, device=device).tolist()  # "meta" makes tensors, but holds no numbers
    except (RuntimeError, AssertionError) as error:
        if out_of_memory(error):
            raise
        raise SoftpruneError("a device of this machine", f"{device} ({reason(error)})", "set --device cpu") from error
    return torch.device(device)


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The dtype of the weights: bfloat16 under `auto` where the hardware multiplies it fast."""
    import torch

    if dtype == "auto":
        if device.type == "cuda":
            is_fast = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            # torch says it in no public function. Elsewhere bfloat16 is emulated, and slower than float32.
            is_fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if is_fast else torch.float32
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    number: torch.dtype = getattr(torch, dtype)
    return number


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
