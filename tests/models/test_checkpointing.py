"""Gradient checkpointing: the same numbers, layers computed twice, less kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from reference import EXAMPLES
from torch import nn

from softprune.errors import SoftpruneError
from softprune.models import load_backbone
from softprune.models.base import Backbone
from softprune.models.causal import CausalBackbone
from softprune.models.checkpointing import switch_off_chance

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def by_transformers(tiny_models: Callable[[str], Path]) -> Callable[[str], Backbone]:
    """A backbone that keeps what it computed, without what softprune reads in ways of its own."""

    def load(name: str) -> Backbone:
        backbone = load_backbone(str(tiny_models(name)), dtype="float32", device="cpu")
        backbone.fused = None
        if isinstance(backbone, CausalBackbone):
            backbone.shares_prompts = False
        return backbone

    return load


@pytest.fixture(scope="module")
def recomputing(tiny_models: Callable[[str], Path]) -> Callable[[str], Backbone]:
    known: dict[str, Backbone] = {}

    def load(name: str) -> Backbone:
        if name not in known:
            known[name] = load_backbone(str(tiny_models(name)), dtype="float32", device="cpu", checkpointing=True)
        return known[name]

    return load


def layers_of(backbone: Backbone) -> list[nn.Module]:
    """The repeated layers of a model."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in backbone.model.modules() if isinstance(module, GradientCheckpointingLayer)]


def step(backbone: Backbone, prompts_KPH: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list[int], int]:
    """Losses, gradients, how often a part of each layer ran, and bytes kept for the backward pass."""
    batch = backbone.batch(backbone.encode(EXAMPLES, 64, 16))
    with torch.no_grad():
        backbone.losses(prompts_KPH, batch, backbone.check_loss("auto"), "sum")  # sentence models embed answers once
    calls: dict[int, int] = {}
    kept: dict[int, int] = {}
    parts = [
        next(m for m in layer.modules() if not list(m.children()) and list(m.parameters()))
        for layer in layers_of(backbone)
    ]
    hooks = [
        module.register_forward_hook(lambda *_, at=at: calls.update({at: calls.get(at, 0) + 1}))
        for at, module in enumerate(parts)
    ]
    weights = {p.untyped_storage().data_ptr() for p in backbone.model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    leaf = prompts_KPH.clone().requires_grad_()
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            losses = backbone.losses(leaf, batch, backbone.check_loss("auto"), "sum")
        bytes_kept = sum(kept.values())
        losses.sum().backward()
    finally:
        for hook in hooks:
            hook.remove()
    assert leaf.grad is not None
    return losses.detach(), leaf.grad, [calls[at] for at in sorted(calls)], bytes_kept


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def test_the_same_losses_and_gradients_from_layers_computed_twice(
    model_name: str, by_transformers: Callable[[str], Backbone], recomputing: Callable[[str], Backbone]
) -> None:
    plain, again = by_transformers(model_name), recomputing(model_name)
    prompts = torch.randn(2, 3, plain.info.hidden, generator=torch.Generator().manual_seed(3))
    losses, gradient, once, kept = step(plain, prompts)
    found, found_gradient, twice, fewer = step(again, prompts)
    assert distance(found, losses) <= TOLERANCE
    assert distance(found_gradient, gradient) <= TOLERANCE
    assert len(once) >= 2
    assert twice == [2 * calls for calls in once]
    assert fewer < 0.6 * kept
    # The control: another prompt's numbers are far from these.
    others, other_gradient, _, _ = step(again, prompts.flip(-1))
    assert distance(others, losses) > 100 * TOLERANCE
    assert distance(other_gradient, gradient) > 100 * TOLERANCE


def test_nothing_is_dropped_and_dropping_would_show(recomputing: Callable[[str], Backbone]) -> None:
    for name in ("t5", "bart", "gpt2", "bloom", "bert"):
        backbone = recomputing(name)
        assert backbone.model.training
        prompts = torch.randn(1, 3, backbone.info.hidden, generator=torch.Generator().manual_seed(3))
        assert torch.equal(step(backbone, prompts)[0], step(backbone, prompts)[0])


@pytest.mark.parametrize("name", ["t5", "bart", "gpt2", "bloom", "llama", "bert", "roberta", "sentence"])
def test_dropout_left_on_is_refused(
    name: str, tiny_models: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test above, and what guards an architecture whose chance hides under another name."""

    def leave(model: nn.Module) -> None:
        switch_off_chance(model)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.5
            for key, value in list(vars(module).items()):
                if "dropout" in key and isinstance(value, float):
                    setattr(module, key, 0.5)

    monkeypatch.setattr("softprune.models.checkpointing.switch_off_chance", leave)
    with pytest.raises(SoftpruneError, match="same numbers in train mode"):
        load_backbone(str(tiny_models(name)), dtype="float32", device="cpu", checkpointing=True)


def test_layers_are_not_skipped_either(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    """BART as some are released: whole layers are left out at random in training."""
    folder = Path(shutil.copytree(tiny_models("bart"), tmp_path / "bart"))
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"encoder_layerdrop": 0.0', '"encoder_layerdrop": 0.9'))
    assert "0.9" in config.read_text()
    backbone = load_backbone(str(folder), dtype="float32", device="cpu", checkpointing=True)
    assert backbone.model.get_encoder().layerdrop == 0.0


def test_scoring_and_generating_go_on_as_before(
    backbone_of: Callable[..., Backbone], recomputing: Callable[[str], Backbone]
) -> None:
    for name in ("t5", "bart", "gpt2", "bloom", "llama"):
        plain, again = backbone_of(name), recomputing(name)
        prompts = torch.randn(1, 3, plain.info.hidden, generator=torch.Generator().manual_seed(3))
        batch = plain.batch(plain.encode(EXAMPLES, 64, 16))
        with torch.inference_mode():
            wanted, found = (b.scores(prompts, batch, "sum").nan_to_num(neginf=0) for b in (plain, again))
        assert distance(found, wanted) <= TOLERANCE
        assert again.generate(prompts[0], batch, 5) == plain.generate(prompts[0], batch, 5)
        assert again.model.training


def test_an_architecture_without_it_is_told(
    tiny_models: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import BertForMaskedLM

    monkeypatch.setattr(BertForMaskedLM, "supports_gradient_checkpointing", False)
    with pytest.raises(SoftpruneError, match=r'\("bert"\): .*does not support') as caught:
        load_backbone(str(tiny_models("bert")), dtype="float32", device="cpu", checkpointing=True)
    assert "leave backbone.checkpointing out" in caught.value.do
