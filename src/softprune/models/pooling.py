"""What follows a sentence model's encoder: pooling, dense layers, normalisation, read from its `modules.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import nn

from softprune.errors import SoftpruneError, shorten
from softprune.models.architectures import as_weights
from softprune.runs.tensor_files import read_tensors, real_numbers

SUPPORTED = ("Transformer", "Pooling", "Dense", "Normalize")
_ACTIVATIONS = {"Identity": nn.Identity, "Tanh": nn.Tanh, "ReLU": nn.ReLU, "GELU": nn.GELU}
# The modes of `pool`, in the order in which sentence-transformers puts their vectors side by side.
_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def pool(hidden_RLH: torch.Tensor, mask_RL: torch.Tensor, mode: str) -> torch.Tensor:
    """One vector a row, `[R, H]`, from the real tokens."""
    if mode == "cls":
        return hidden_RLH[:, 0]
    if mode == "lasttoken":  # of the real ones: rows are padded on the right, whatever side their tokenizer pads on
        last_R = mask_RL.sum(1) - 1
        return hidden_RLH[torch.arange(len(last_R), device=last_R.device), last_R]
    mask = mask_RL[..., None].to(hidden_RLH.dtype)
    if mode == "max":
        return hidden_RLH.masked_fill(mask == 0, float("-inf")).amax(1)
    if mode == "weightedmean":  # SGPT (Muennighoff 2022): position i weighs i
        mask = mask * torch.arange(1, mask.shape[1] + 1, device=mask.device, dtype=mask.dtype)[:, None]
        mode = "mean"
    count = mask.sum(1)
    return (hidden_RLH * mask).sum(1) / (count if mode == "mean" else count.sqrt())


class Normalise(nn.Module):
    """Scale vectors to length 1."""

    def forward(self, vector: torch.Tensor) -> torch.Tensor:
        """The same directions."""
        return F.normalize(vector, dim=-1)


class Head(nn.Module):
    """Pooling (the vectors of several modes of `pool` side by side), then dense layers and normalisations, in order."""

    def __init__(self, modes: tuple[str, ...], layers: list[nn.Module]) -> None:
        super().__init__()
        self.modes, self.layers = modes, nn.ModuleList(layers)

    def forward(self, hidden_RLH: torch.Tensor, mask_RL: torch.Tensor) -> torch.Tensor:
        """Sentence embeddings `[R, D]`."""
        vector = torch.cat([pool(hidden_RLH, mask_RL, mode) for mode in self.modes], dim=-1)
        for layer in self.layers:
            vector = layer(as_weights(layer, vector))
        return vector


def read_head(folder: Path) -> Head:
    """The head that a sentence model's `modules.json` describes; refused as by `check_modules`."""
    modes: tuple[str, ...] = ("mean",)
    layers: list[nn.Module] = []
    for module in check_modules(folder):
        kind, place = module["type"].rpartition(".")[2], folder / module["path"]
        if kind == "Pooling":
            modes = _pooling_modes(place)
        elif kind == "Dense":
            layers += _dense(place)
        elif kind == "Normalize":
            layers.append(Normalise())
    return Head(modes, layers)


def check_modules(folder: Path) -> list[dict[str, str]]:
    """A sentence model's modules, others than softprune computes are refused; no weight is read."""
    modules = read_modules(folder)
    for module in modules:
        kind = module["type"].rpartition(".")[2]
        if kind not in SUPPORTED:
            raise SoftpruneError(
                f"sentence modules among {', '.join(SUPPORTED)}",
                f"{module['type']} in modules.json",
                "use another sentence model, or name its family (--family masked)",
            )
        if kind == "Pooling":
            _pooling_modes(folder / module["path"])
    return modules


def read_modules(folder: Path) -> list[dict[str, str]]:
    """The entries of a sentence model's modules.json, in order: type and path of each."""
    path = folder / "modules.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(entries, list) or not entries:
            raise TypeError("no list of modules")
        return [{"type": str(entry["type"]), "path": str(entry.get("path", ""))} for entry in entries]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise SoftpruneError(
            "a modules.json that lists modules with type and path",
            f"{path}: {error or type(error).__name__}",
            "save the sentence model again",
        ) from error


def read_text_prompts(folder: Path) -> tuple[str, dict[str, str]]:
    """What a sentence model wants in front of every text, by default "", and all such prompts by name.

    Those are words of `config_sentence_transformers.json`, no soft prompts.
    """
    if not (folder / "config_sentence_transformers.json").is_file():
        return "", {}
    config = _read_config(folder, "config_sentence_transformers.json")
    prompts = {str(name): str(text) for name, text in (config.get("prompts") or {}).items() if text}
    return prompts.get(str(config.get("default_prompt_name")), ""), prompts


def _read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    path = folder / name
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise TypeError("no JSON object")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise SoftpruneError(f"a readable {path}", str(error), "copy or download the model again") from error
    return config


def _pooling_modes(folder: Path) -> tuple[str, ...]:
    config = _read_config(folder)
    named = config.get("pooling_mode")  # since sentence-transformers 5; before that, a switch a mode
    if named:
        names = [named] if isinstance(named, str) else named
        modes = tuple(str(name).removesuffix("_tokens") for name in names)
    else:
        switches = [key for key, on in config.items() if key.startswith("pooling_mode_") and on is True]
        modes = tuple(mode for key, mode in _POOLINGS.items() if key in switches)
        modes += tuple(key for key in switches if key not in _POOLINGS)  # refused below
    if config.get("include_prompt") is False and read_text_prompts(folder.parent)[0]:
        expected, found = "pooling over all of a text", f"include_prompt: false in {folder.name}/config.json"
        raise SoftpruneError(expected, found, "use another sentence model")
    known = set(_POOLINGS.values())
    if not modes or not set(modes) <= known:
        raise SoftpruneError(
            f"pooling modes among {', '.join(sorted(known))}",
            f"{config} in {folder.name}/config.json",
            "use another sentence model",
        )
    return modes


def _dense(folder: Path) -> list[nn.Module]:
    config = _read_config(folder)
    activation = str(config.get("activation_function", "Tanh")).rpartition(".")[2]
    weights, another = folder / "model.safetensors", "use another sentence model"
    if config.get("use_residual"):
        found = f"use_residual in {folder.name}"
        raise SoftpruneError("a dense layer without a residual connection", found, another)
    if activation not in _ACTIVATIONS:
        expected = f"a dense layer with an activation among {', '.join(_ACTIVATIONS)}"
        raise SoftpruneError(expected, activation, another)
    if not weights.is_file():
        raise SoftpruneError(
            f"dense weights as safetensors in {folder.name}",
            "no model.safetensors there",
            "save the model again with a current sentence-transformers (pickled weights are never loaded)",
        )
    try:
        layer = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
        state = {key.removeprefix("linear."): real_numbers(value, key) for key, value in read_tensors(weights).items()}
        layer.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise SoftpruneError(
            f"the dense layer that {folder.name}/config.json describes",
            f"{shorten(error)} in {weights}",
            "copy or download the model again",
        ) from error
    return [layer, _ACTIVATIONS[activation]()]
