"""Models that can't be loaded: what is wrong with their files, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from softprune.config.registry import unknown
from softprune.errors import SoftpruneError, out_of_memory

BUNDLED = ("tiny", "tiny-seq2seq", "tiny-causal")

SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "model.safetensors.index.json",
)
"""JSON files next to a model's weights, as transformers saves them."""


@contextmanager
def reading_model(name: str, source: str, folder: str, part: str, room: str = "cpu") -> Iterator[None]:
    """Turn whatever transformers raises while it reads a model's files into one message.

    Damaged files surface as errors of every kind: of transformers' own checks, of json's recursion limit, of attributes
    that a list lacks, of packages that a quantised model needs.

    Args:
        name: what the user typed.
        source: a local folder, or a hub name.
        folder: of the model's files in `source`.
        part: what is read, for the message.
        room: the device that the weights go to.
    """
    try:
        yield
    except SoftpruneError:
        raise
    except Exception as error:
        if out_of_memory(error):
            do = "choose a smaller model, --dtype bfloat16, or --device cpu where there is more memory"
            raise SoftpruneError(f"room for {name} on {room}", "out of memory", do) from error
        raise _refused(name, Path(source) / folder, part, error) from error


def _refused(name: str, folder: Path, part: str, error: Exception) -> SoftpruneError:
    """What an error at load means, the likeliest cause first."""
    text = str(error)
    if "trust_remote_code" in text:
        do = "read that code; if you trust it, add backbone.trust_remote_code=true"
        return SoftpruneError("a model that needs no code of its own", f"{name} comes with Python code", do)
    if not folder.is_dir() and isinstance(error, OSError | KeyError):
        return _not_found(name, error)
    damage = find_damage(folder)
    if damage is not None:
        return damage
    if "model type" in text or "model_type" in text:
        do = "choose another model, or a newer transformers (pip install -U transformers)"
        return SoftpruneError("an architecture that transformers knows", f"{name}: {reason(error)}", do)
    if isinstance(error, ImportError) and "bitsandbytes" in text:
        expected, do = "a version of bitsandbytes that transformers accepts", "pip install -U bitsandbytes accelerate"
        return SoftpruneError(expected, reason(error), do)
    if isinstance(error, ImportError):
        do = "install what it names (pip install ...), or choose a model that doesn't need it"
        return SoftpruneError(f"the packages that {name} needs", reason(error), do)
    if "Unrecognized configuration class" in text:
        found = f"{name}: {reason(error).partition(' for this kind')[0][:160]}"
        return SoftpruneError("a family that the model's architecture has", found, "leave --family out")
    return SoftpruneError(
        f"a whole model in {name} (config.json, safetensors, tokenizer)", f"{part}: {reason(error)}", _what_to_do(error)
    )


def _what_to_do(error: Exception) -> str:
    if isinstance(error, OSError | SafetensorError):
        return "copy or download the model again: a file of it is damaged or missing"
    return "copy or download the model again, or try another version of transformers, which can't read its files"


