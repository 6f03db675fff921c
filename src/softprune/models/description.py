"""What is known of a backbone before its weights load: where its files are, its family, its sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprune.config.registry import Registry, unknown
from softprune.errors import SoftpruneError
from softprune.models.load_errors import BUNDLED, check_weights, reading_model

if TYPE_CHECKING:
    from softprune.models.base import Backbone

FAMILIES: Registry[type[Backbone]] = Registry(
    "family",
    {
        "seq2seq": "softprune.models.seq2seq:Seq2SeqBackbone",
        "causal": "softprune.models.causal:CausalBackbone",
        "masked": "softprune.models.masked:MaskedBackbone",
        "sentence": "softprune.models.sentence:SentenceBackbone",
    },
)

# Families by the end of a class name in config.architectures.
_SUFFIXES = {
    "ForConditionalGeneration": "seq2seq",
    "ForCausalLM": "causal",
    "LMHeadModel": "causal",
    "ForMaskedLM": "masked",
    "ForPreTraining": "masked",
}
_POSITIONS_BEHIND_PAD = ("roberta", "xlm-roberta", "camembert", "mpnet")

WRAPPED_WEIGHTS = {
    r"^(?:model\.)?language_model\.lm_head\.": "lm_head.",
    r"^(?:model\.)?(?:language_model|text_model)\.(?:model\.)?": "model.",
}
"""Weights of a text model inside a wrapper's checkpoint, as old and new releases name them, and their own names."""


@dataclass(frozen=True, slots=True)
class BackboneDescription:
    """What is known of a backbone before its weights load."""

    name: str  # what the user typed
    source: str  # a local folder, or a hub name
    options: dict[str, Any]  # what transformers' `from_pretrained` is given beside the source to find the right files
    # What it is given beside these for the weights alone: of a wrapper or a GGUF file, how they become a text model's.
    weight_options: dict[str, Any] = field(default_factory=dict, kw_only=True)
    family: str  # seq2seq, causal, masked or sentence
    config: Any  # its Hugging Face configuration
    hidden: int  # H
    positions: int | None  # longest sequence it reads, None where nothing limits it
    notes: tuple[str, ...]  # what the user should know (how the family was found, when it had to be guessed)
    modules: Path | None = None  # local folder that holds a sentence model's modules.json, None where there is none

    @property
    def folder(self) -> Path:
        """Of its files; of a hub model, none that exists."""
        return Path(self.source, self.options.get("subfolder", ""))


def describe(
    name: str | Path, family: str = "auto", revision: str | None = None, trust_remote_code: bool = False
) -> BackboneDescription:
    """Read a backbone's configuration and find its family: `family`, else `modules.json`, else `architectures`.

    Raises:
        SoftpruneError: it or its family can't be found, or softprune reads no such weights or sentence modules.
    """
    from transformers import AutoConfig

    from softprune.models.pooling import check_modules, read_text_prompts

    if family != "auto":
        FAMILIES.check(family)
    name = str(name)
    source = find_source(name)
    gguf_file = find_gguf(source)
    if gguf_file is not None:
        return _describe_gguf(name, gguf_file, family)
    with reading_model(name, Path(source), "modules.json"):
        modules, encoder = find_modules(source, revision)
    options = {"subfolder": encoder, "revision": revision, "trust_remote_code": trust_remote_code}
    with reading_model(name, Path(source) / encoder, "config.json"):
        config = AutoConfig.from_pretrained(source, **options)
        text = find_text_part(config)
        weight_options: dict[str, Any] = {"use_safetensors": True}
        if text is config or family not in ("auto", "causal"):
            family, notes = _find_family(family, config, modules is not None)
        else:
            parts = ", ".join(sorted(set(config.sub_configs) - {"text_config"})).replace("_config", "")
            notes = (f'the text model of a "{config.model_type}"; the rest of it ({parts}) is not loaded',)
            family, config = "causal", text
            weight_options |= {"config": text, "key_mapping": WRAPPED_WEIGHTS}
        if family == "sentence" and modules is not None:
            check_modules(modules)
            default, prompts = read_text_prompts(modules)
            if default:
                notes = (*notes, f'"{default}" precedes every text, as the model asks in its configuration')
            elif prompts:
                named = ", ".join(f'{name} ("{text}")' for name, text in prompts.items())
                notes = (*notes, f"the model knows prompts for a task's template to begin with: {named}")
        check_weights(name, Path(source) / encoder)
        hidden, positions = _read_sizes(config)
    return BackboneDescription(
        name, source, options, family, config, hidden, positions, notes, modules, weight_options=weight_options
    )


