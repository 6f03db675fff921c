"""Models that can't be loaded: what is wrong with their files, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Iterator
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
def reading_model(name: str, folder: Path, part: str, room: str = "cpu") -> Iterator[None]:
    """Turn whatever transformers raises while it reads a model's files into one message.

    Damaged files surface as errors of every kind: of transformers' own checks, of json's recursion limit, of attributes
    that a list lacks, of packages that a quantised model needs. `folder` needn't exist (a hub model's doesn't); `part`
    is what is read, and `room` the device that the weights go to.
    """
    try:
        yield
    except SoftpruneError:
        raise
    except Exception as error:
        if out_of_memory(error):
            do = "choose a smaller model, --dtype bfloat16, or --device cpu where there is more memory"
            raise SoftpruneError(f"room for {name} on {room}", "out of memory", do) from error
        raise _explain(name, folder, part, error) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers, which draws bars, and warns at length of a new head or of attention that stays."""
    logging = import_module("transformers.utils.logging")
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _explain(name: str, folder: Path, part: str, error: Exception) -> SoftpruneError:
    """What an error at load means, the likeliest cause first."""
    text, why = str(error), reason(error)
    if "trust_remote_code" in text:
        do = "read that code; if you trust it, add backbone.trust_remote_code=true"
        return SoftpruneError("a model that needs no code of its own", f"{name} comes with Python code", do)
    if not folder.is_dir() and isinstance(error, OSError | KeyError):
        near = unknown("backbone", name, BUNDLED)
        return SoftpruneError(
            "a bundled model, a local model folder, or a hub name that can be reached",
            f'"{name}" ({why})',
            f"check the name and the network, or choose a bundled model ({near.do})",
        )
    damage = find_damage(folder)
    if damage is not None:
        return damage
    if "model type" in text or "model_type" in text:
        do = "choose another model, or a newer transformers (pip install -U transformers)"
        return SoftpruneError("an architecture that transformers knows", f"{name}: {why}", do)
    if isinstance(error, ImportError) and "bitsandbytes" in text:
        expected, do = "a version of bitsandbytes that transformers accepts", "pip install -U bitsandbytes accelerate"
        return SoftpruneError(expected, why, do)
    if isinstance(error, ImportError):
        do = "install what it names (pip install ...), or choose a model that doesn't need it"
        return SoftpruneError(f"the packages that {name} needs", why, do)
    if "Unrecognized configuration class" in text:
        found = f"{name}: {why.partition(' for this kind')[0][:160]}"
        return SoftpruneError("a family that the model's architecture has", found, "leave --family out")
    if isinstance(error, OSError | SafetensorError):
        do = "copy or download the model again: a file of it is damaged or missing"
    else:
        do = "copy or download the model again, or try another version of transformers, which can't read its files"
    return SoftpruneError(f"a whole model in {name} (config.json, safetensors, tokenizer)", f"{part}: {why}", do)


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
            expected = f"a whole model in {folder} (config.json, safetensors, tokenizer)"
            return SoftpruneError(expected, f"{file}, {wrong}", f"copy or download {file} again")
    return None


def _what_is_wrong(file: str, content: object) -> str | None:
    kinds = {list: "a list", dict: "an object", str: "a text", bool: "true or false", type(None): "null"}
    if not isinstance(content, dict):
        return f"which holds {kinds.get(type(content), 'a number')}, not a JSON object"
    if file != "config.json":
        return None
    for key, kind in (("model_type", str), ("architectures", list), ("quantization_config", dict)):
        if content.get(key) is not None and not isinstance(content[key], kind):
            return f"whose {key} is {kinds.get(type(content[key]), 'a number')}"
    if not all(isinstance(name, str) for name in content.get("architectures") or ()):
        return "whose architectures aren't names"
    torch = import_module("torch")
    for key in ("dtype", "torch_dtype"):
        name = content.get(key)
        if not isinstance(name, str) or name == "auto":
            continue
        if not isinstance(getattr(torch, name.removeprefix("torch."), None), torch.dtype):
            return f"whose {key} is no dtype: {name!r}"
    return None


def check_weights(name: str, folder: Path) -> None:
    """Refuse a local folder without safetensors before anything is read from it: pickled weights can run code."""
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for path in (*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.ckpt")))
    expected = f"weights as safetensors in {name}"
    if not pickled:
        raise SoftpruneError(expected, "no weights", "copy its weights there")
    do = "save the model again with save_pretrained, which writes safetensors"
    raise SoftpruneError(expected, f"only {pickled[0]}, which is pickled and never loaded", do)


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
    if not lines:
        return type(error).__name__
    return f"{type(error).__name__}: {lines[0].partition('. ')[0].rstrip('.')[:200]}"
