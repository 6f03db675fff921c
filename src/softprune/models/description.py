"""What is known of a backbone before its weights load: where its files are, its family, its sizes."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprune.config.registry import Registry, unknown
from softprune.errors import SoftpruneError
from softprune.models.load_errors import BUNDLED as BUNDLED
from softprune.models.load_errors import check_readable, check_weights, reading_model

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

# The end of a class name in config.architectures tells the family.
_SUFFIXES = {
    "ForConditionalGeneration": "seq2seq",
    "ForCausalLM": "causal",
    "LMHeadModel": "causal",
    "ForMaskedLM": "masked",
    "ForPreTraining": "masked",
}
_POSITIONS_BEHIND_PAD = ("roberta", "xlm-roberta", "camembert", "mpnet")


@dataclass(frozen=True, slots=True)
class BackboneDescription:
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
    name: str | Path, family: str = "auto", revision: str | None = None, trust_remote_code: bool = False
) -> BackboneDescription:
    """Read a backbone's configuration and find its family: `family`, else `modules.json`, else `architectures`.

    Raises:
        SoftpruneError: when it or its family can't be found, or it has no weights or sentence modules
            that softprune reads.
    """
    from transformers import AutoConfig

    from softprune.models.pooling import check_modules

    if family != "auto":
        FAMILIES.check(family)
    name = str(name)
    source = find_source(name)
    with reading_model(name, source, "", "modules.json"):
        modules = module_folder(source, revision)
        encoder = encoder_folder(modules) if modules is not None else ""
    with reading_model(name, source, encoder, "config.json"):
        config = AutoConfig.from_pretrained(
            source, subfolder=encoder, revision=revision, trust_remote_code=trust_remote_code
        )
        check_readable(config)
        family, notes = _find_family(family, config, modules is not None)
        if family == "sentence" and modules is not None:
            check_modules(modules)
        check_weights(name, Path(source) / encoder)
        hidden, positions = _hidden(config), _positions(config)
        return BackboneDescription(name, source, family, config, hidden, positions, notes, modules, encoder)


def module_folder(source: str, revision: str | None) -> Path | None:
    """Local folder with a sentence model's modules.json and what it names; None where the model has none.

    Of a hub model, the files that `modules.json` names are fetched into the cache, beside it.
    """
    if Path(source).is_dir():
        return Path(source) if (Path(source) / "modules.json").is_file() else None
    from softprune.models.pooling import read_modules

    listing = _hub_file(source, "modules.json", revision)
    if listing is None:
        return None
    for module in read_modules(listing.parent):
        if module["path"] and not module["type"].endswith("Transformer"):
            for file in ("config.json", "model.safetensors"):
                _hub_file(source, f"{module['path']}/{file}", revision)
    return listing.parent


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


def _find_family(asked: str, config: Any, modules: bool) -> tuple[str, tuple[str, ...]]:
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
        "an architecture whose family is known",
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

    path = cached_file(
        source,
        name,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    return None if path is None else Path(path)


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
