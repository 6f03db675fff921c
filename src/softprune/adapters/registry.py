"""The nine methods by name: what each trains, where it is defined, and the settings that it has of its own accord."""

from __future__ import annotations

from dataclasses import dataclass, field

from softprune.config.registry import unknown

FAMILIES = ("seq2seq", "causal", "masked", "sentence")


@dataclass(frozen=True, slots=True)
class Method:
    """One way to adapt a model.

    Attributes:
        name: as `--methods` takes it.
        kind: the recipe's kind that runs it.
        trains: what it trains, in a few words.
        source: where it comes from.
        lr: learning rate of its own; None for a prompt's, which is relative to the embeddings.
        refused: families that it isn't defined for, with the reason.
        whole: whether weights of the model itself change, so that they are float32 while they train.
    """

    name: str
    kind: str
    trains: str
    source: str
    lr: float | None = None
    refused: dict[str, str] = field(default_factory=dict)
    whole: bool = False


METHODS = {
    method.name: method
    for method in (
        Method("full", "adapt", "all weights", "fine-tuning", lr=5e-5, whole=True),
        Method("last-layer", "adapt", "last block, final norm, an untied head", "fine-tuning", lr=5e-4, whole=True),
        Method("lora", "adapt", "low-rank updates of attention's matrices", "Hu et al. 2021", lr=5e-4),
        Method("prefix", "adapt", "keys and values of each layer, projected", "Li and Liang 2021", lr=5e-3),
        Method("p-tuning", "adapt", "a network that makes a prompt", "Liu et al. 2021", lr=1e-3),
        Method("p-tuning-v2", "adapt", "keys and values of each layer", "Liu et al. 2022", lr=7e-3),
        Method("ia3", "adapt", "scales of keys, values and feed-forward parts", "Liu et al. 2022", lr=3e-3),
        Method("prompt", "tune", "a soft prompt", "Lester et al. 2021"),
        Method("xprompt", "xprompt", "a soft prompt's winning tokens and pieces", "Ma et al. 2022"),
    )
}


def method_named(name: str) -> Method:
    """The method of that name.

    Raises:
        SoftpruneError: for an unknown name, with the nearest known one.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return METHODS[name]


def not_defined(name: str, family: str) -> str | None:
    """Why a method can't run with a family of backbones; None where it can."""
    return method_named(name).refused.get(family)
