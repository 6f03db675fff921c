"""Load a backbone by name: what family it is, where its files are, which dtype and device suit this machine."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprune.config.registry import Registry, unknown
from softprune.errors import SoftpruneError, out_of_memory
from softprune.models.fingerprint import fingerprint, quantization_of
from softprune.models.load_errors import BUNDLED as BUNDLED
from softprune.models.load_errors import (
    check_complete,
    check_readable,
    check_weights,
    read_tokenizer,
    reading_model,
    reason,
)
from softprune.models.placement import (
    DeviceMap,
    check_packed,
    check_placed,
    check_placement,
    check_quantizer,
    keep_differentiable,
    placing,
)

if TYPE_CHECKING:
    import torch

    from softprune.models.base import Backbone
    from softprune.models.pooling import Head

logger = logging.getLogger(__name__)

FAMILIES: Registry[type[Backbone]] = Registry(
    "family",
    {
        "seq2seq": "softprune.models.seq2seq:Seq2SeqBackbone",
        "causal": "softprune.models.causal:CausalBackbone",
        "masked": "softprune.models.masked:MaskedBackbone",
        "sentence": "softprune.models.sentence:SentenceBackbone",
    },
)
DTYPES = ("float32", "bfloat16", "float16", "float64")

# The end of a class name in config.architectures tells the family.
_SUFFIXES = {
    "ForConditionalGeneration": "seq2seq",
    "ForCausalLM": "causal",
    "LMHeadModel": "causal",
    "ForMaskedLM": "masked",
    "ForPreTraining": "masked",
}
_POSITIONS_BEHIND_PAD = ("roberta", "xlm-roberta", "camembert", "mpnet")
_AUTO_CLASSES = {"seq2seq": "AutoModelForSeq2SeqLM", "causal": "AutoModelForCausalLM", "masked": "AutoModelForMaskedLM"}


@dataclass(frozen=True, slots=True)
class Described:
    """What is known of a backbone before its weights load.

    Attributes:
        name: what the user typed.
        source: a local folder, or a hub name.
        family: seq2seq, causal, masked or sentence.
        config: its Hugging Face configuration.
        hidden: H.
        positions: longest sequence it reads, None where nothing limits it.
        notes: what the user should know (how the family was found, when it had to be guessed).
        modules: local folder that holds a sentence model's modules.json, None where there is none.
        encoder: folder of the encoder's files inside `source`; "" where they lie beside modules.json.
    """

    name: str
    source: str
    family: str
    config: Any
    hidden: int
    positions: int | None
    notes: tuple[str, ...]
    modules: Path | None = None
    encoder: str = ""


def describe(
    name: str, family: str = "auto", revision: str | None = None, trust_remote_code: bool = False
) -> Described:
    """Read a backbone's configuration and find its family: `family`, else `modules.json`, else `architectures`.

    Raises:
        SoftpruneError: when it can't be found, its family can't be told, or it has no weights or sentence modules
            that softprune reads.
    """
    from transformers import AutoConfig

    from softprune.models.pooling import check_modules

    if family != "auto":
        FAMILIES.check(family)
    source = find_source(name)
    with reading_model(name, source, "", "modules.json"):
        modules = module_folder(source, revision)
        encoder = encoder_folder(modules) if modules is not None else ""
    with reading_model(name, source, encoder, "config.json"):
        config = AutoConfig.from_pretrained(
            source, subfolder=encoder, revision=revision, trust_remote_code=trust_remote_code
        )
        check_readable(config)
        found, notes = _family(family, config, modules is not None)
        if found == "sentence" and modules is not None:
            check_modules(modules)
        check_weights(name, Path(source) / encoder)
        return Described(name, source, found, config, _hidden(config), _positions(config), notes, modules, encoder)


def load_backbone(
    name: str | Path = "tiny",
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
        name: a bundled model (one of `BUNDLED`), a local folder, or a Hugging Face hub name.
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

    name = str(name)
    check_placement(device, device_map, quantization)
    described = describe(name, family, revision, trust_remote_code)
    place = resolve_device(device)
    check_quantizer(quantization, place)
    number = resolve_dtype(dtype, place)
    packed = getattr(described.config, "quantization_config", None) is not None
    placed = placing(place, number, device_map, quantization, packed)
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
            backbone.recompute()
    return backbone


def _is_slow(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether transformers' usual choice of attention is slower than plain products.

    torch's fused attention in bfloat16 on a CPU goes back through a short text 1.5 to 3 times slower than the plain
    products do; from about 300 tokens on they are even (docs/log.md).
    """
    import torch

    return device.type == "cpu" and dtype is torch.bfloat16


def wrap(described: Described, model: Any, tokenizer: Any) -> Backbone:
    """A backbone around a loaded model and its tokenizer."""
    from softprune.models.base import BackboneInfo

    weight = model.get_input_embeddings().weight
    packed = quantization_of(model)
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


def _sentence_head(described: Described, like: torch.Tensor) -> Head:
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
        fast = (
            torch.cuda.is_bf16_supported(including_emulation=False)
            if device.type == "cuda"
            else torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        )
        return torch.bfloat16 if fast else torch.float32
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    found: torch.dtype = getattr(torch, dtype)
    return found


