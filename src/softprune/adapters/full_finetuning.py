"""Methods that train the model's own weights: all of them, or the last block with what follows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

from torch import nn

from softprune.adapters.base import Adaptation, AdapterPlan, copy_values, set_values
from softprune.errors import SoftpruneError
from softprune.models.architectures import find_trunk
from softprune.models.base import Backbone

# Of the trunk (transformers' base_model), by `config.model_type`: the last block, and the norm behind it where there is
# one. An encoder of its own (family: sentence) has another last block than the encoder-decoder it came from.
LAST: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("bert", "camembert", "electra", "mpnet", "roberta", "xlm-roberta"), ("encoder.layer.-1",)),
    "distilbert": ("transformer.layer.-1",),
    **dict.fromkeys(("bloom", "gpt2"), ("h.-1", "ln_f")),
    "gpt_neox": ("layers.-1", "final_layer_norm"),
    **dict.fromkeys(("gemma", "llama", "mistral", "qwen2", "qwen3"), ("layers.-1", "norm")),
    "opt": ("decoder.layers.-1", "decoder.final_layer_norm"),
    "bart": ("decoder.layers.-1",),
    **dict.fromkeys(("mbart", "pegasus"), ("decoder.layers.-1", "decoder.layer_norm")),
    **dict.fromkeys(("mt5", "t5"), ("decoder.block.-1", "decoder.final_layer_norm")),
}
LAST_OF_ENCODER = dict.fromkeys(("mt5", "t5"), ("encoder.block.-1", "encoder.final_layer_norm"))


class TrainedWeights(Adaptation):
    """Some of a float32 model's weights as they are trained; `off` puts the old ones back for a while."""

    def __init__(self, backbone: Backbone, named: dict[str, nn.Parameter]) -> None:
        super().__init__(backbone, named)
        self._before = copy_values(named)
        backbone.adapter = replace(backbone.adapter, has_weights=True)
        for parameter in named.values():
            parameter.requires_grad_(True)

    @contextmanager
    def off(self) -> Iterator[None]:
        """The weights as they were loaded."""
        now = copy_values(self._named)
        set_values(self._named, self._before)
        try:
            with self.bare():
                yield
        finally:
            set_values(self._named, now)

    def bare(self) -> AbstractContextManager[None]:
        """The values don't matter to how long it takes."""
        return super().off()

    def train(self, mode: bool) -> None:
        """The model's own dropout, as everywhere in fine-tuning."""
        self.backbone.model.train(mode)


def full(backbone: Backbone, plan: AdapterPlan, seed: int) -> TrainedWeights:
    """Every weight of the model; embeddings and head too. Nothing is drawn."""
    del plan, seed
    return TrainedWeights(backbone, dict(backbone.model.named_parameters()))


def last_layer(backbone: Backbone, plan: AdapterPlan, seed: int) -> TrainedWeights:
    """The last block, the norm behind it, and an output head that isn't tied to the embeddings. Nothing is drawn."""
    del seed
    model = backbone.model
    kind, embeddings = model.config.model_type, model.get_input_embeddings()
    if backbone.family == "sentence":
        table, head = LAST | LAST_OF_ENCODER, None
    else:
        table, head = LAST, model.get_output_embeddings()
    if kind not in table:
        expected = f"an architecture whose last block is known ({', '.join(sorted(LAST))})"
        do = "choose another method, or add it to softprune/adapters/full_finetuning.py"
        raise SoftpruneError(expected, f'"{kind}"', do)
    if plan.untie_head and head is None:
        found = f"a {backbone.family} backbone"
        raise SoftpruneError("a model with an output head, for adapter.untie_head=true", found, "leave it out")
    trained: set[int] = set()
    for path in table[kind]:
        module = find_trunk(model)
        for part in path.split("."):
            module = module[-1] if part == "-1" else getattr(module, part)
        trained |= {id(p) for p in module.parameters()}
    # A tied head is the embeddings' own tensor: trained, it would change the input as well.
    if head is not None and plan.untie_head and head.weight is embeddings.weight:
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    if head is not None and head.weight is not embeddings.weight:
        trained |= {id(p) for p in head.parameters()}
    return TrainedWeights(backbone, {name: p for name, p in model.named_parameters() if id(p) in trained})
