"""Models that can't be taken: what was found there, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from softprune.errors import SoftpruneError
from softprune.registry import unknown

BUNDLED = ("tiny", "tiny-seq2seq", "tiny-causal")


def undescribed(name: str, source: str, error: Exception) -> SoftpruneError:
    """What a configuration that doesn't load means."""
    if "trust_remote_code" in str(error):
        do = "read that code; if you trust it, add backbone.trust_remote_code=true"
        return SoftpruneError("a model that needs no code of its own", f"{name} comes with Python code", do)
    if "model type" in str(error) or "model_type" in str(error):
        do = "choose another model, or a newer transformers (pip install -U transformers)"
        return SoftpruneError("an architecture that transformers knows", f"{name}: {reason(error)}", do)
    return unreadable(name, source, error)


def unreadable(name: str, source: str, error: Exception) -> SoftpruneError:
    """What files that don't load mean: a damaged copy, or a hub that can't be reached."""
    if not Path(source).is_dir():
        return _not_found(name, error)
    if "Unrecognized configuration class" in str(error):
        found = f"{name}: {reason(error).partition(' for this kind')[0][:160]}"
        return SoftpruneError("a family that the model's architecture has", found, "leave --family out")
    return SoftpruneError(
        f"a whole model in {name} (config.json, safetensors, tokenizer)",
        reason(error),
        "copy or download the model again: a file of it is damaged or missing",
    )


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
    found = f"only {pickled[0]}, which is pickled and never loaded" if pickled else "no weights"
    do = "save the model anew with save_pretrained, which writes safetensors" if pickled else "copy its weights there"
    raise SoftpruneError(f"weights as safetensors in {name}", found, do)


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


def reason(error: Exception) -> str:
    """What an error says, and what the first in its chain says: libraries often hide the one behind the other."""
    root: BaseException = error
    while root.__cause__ or root.__context__:
        root = root.__cause__ or root.__context__ or root
    told = [_sentence(error), *([] if isinstance(root, KeyError) else [_sentence(root)])]
    return "; ".join(dict.fromkeys(told))


def _sentence(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].partition('. ')[0].rstrip('.')[:200]}" if lines else type(error).__name__
