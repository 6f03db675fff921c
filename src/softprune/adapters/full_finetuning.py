"""Methods that train the model's own weights: all of them, or the last block with what follows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from softprune.adapters.base import Adaptation, AdapterPlan, Tensors, copies, put
from softprune.errors import SoftpruneError
from softprune.models.architectures import find_trunk
from softprune.models.base import Backbone

# Of the trunk (transformers' base_model), by `config.model_type`: the last block, and the norm behind it where there is
# one. An encoder of its own (family: sentence) has another last block than the encoder-decoder it came from.
LAST: dict[str, tuple[str, ...]] = {
    "bart": ("decoder.layers.-1",),
    "bert": ("encoder.layer.-1",),
    "bloom": ("h.-1", "ln_f"),
    "camembert": ("encoder.layer.-1",),
    "distilbert": ("transformer.layer.-1",),
    "electra": ("encoder.layer.-1",),
    "gemma": ("layers.-1", "norm"),
    "gpt2": ("h.-1", "ln_f"),
    "gpt_neox": ("layers.-1", "final_layer_norm"),
    "llama": ("layers.-1", "norm"),
    "mbart": ("decoder.layers.-1", "decoder.layer_norm"),
    "mistral": ("layers.-1", "norm"),
    "mpnet": ("encoder.layer.-1",),
    "mt5": ("decoder.block.-1", "decoder.final_layer_norm"),
    "opt": ("decoder.layers.-1", "decoder.final_layer_norm"),
    "pegasus": ("decoder.layers.-1", "decoder.layer_norm"),
    "qwen2": ("layers.-1", "norm"),
    "qwen3": ("layers.-1", "norm"),
    "roberta": ("encoder.layer.-1",),
    "t5": ("decoder.block.-1", "decoder.final_layer_norm"),
    "xlm-roberta": ("encoder.layer.-1",),
}
LAST_OF_ENCODER = {
    "mt5": ("encoder.block.-1", "encoder.final_layer_norm"),
    "t5": ("encoder.block.-1", "encoder.final_layer_norm"),
}


class TrainedWeights(Adaptation):
    """Weights of the model as they are trained; `off` puts the old ones back for a while.

    Args:
        backbone: whose weights are float32.
        named: which of them are trained.
    """

    def __init__(self, backbone: Backbone, named: dict[str, nn.Parameter]) -> None:
        super().__init__(backbone)
        self._named = named
        self._before = copies(named)
        backbone.adapter.has_weights = True
        for parameter in named.values():
            parameter.requires_grad_(True)

    def named(self) -> dict[str, nn.Parameter]:
        """The weights that are trained."""
        return dict(self._named)

    def stored(self) -> Tensors:
        """All of them: they replace the model's."""
        return copies(self._named)

    @contextmanager
    def off(self) -> Iterator[None]:
        """The weights as they were loaded."""
        now = copies(self._named)
        put(self._named, self._before)
        try:
            with self.backbone.unadapted():
                yield
        finally:
            put(self._named, now)

    @contextmanager
    def bare(self) -> Iterator[None]:
        """The values don't matter to how long it takes."""
        with self.backbone.unadapted():
            yield

    def train(self, mode: bool) -> None:
        """The model's own dropout, as everywhere in fine-tuning."""
        self.backbone.model.train(mode)


def full(backbone: Backbone, plan: AdapterPlan, seed: int) -> TrainedWeights:
    """Every weight of the model; embeddings and head too."""
    del plan, seed
    return TrainedWeights(backbone, dict(backbone.model.named_parameters()))


def last_layer(backbone: Backbone, plan: AdapterPlan, seed: int) -> TrainedWeights:
    """The last block, the norm behind it, and an output head that isn't tied to the embeddings.

    Raises:
        SoftpruneError: for an architecture that isn't in the table, or where there is no head to untie.
    """
    del seed
    trained = [id(p) for module in _last_modules(backbone) for p in module.parameters()]
    head = _head(backbone)
    if plan.untie_head and head is None:
        raise SoftpruneError(
            "a model with an output head, for adapter.untie_head=true", f"a {backbone.family} backbone", "leave it out"
        )
    if head is not None:
        if plan.untie_head and head.weight is backbone.model.get_input_embeddings().weight:
            head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
        if head.weight is not backbone.model.get_input_embeddings().weight:
            trained += [id(p) for p in head.parameters()]
    named = {name: p for name, p in backbone.model.named_parameters() if id(p) in trained}
    return TrainedWeights(backbone, named)


def _head(backbone: Backbone) -> Any:
    """The matrix that makes logits; None for a sentence model."""
    return None if backbone.family == "sentence" else backbone.model.get_output_embeddings()


def _last_modules(backbone: Backbone) -> list[nn.Module]:
    kind = backbone.model.config.model_type
    table = LAST | LAST_OF_ENCODER if backbone.family == "sentence" else LAST
    if kind not in table:
        raise SoftpruneError(
            f"an architecture whose last block is known ({', '.join(sorted(LAST))})",
            f'"{kind}"',
            "choose another method, or add it to softprune/adapters/full_finetuning.py",
        )
    return [_module_at(find_trunk(backbone.model), path) for path in table[kind]]


def _module_at(trunk: Any, path: str) -> nn.Module:
    found = trunk
    for part in path.split("."):
        found = found[int(part)] if part.lstrip("-").isdecimal() else getattr(found, part)
    module: nn.Module = found
    return module
