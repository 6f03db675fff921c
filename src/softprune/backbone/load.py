"""Load a backbone by name: what family it is, where its files are, which dtype and device suit this machine."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprune.errors import SoftpruneError
from softprune.registry import Registry, unknown

if TYPE_CHECKING:
    import torch

    from softprune.backbone.base import Backbone

logger = logging.getLogger(__name__)

FAMILIES: Registry[type[Backbone]] = Registry(
    "family",
    {
        "seq2seq": "softprune.backbone.seq2seq:Seq2SeqBackbone",
        "causal": "softprune.backbone.causal:CausalBackbone",
        "masked": "softprune.backbone.masked:MaskedBackbone",
        "sentence": "softprune.backbone.sentence:SentenceBackbone",
    },
)
BUNDLED = ("tiny",)
DTYPES = ("float32", "bfloat16", "float16", "float64")

# The end of a class name in config.architectures tells the family.
_SUFFIXES = {
    "ForConditionalGeneration": "seq2seq",
    "ForCausalLM": "causal",
    "LMHeadModel": "causal",
    "ForMaskedLM": "masked",
    "ForPreTraining": "masked",
}
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
    """

    name: str
    source: str
    family: str
    config: Any
    hidden: int
    positions: int | None
    notes: tuple[str, ...]


def describe(
    name: str, family: str = "auto", revision: str | None = None, trust_remote_code: bool = False
) -> Described:
    """Read a backbone's configuration and find its family: `family`, else `modules.json`, else `architectures`.

    Raises:
        SoftpruneError: when it can't be found or its family can't be told.
    """
    from transformers import AutoConfig

    source = _source(name)
    try:
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise _not_found(name, error) from error
    found, notes = _family(source, family, config, revision)
    embedding = getattr(config, "word_embed_proj_dim", None) or getattr(config, "embedding_size", None)
    hidden = int(embedding or getattr(config, "hidden_size", None) or config.d_model)
    return Described(name, source, found, config, hidden, _positions(config), notes)