def module_folder(source: str, revision: str | None) -> Path | None:
    """Local folder with a sentence model's modules.json and what it names; None where the model has none.

    Of a hub model, the files that `modules.json` names are fetched into the cache, beside it.
    """
    if Path(source).is_dir():
        return Path(source) if (Path(source) / "modules.json").is_file() else None
    from softprune.models.pooling import read_modules

    found = _hub_file(source, "modules.json", revision)
    if found is None:
        return None
    for module in read_modules(found.parent):
        if module["path"] and not module["type"].endswith("Transformer"):
            for file in ("config.json", "model.safetensors"):
                _hub_file(source, f"{module['path']}/{file}", revision)
    return found.parent


def encoder_folder(modules: Path) -> str:
    """Where the encoder's files are, relative to modules.json: "" or, in old models, a folder of their own."""
    from softprune.models.pooling import read_modules

    if (modules / "config.json").is_file():
        return ""
    paths = [entry["path"] for entry in read_modules(modules) if entry["type"].endswith("Transformer")]
    return paths[0] if paths else ""


def find_source(name: str) -> str:
    """Where a backbone's files are: a local folder (of a bundled model too), or the hub name as it is. Asks no network.

    Raises:
        SoftpruneError: for a path without a model, and for a bundled model's name misspelt.
    """
    if name in BUNDLED:
        return str(files("softprune.models") / "bundled" / name)
    path = Path(name)
    if path.is_dir():
        if not any((path / file).is_file() for file in ("config.json", "modules.json")):
            raise SoftpruneError("a model folder with config.json", f"none in {name}", "check the path")
    elif path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or path.is_file():
        found = "a file" if path.is_file() else "nothing"
        raise SoftpruneError(
            "the folder of a model (config.json, model.safetensors, tokenizer)", f"{found} at {name}", "check the path"
        )
    elif "/" not in name and get_close_matches(name, BUNDLED, cutoff=0.85):
        raise unknown("backbone", name, BUNDLED)  # a slip of the pen: no need to ask the hub, and to wait for it
    return name


def _family(asked: str, config: Any, modules: bool) -> tuple[str, tuple[str, ...]]:
    if asked != "auto":
        return asked, ()
    if modules:
        return "sentence", ()
    names: list[str] = list(getattr(config, "architectures", None) or [])
    for name in names:
        if name.endswith("EncoderModel"):
            return "sentence", (_bare_encoder(name),)
        if getattr(config, "is_encoder_decoder", False) and name.endswith(("Model", *_SUFFIXES)):
            return "seq2seq", ()  # T5WithLMHeadModel, and bart-base's bare BartModel
        for suffix, family in _SUFFIXES.items():
            if name.endswith(suffix):
                return family, ()
        if name.endswith("Model") and _encodes(config):
            return "sentence", (_bare_encoder(name),)
    raise SoftpruneError(
        "an architecture whose family can be told",
        f"architectures {names or 'not stated'} in its configuration",
        f"name its family, such as --family {FAMILIES.names()[0]} (or {', '.join(FAMILIES.names()[1:])})",
    )


def _bare_encoder(name: str) -> str:
    return f"{name} is a bare encoder: read as a sentence model with mean pooling (--family changes it)"


def _encodes(config: Any) -> bool:
    """Whether a model reads in both directions: then transformers knows a masked model of its type."""
    auto = import_module("transformers.models.auto.modeling_auto")
    known = auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return config.model_type in known and not getattr(config, "is_decoder", False)


def _hub_file(source: str, name: str, revision: str | None) -> Path | None:
    from transformers.utils import cached_file

    found = cached_file(
        source,
        name,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    return None if found is None else Path(found)


def _hidden(config: Any) -> int:
    """H: of the input embeddings, which some models project to another size."""
    for key in ("word_embed_proj_dim", "embedding_size", "hidden_size", "d_model"):
        if getattr(config, key, None):
            return int(getattr(config, key))
    raise SoftpruneError(
        "a configuration that states its hidden size", f'none in architecture "{config.model_type}"', "use another one"
    )


def _positions(config: Any) -> int | None:
    """The longest sequence of absolute positions; None for relative ones (T5, BLOOM, XLNet's -1)."""
    if config.model_type in ("t5", "mt5", "umt5", "bloom"):
        return None
    length = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if length is None or int(length) < 0:
        return None
    # These count positions from behind the padding index.
    pad = getattr(config, "pad_token_id", None)
    return int(length) - (int(pad) + 1 if config.model_type in _POSITIONS_BEHIND_PAD and pad is not None else 0)


def _model_class(described: Described) -> Any:
    from softprune.models.architectures import ENCODER_CLASSES

    transformers = import_module("transformers")
    transformers.utils.logging.disable_progress_bar()
    if described.family != "sentence":
        return getattr(transformers, _AUTO_CLASSES[described.family])
    return getattr(transformers, ENCODER_CLASSES.get(described.config.model_type, "AutoModel"))
