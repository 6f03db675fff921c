"""LoRA and IA3: small parts that peft puts into a model's modules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from softprune.adapters.base import Adaptation, AdapterPlan, seeded
from softprune.errors import SoftpruneError, shorten
from softprune.models.base import Backbone


class Injected(Adaptation):
    """Modules of peft's inside the model, whose own are wrapped in place; by peft's configuration of the method."""

    def __init__(self, backbone: Backbone, config: Any, seed: int) -> None:
        from peft import inject_adapter_in_model
        from peft.tuners.tuners_utils import BaseTunerLayer

        model = backbone.model
        backbone.adapter = replace(backbone.adapter, has_weights=True)
        try:
            with seeded(seed):
                inject_adapter_in_model(config, model, adapter_name="default")
        except ValueError as error:
            do = "name some of the model's own with adapter.targets=NAME,NAME"
            raise SoftpruneError("modules that the method can be put into", shorten(error), do) from error
        self.config = config
        self._layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
        super().__init__(backbone, {name: p for name, p in model.named_parameters() if p.requires_grad})
        for parameter in self._named.values():
            # A step on a number in bfloat16 would round to nothing.
            parameter.data = parameter.data.to(backbone.prompt_dtype)
        self.train(False)  # peft makes its dropout in train mode

    def peft_config(self) -> dict[str, Any]:
        """Of the method, as JSON holds it."""
        config = self.config.to_dict()
        return {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}

    @contextmanager
    def off(self) -> Iterator[None]:
        """The wrapped modules alone."""
        self._enable(False)
        try:
            with super().off():
                yield
        finally:
            self._enable(True)

    def _enable(self, on: bool) -> None:
        for layer in self._layers:
            layer.enable_adapters(on)
        for parameter in self._named.values():  # which peft freezes where its layers are off
            parameter.requires_grad_(True)

    def train(self, mode: bool) -> None:
        """Dropout of what LoRA's matrices read; the model's own stays off."""
        for layer in self._layers:
            for dropout in getattr(layer, "lora_dropout", {}).values():
                dropout.train(mode)


def lora(backbone: Backbone, plan: AdapterPlan, seed: int) -> Injected:
    """W + (alpha / r) B A in place of W, with A drawn and B = 0 at first (Hu et al. 2021, section 4.1)."""
    from peft import LoraConfig
    from peft.utils import constants

    defaults = constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    # Where peft has no default for the architecture, None makes it refuse; `Injected` says what to do.
    config = LoraConfig(
        r=plan.rank,
        lora_alpha=plan.alpha,
        lora_dropout=plan.dropout,
        target_modules=list(plan.targets or defaults.get(backbone.model.config.model_type, ())) or None,
        layers_to_transform=list(plan.layers) or None,
        fan_in_fan_out=_is_transposed(backbone),
    )
    return Injected(backbone, config, seed)


def ia3(backbone: Backbone, plan: AdapterPlan, seed: int) -> Injected:
    """Keys, values and feed-forward activations times a learned vector, 1 at first (Liu et al. 2022, section 3.3)."""
    from peft import IA3Config
    from peft.utils import constants

    kind = backbone.model.config.model_type
    targets = list(plan.targets) or constants.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING.get(kind)
    feedforward = constants.TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(kind, [])
    # The vector of a feed-forward part multiplies its input; others multiply outputs.
    inner = [name for name in targets or [] if name in feedforward]
    config = IA3Config(target_modules=targets, feedforward_modules=inner, fan_in_fan_out=_is_transposed(backbone))
    return Injected(backbone, config, seed)


def _is_transposed(backbone: Backbone) -> bool:
    """Whether its linear layers keep their matrix as GPT-2 does, `[in, out]`."""
    from transformers.pytorch_utils import Conv1D

    return any(isinstance(module, Conv1D) for module in backbone.model.modules())
