"""Load a backbone: its weights and tokenizer, on the dtype and device that suit this machine."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprune.config.registry import unknown
from softprune.errors import SoftpruneError, out_of_memory
from softprune.models.description import FAMILIES, BackboneDescription, describe
from softprune.models.fingerprint import detect_quantization, fingerprint
from softprune.models.load_errors import check_complete, read_tokenizer, reading_model, reason
from softprune.models.placement import (
    DeviceMap,
    check_packed,
    check_placed,
    check_placement,
    check_quantizer,
    keep_differentiable,
    placement_options,
)

if TYPE_CHECKING:
    import torch

    from softprune.models.base import Backbone
    from softprune.models.pooling import Head

DTYPES = ("float32", "bfloat16", "float16", "float64")

_AUTO_CLASSES = {"seq2seq": "AutoModelForSeq2SeqLM", "causal": "AutoModelForCausalLM", "masked": "AutoModelForMaskedLM"}


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
    from softprune.models.load_check import prefer_eager

    check_placement(device, device_map, quantization)
    if isinstance(name, BackboneDescription):
        described = name
    else:
        described = describe(str(name), family, revision, trust_remote_code)
    name = described.name
    place = resolve_device(device)
    check_quantizer(quantization, place)
    number = resolve_dtype(dtype, place)
    packed = getattr(described.config, "quantization_config", None) is not None
    placed = placement_options(place, number, device_map, quantization, packed)
    options = {"subfolder": described.encoder, "revision": revision, "trust_remote_code": trust_remote_code}
    with reading_model(name, described.source, described.encoder, "its tokenizer"):
        tokenizer = read_tokenizer(described.source, **options)
    with reading_model(name, described.source, described.encoder, "its weights", str(place)):
        model, loaded = _model_class(described).from_pretrained(
            described.source,
            dtype=number,
            use_safetensors=True,
            output_loading_info=True,
            **options,
            **placed,
        )
        check_complete(name, described.family, loaded["missing_keys"])
        check_placed(name, model)
        check_packed(name, model)
        keep_differentiable(model)
        if _is_slow(number, place):
            prefer_eager(model.eval())
        backbone = wrap(described, model if placed else model.to(place), tokenizer)
        if checkpointing:
            backbone.enable_checkpointing()
    return backbone


def _is_slow(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether transformers' usual choice of attention is slower than plain products.

    torch's fused attention in bfloat16 on a CPU goes back through a short text 1.5 to 3 times slower than the plain
    products do; from about 300 tokens on they are even (docs/log.md).
    """
    import torch

    return device.type == "cpu" and dtype is torch.bfloat16


def wrap(described: BackboneDescription, model: Any, tokenizer: Any) -> Backbone:
    """A backbone around a loaded model and its tokenizer."""
    from softprune.models.base import BackboneInfo

    weight = model.get_input_embeddings().weight
    packed = detect_quantization(model)
    head = _sentence_head(described, weight) if described.family == "sentence" else None
    info = BackboneInfo(
        name=described.name,
        family=described.family,
        fingerprint=fingerprint(model, head),
        dtype=str(weight.dtype).removeprefix("torch."),
        device=str(weight.device),
        hidden=int(weight.shape[1]),
        parameters=model.num_parameters() if packed else sum(p.numel() for p in model.parameters()),
        positions=described.positions,
        quantization=packed,
    )
    if head is None:
        return FAMILIES[described.family](model, tokenizer, info)
    from softprune.models.sentence import SentenceBackbone

    return SentenceBackbone(model, tokenizer, info, head)


def _sentence_head(described: BackboneDescription, like: torch.Tensor) -> Head:
    from softprune.models.pooling import mean_head, read_head

    head = mean_head() if described.modules is None else read_head(described.modules)
    return head.to(like.device, like.dtype)


def resolve_device(device: str) -> torch.device:
    """The device to use: what was asked for, or a GPU where there is one.

    Raises:
        SoftpruneError: for what is no device, or one that isn't there.
    """
    import torch

    if device == "auto" and os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true":  # accelerate launch --cpu
        return torch.device("cpu")
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
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


def _model_class(described: BackboneDescription) -> Any:
    from softprune.models.architectures import ENCODER_CLASSES

    transformers = import_module("transformers")
    transformers.utils.logging.disable_progress_bar()
    if described.family != "sentence":
        return getattr(transformers, _AUTO_CLASSES[described.family])
    return getattr(transformers, ENCODER_CLASSES.get(described.config.model_type, "AutoModel"))