def find_damage(folder: Path) -> SoftpruneError | None:
    """An error that names the first damaged one of a local model's small files; None where all are as expected."""
    for file in SMALL_FILES:
        path = folder / file
        if not path.is_file():
            continue
        try:
            wrong = _what_is_wrong(file, json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            wrong = f"which isn't JSON ({error})"
        except RecursionError:
            wrong = "which is nested too deep"
        if wrong is not None:
            return SoftpruneError(
                f"a whole model in {folder} (config.json, safetensors, tokenizer)",
                f"{file}, {wrong}",
                f"copy or download {file} again",
            )
    return None


def _what_is_wrong(file: str, content: object) -> str | None:
    if not isinstance(content, dict):
        return f"which holds {_kind(content)}, not a JSON object"
    if file != "config.json":
        return None
    for key, kind in (("model_type", str), ("architectures", list), ("quantization_config", dict)):
        if content.get(key) is not None and not isinstance(content[key], kind):
            return f"whose {key} is {_kind(content[key])}"
    if not all(isinstance(name, str) for name in content.get("architectures") or ()):
        return "whose architectures aren't names"
    for key in ("dtype", "torch_dtype"):
        if isinstance(content.get(key), str) and not _is_dtype(content[key]):
            return f"whose {key} is no dtype: {content[key]!r}"
    return None


def _is_dtype(name: str) -> bool:
    torch = import_module("torch")
    return name == "auto" or isinstance(getattr(torch, name.removeprefix("torch."), None), torch.dtype)


def _kind(value: object) -> str:
    names = {list: "a list", dict: "an object", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _not_found(name: str, error: Exception) -> SoftpruneError:
    near = unknown("backbone", name, BUNDLED)
    return SoftpruneError(
        "a bundled model, a local model folder, or a hub name that can be reached",
        f'"{name}" ({reason(error)})',
        f"check the name and the network, or choose a bundled model ({near.do})",
    )


def check_weights(name: str, folder: Path) -> None:
    """Refuse a local folder without safetensors before anything is read from it: pickled weights can run code.

    Raises:
        SoftpruneError: when there are only pickled ones, or none.
    """
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for path in (*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.ckpt")))
    expected = f"weights as safetensors in {name}"
    if not pickled:
        raise SoftpruneError(expected, "no weights", "copy its weights there")
    do = "save the model again with save_pretrained, which writes safetensors"
    raise SoftpruneError(expected, f"only {pickled[0]}, which is pickled and never loaded", do)


def check_readable(config: Any) -> None:
    """Refuse architectures whose configuration already shows that they can't be used.

    Raises:
        SoftpruneError: for wrappers around several models, and for models that look up token ids in every layer.
    """
    kind, parts = config.model_type, sorted(getattr(config, "sub_configs", None) or ())
    if "text_config" in parts and not hasattr(config, "hidden_size"):
        others = ", ".join(part.removesuffix("_config") for part in parts if part != "text_config")
        raise SoftpruneError(
            "a text model by itself",
            f'"{kind}", which holds its text model ("{config.get_text_config().model_type}") with others ({others})',
            "use a checkpoint that holds the text model alone, or another backbone",
        )
    if parts and not hasattr(config, "hidden_size"):
        raise SoftpruneError(
            "an architecture with one configuration for all of it",
            f'"{kind}", whose {" and ".join(parts)} have configurations of their own',
            "use another backbone",
        )
    if getattr(config, "hidden_size_per_layer_input", None):
        raise SoftpruneError(
            "an architecture that reads vectors in place of tokens",
            f'"{kind}" with per-layer embeddings, which are looked up by token ids: a soft vector has none',
            "use another backbone; Gemma 3 and Gemma 4 without per-layer embeddings can be read",
        )


def check_token_ids(generation: Any) -> None:
    """Refuse a generation_config.json whose special tokens aren't token ids, before a text is generated.

    Raises:
        SoftpruneError: for the first that isn't one.
    """
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"):
        value = getattr(generation, name, None)
        ids = value if isinstance(value, list) else [value]
        if not all(one is None or (isinstance(one, int) and not isinstance(one, bool)) for one in ids):
            raise SoftpruneError(
                f"a token id for {name} in generation_config.json (or config.json)",
                repr(value),
                "copy or download generation_config.json again",
            )


def check_complete(name: str, family: str, missing: Iterable[str]) -> None:
    """Refuse random weights: transformers fills what a checkpoint lacks with fresh random numbers.

    Raises:
        SoftpruneError: when any but a pooler that isn't used is missing.
    """
    harmless = ("pooler.",) if family == "sentence" else ()
    lacking = sorted(weight for weight in missing if not any(part in weight for part in harmless))
    if lacking:
        raise SoftpruneError(
            f"weights of a whole {family} model",
            f"{name} lacks {len(lacking)} of them ({', '.join(lacking[:3])}, ...)",
            "choose a checkpoint that was saved with its head, or another --family",
        )


def read_tokenizer(source: str, **options: Any) -> Any:
    """A model's tokenizer, tried on one word: some damage shows only then."""
    tokenizer = import_module("transformers").AutoTokenizer.from_pretrained(source, **options)
    tokenizer("word")
    return tokenizer


def reason(error: Exception) -> str:
    """What an error says, and what the first in its chain says: libraries often hide the one behind the other."""
    root: BaseException = error
    while root.__cause__ or root.__context__:
        root = root.__cause__ or root.__context__ or root
    sentences = [_sentence(error)]
    if not isinstance(root, KeyError):  # a KeyError says a name and nothing else
        sentences.append(_sentence(root))
    return "; ".join(dict.fromkeys(sentences))


def _sentence(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].partition('. ')[0].rstrip('.')[:200]}" if lines else type(error).__name__