def _describe_gguf(name: str, path: Path, family: str) -> BackboneDescription:
    """Read what a GGUF file says of its model; transformers has readers for decoders alone."""
    from transformers import AutoConfig

    if family not in ("auto", "causal"):
        expected, found = "--family causal (or auto) for a GGUF file, which holds a model that writes text", family
        raise SoftpruneError(expected, found, "leave --family out, or use the model's safetensors")
    check_gguf_package()
    options = {"gguf_file": path.name}
    with reading_model(name, path.parent, path.name):
        config = AutoConfig.from_pretrained(str(path.parent), **options)
        hidden, positions = _read_sizes(config)
        packing = import_module("transformers.utils.quantization_config").GgufConfig(dequantize=True)
    note = (
        f"{path.name} is dequantised: the prompt is trained on its rounded weights, unpacked to the dtype of the run, "
        "so it takes the memory and time of a model that was never quantised"
    )
    weight_options = {"quantization_config": packing}
    return BackboneDescription(
        name, str(path.parent), options, "causal", config, hidden, positions, (note,), weight_options=weight_options
    )


def check_gguf_package() -> None:
    """Refuse a GGUF file where the package that reads such files is missing."""
    if find_spec("gguf") is None:
        expected, do = "the package gguf, which reads GGUF files", "pip install 'softprune[gguf]'"
        raise SoftpruneError(expected, "it isn't installed", do)


def find_gguf(source: str) -> Path | None:
    """The GGUF file that a name means: itself, or the only one in a folder without a config.json."""
    path = Path(source)
    if path.suffix == ".gguf" and path.is_file():
        return path
    if not path.is_dir() or (path / "config.json").is_file():
        return None
    files = sorted(path.glob("*.gguf"))
    if len(files) > 1:
        names = ", ".join([file.name for file in files[:3]] + ["..."] * (len(files) > 3))
        found = f"{len(files)} in {source} ({names})"
        raise SoftpruneError("one GGUF file", found, "name one of them: --backbone FOLDER/FILE.gguf")
    return files[0] if files else None


def find_source(name: str) -> str:
    """Where a backbone's files are: a local folder (of a bundled model too), or the hub name as it is; no network."""
    if name in BUNDLED:
        return str(files("softprune.models") / "bundled" / name)
    path = Path(name)
    if path.is_dir():
        if not any((path / file).is_file() for file in ("config.json", "modules.json")) and find_gguf(name) is None:
            raise SoftpruneError("a model folder with config.json", f"none in {name}", "check the path")
    elif find_gguf(name) is not None:
        return name
    elif path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or path.is_file():
        found = "a file" if path.is_file() else "nothing"
        raise SoftpruneError(
            "the folder of a model (config.json, model.safetensors, tokenizer)", f"{found} at {name}", "check the path"
        )
    elif "/" not in name and get_close_matches(name, BUNDLED, cutoff=0.85):
        raise unknown("backbone", name, BUNDLED)  # a slip of the pen: no need to ask the hub, and to wait for it
    return name


def find_modules(source: str, revision: str | None) -> tuple[Path | None, str]:
    """The local folder of a sentence model's modules.json, and where beside it the encoder's files are.

    The folder is None where the model has none; the place is "" or, in old models, a folder of their own. Of a hub
    model, what `modules.json` names is fetched into the cache.
    """
    from softprune.models.pooling import read_modules

    folder = Path(source)
    if not folder.is_dir():
        listing = _fetch_file(source, "modules.json", revision)
        if listing is None:
            return None, ""
        folder = listing.parent
        for module in read_modules(folder):
            if module["path"] and not module["type"].endswith("Transformer"):
                for file in ("config.json", "model.safetensors"):
                    _fetch_file(source, f"{module['path']}/{file}", revision)
        _fetch_file(source, "config_sentence_transformers.json", revision)
    if not (folder / "modules.json").is_file():
        return None, ""
    if (folder / "config.json").is_file():
        return folder, ""
    paths = [entry["path"] for entry in read_modules(folder) if entry["type"].endswith("Transformer")]
    return folder, paths[0] if paths else ""


