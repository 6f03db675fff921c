"""What follows a sentence model's encoder: pooling, dense layers, normalisation, read from its `modules.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from softprune.errors import SoftpruneError

SUPPORTED = ("Transformer", "Pooling", "Dense", "Normalize")
_ACTIVATIONS = {"Identity": nn.Identity, "Tanh": nn.Tanh, "ReLU": nn.ReLU, "GELU": nn.GELU}
_POOLINGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
}


def pool(hidden_RLH: torch.Tensor, mask_RL: torch.Tensor, mode: str) -> torch.Tensor:
    """One vector a row, `[R, H]`, from the real tokens."""
    if mode == "cls":
        return hidden_RLH[:, 0]
    mask = mask_RL[..., None].to(hidden_RLH.dtype)
    if mode == "max":
        return hidden_RLH.masked_fill(mask == 0, float("-inf")).amax(1)
    count = mask.sum(1)
    return (hidden_RLH * mask).sum(1) / (count if mode == "mean" else count.sqrt())


class Head(nn.Module):
    """Pooling modes (their vectors side by side), then dense layers, then normalisation.

    Args:
        modes: pooling modes among mean, cls, max, mean_sqrt_len.
        layers: dense layers with their activations, in order.
        normalise: whether the result has length 1.
    """

    def __init__(self, modes: tuple[str, ...], layers: list[nn.Module], normalise: bool) -> None:
        super().__init__()
        self.modes, self.layers, self.normalise = modes, nn.ModuleList(layers), normalise

    def forward(self, hidden_RLH: torch.Tensor, mask_RL: torch.Tensor) -> torch.Tensor:
        """Sentence embeddings `[R, D]`."""
        vector = torch.cat([pool(hidden_RLH, mask_RL, mode) for mode in self.modes], dim=-1)
        for layer in self.layers:
            vector = layer(vector)
        return F.normalize(vector, dim=-1) if self.normalise else vector


def mean_head() -> Head:
    """The head of a bare encoder: mean pooling."""
    return Head(("mean",), [], normalise=False)


def read_head(folder: Path) -> Head:
    """The head that a sentence model's `modules.json` describes.

    Raises:
        SoftpruneError: for a module that softprune doesn't know.
    """
    modules: list[dict[str, Any]] = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modes: tuple[str, ...] = ("mean",)
    layers: list[nn.Module] = []
    normalise = False
    for module in modules:
        kind = str(module["type"]).rpartition(".")[2]
        if kind not in SUPPORTED:
            raise SoftpruneError(
                f"sentence modules among {', '.join(SUPPORTED)}",
                f"{module['type']} in modules.json",
                "use another sentence model, or name its family (--family masked)",
            )
        if kind == "Pooling":
            modes = _pooling_modes(folder / module["path"])
        elif kind == "Dense":
            layers += _dense(folder / module["path"])
        elif kind == "Normalize":
            normalise = True
    return Head(modes, layers, normalise)


def _pooling_modes(folder: Path) -> tuple[str, ...]:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    named = config.get("pooling_mode")
    if named:
        modes = tuple([named] if isinstance(named, str) else named)
    else:
        modes = tuple(mode for key, mode in _POOLINGS.items() if config.get(key))
    known = set(_POOLINGS.values())
    if not modes or not set(modes) <= known:
        raise SoftpruneError(
            f"pooling modes among {', '.join(sorted(known))}",
            f"{config} in {folder.name}/config.json",
            "use another sentence model",
        )
    return modes


def _dense(folder: Path) -> list[nn.Module]:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    activation = str(config.get("activation_function", "Identity")).rpartition(".")[2]
    if activation not in _ACTIVATIONS:
        raise SoftpruneError(
            f"a dense layer with an activation among {', '.join(_ACTIVATIONS)}",
            activation,
            "use another sentence model",
        )
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise SoftpruneError(
            f"dense weights as safetensors in {folder.name}",
            "no model.safetensors there",
            "save the model anew with a current sentence-transformers (pickled weights are never loaded)",
        )
    layer = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    state = {key.removeprefix("linear."): value.float() for key, value in load_file(weights).items()}
    layer.load_state_dict(state)
    return [layer, _ACTIVATIONS[activation]()]