def load_backbone(
    name: str = "tiny",
    *,
    family: str = "auto",
    dtype: str = "auto",
    device: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Backbone:
    """A frozen backbone, ready to read prompts.

    Args:
        name: a bundled model ("tiny"), a local folder, or a Hugging Face hub name.
        family: seq2seq, causal, masked, sentence, or auto.
        dtype: auto (bfloat16 where the hardware multiplies it fast, else float32), or one of `DTYPES`.
        device: auto (a GPU where there is one), or a torch device.
        revision: of a hub model.
        trust_remote_code: run code that comes with the model; never on unless you ask.

    Raises:
        SoftpruneError: when it can't be found, loaded, or is of no known family.
    """
    import torch

    described = describe(name, family, revision, trust_remote_code)
    place = resolve_device(device)
    number = resolve_dtype(dtype, place)
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        tokenizer = import_module("transformers").AutoTokenizer.from_pretrained(described.source, **options)
        model = _model_class(described).from_pretrained(described.source, dtype=number, **options)
    except (OSError, ValueError, KeyError) as error:
        raise _not_found(name, error) from error
    try:
        return wrap(described, model.to(place), tokenizer)
    except torch.OutOfMemoryError as error:
        raise SoftpruneError(
            f"room for {name} on {place}", "out of memory", "choose --device cpu or a smaller dtype"
        ) from error


def wrap(described: Described, model: Any, tokenizer: Any) -> Backbone:
    """A backbone around a loaded model and its tokenizer."""
    from softprune.backbone.base import BackboneInfo
    from softprune.backbone.pooling import mean_head, read_head

    weight = model.get_input_embeddings().weight
    info = BackboneInfo(
        name=described.name,
        family=described.family,
        fingerprint=fingerprint(model),
        dtype=str(weight.dtype).removeprefix("torch."),
        device=str(weight.device),
        hidden=int(weight.shape[1]),
        parameters=sum(p.numel() for p in model.parameters()),
        positions=described.positions,
    )
    if described.family != "sentence":
        return FAMILIES[described.family](model, tokenizer, info)
    from softprune.backbone.sentence import SentenceBackbone

    folder = Path(described.source)
    head = read_head(folder) if (folder / "modules.json").is_file() else mean_head()
    return SentenceBackbone(model, tokenizer, info, head.to(weight.device, weight.dtype))


def resolve_device(device: str) -> torch.device:
    """The device to use: what was asked for, or a GPU where there is one.

    Raises:
        SoftpruneError: for a device that isn't there.
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SoftpruneError("a device of this machine", device, "try --device cpu, or auto") from error
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


def fingerprint(model: Any) -> str:
    """Short hash of a model's configuration and of a few numbers of every weight: which backbone a ticket fits."""
    digest = hashlib.sha256()
    config = {k: v for k, v in model.config.to_dict().items() if k not in ("dtype", "transformers_version")}
    config.pop("_name_or_path", None)
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name, weight in sorted(model.named_parameters()):
        sample = weight.detach().flatten()[:: max(1, weight.numel() // 16)][:16]
        values = [f"{value:.3g}" for value in sample.float().tolist()]
        digest.update(f"{name} {tuple(weight.shape)} {values}".encode())
    return digest.hexdigest()[:16]


def _source(name: str) -> str:
    if name in BUNDLED:
        return str(files("softprune.backbone") / "bundled" / name)
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        # A sentence model may keep its encoder in a folder of its own, as modules.json says.
        modules = Path(name) / "modules.json"
        if not modules.is_file():
            raise SoftpruneError("a model folder with config.json", f"none in {name}", "check the path")
    return name


def _not_found(name: str, error: Exception) -> SoftpruneError:
    reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    near = unknown("backbone", name, BUNDLED)
    return SoftpruneError(
        "a bundled model, a local model folder, or a hub name that can be reached",
        f'"{name}" ({reason})',
        f"{near.do}; or check the path or name, and the network",
    )


def _family(source: str, asked: str, config: Any, revision: str | None) -> tuple[str, tuple[str, ...]]:
    if asked != "auto":
        return FAMILIES.check(asked), ()
    if _has_modules(source, revision):
        return "sentence", ()
    names: list[str] = list(getattr(config, "architectures", None) or [])
    for architecture in names:
        for suffix, family in _SUFFIXES.items():
            if architecture.endswith(suffix):
                return family, ()
    if any(name.endswith(("Model", "EncoderModel")) for name in names) and not _decodes(config):
        note = f"{names[0]} is a bare encoder: read as a sentence model with mean pooling (--family changes it)"
        return "sentence", (note,)
    raise SoftpruneError(
        "an architecture whose family can be told",
        f"architectures {names or 'not stated'} in its configuration",
        f"name it: --family {' | '.join(FAMILIES.names())}",
    )


def _decodes(config: Any) -> bool:
    return bool(getattr(config, "is_encoder_decoder", False) or getattr(config, "is_decoder", False))


def _has_modules(source: str, revision: str | None) -> bool:
    if Path(source).is_dir():
        return (Path(source) / "modules.json").is_file()
    from transformers.utils import cached_file

    found = cached_file(
        source,
        "modules.json",
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    return found is not None


def _positions(config: Any) -> int | None:
    """The longest sequence of absolute positions; None for relative ones (T5, BLOOM)."""
    if config.model_type in ("t5", "mt5", "umt5", "bloom"):
        return None
    length = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if length is None:
        return None
    # RoBERTa's positions begin behind its padding index.
    offset = int(config.pad_token_id) + 1 if config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet") else 0
    return int(length) - offset


def _model_class(described: Described) -> Any:
    from softprune.backbone.architectures import ENCODER_CLASSES

    transformers = import_module("transformers")
    transformers.utils.logging.disable_progress_bar()
    if described.family != "sentence":
        return getattr(transformers, _AUTO_CLASSES[described.family])
    return getattr(transformers, ENCODER_CLASSES.get(described.config.model_type, "AutoModel"))