def _fetch_file(source: str, name: str, revision: str | None) -> Path | None:
    path = import_module("transformers.utils").cached_file(
        source,
        name,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    return None if path is None else Path(path)


def find_text_part(config: Any) -> Any:
    """The configuration of the text model inside a wrapper's (Gemma 3 with vision, Qwen 3.5), or the one it is given.

    Raises:
        SoftpruneError: transformers can't load that part by itself, or softprune can't read it.
    """
    kind, parts = config.model_type, sorted(getattr(config, "sub_configs", None) or ())
    if "text_config" in parts and not hasattr(config, "hidden_size"):
        text = config.get_text_config()
        auto = import_module("transformers.models.auto.modeling_auto")
        if text.model_type not in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or getattr(text, "is_encoder_decoder", False):
            raise SoftpruneError(
                "a wrapper whose text model writes text by itself",
                f'"{kind}", which holds "{text.model_type}"',
                "use a checkpoint that holds a text model alone",
            )
        # What the wrapper says of its whole counts for this part too: whether the head is the embeddings, packing.
        for key in ("tie_word_embeddings", "quantization_config", "dtype"):
            if getattr(config, key, None) is not None:
                setattr(text, key, getattr(config, key))
        return text
    if parts and not hasattr(config, "hidden_size") and not _has_two_stacks(config):
        raise SoftpruneError(
            "an architecture with one configuration for its text",
            f'"{kind}", whose {" and ".join(parts)} have configurations of their own',
            "use another backbone",
        )
    return config


def _has_two_stacks(config: Any) -> bool:
    """Whether encoder and decoder have configurations of their own, as T5Gemma's have."""
    return bool(config.is_encoder_decoder) and hasattr(getattr(config, "encoder", None), "model_type")


def _find_family(asked: str, config: Any, has_modules: bool) -> tuple[str, tuple[str, ...]]:
    """The family, and what the user should know of how it was found."""
    if asked != "auto":
        return asked, ()
    if has_modules:
        return "sentence", ()
    names: list[str] = list(getattr(config, "architectures", None) or [])
    for name in names:
        is_t5_encoder = name.endswith("EncoderModel")  # its configuration is the whole T5's
        if getattr(config, "is_encoder_decoder", False) and name.endswith(("Model", *_SUFFIXES)) and not is_t5_encoder:
            return "seq2seq", ()  # T5WithLMHeadModel, and bart-base's bare BartModel
        for suffix, family in _SUFFIXES.items():
            if name.endswith(suffix):
                return family, ()
        if is_t5_encoder or (name.endswith("Model") and _reads_both_ways(config)):
            note = f"{name} is a bare encoder: read as a sentence model with mean pooling (--family changes it)"
            return "sentence", (note,)
    raise SoftpruneError(
        "an architecture whose family is known",
        f"architectures {names or 'not stated'} in its configuration",
        f"name its family, such as --family {FAMILIES.names()[0]} (or {', '.join(FAMILIES.names()[1:])})",
    )


def _reads_both_ways(config: Any) -> bool:
    """Whether transformers knows a masked model of this type."""
    auto = import_module("transformers.models.auto.modeling_auto")
    known = auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return config.model_type in known and not getattr(config, "is_decoder", False)


def _read_sizes(config: Any) -> tuple[int, int | None]:
    """H, and the longest sequence of absolute positions; None for relative ones (T5, BLOOM, XLNet's -1)."""
    if _has_two_stacks(config):  # the prompt goes to the encoder
        config = config.encoder
    config = config.get_text_config()
    # The first two keys are of input embeddings that the model projects to another size.
    keys = ("word_embed_proj_dim", "embedding_size", "hidden_size", "d_model")
    hidden = next((int(getattr(config, key)) for key in keys if getattr(config, key, None)), None)
    if hidden is None:
        found = f'none in architecture "{config.model_type}"'
        raise SoftpruneError("a configuration that states its hidden size", found, "use another one")
    length = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if config.model_type in ("t5", "mt5", "umt5", "bloom") or length is None or int(length) < 0:
        return hidden, None
    pad = getattr(config, "pad_token_id", None)
    if config.model_type in _POSITIONS_BEHIND_PAD and pad is not None:
        return hidden, int(length) - int(pad) - 1
    return hidden, int(length)
