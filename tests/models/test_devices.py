"""No family makes a tensor on the CPU where its model may be on a GPU.

torch's default device is made one without numbers: a tensor that is made without naming a device is there, and meets
the model's own in an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_architectures as tiny
import torch
from reference import EXAMPLES

from softprune.models import load_backbone
from softprune.models.base import Backbone
from softprune.models.pooling import pool
from softprune.types import Encoded

PROMPT = (21, 34, 27)


@contextmanager
def nothing_on_the_cpu() -> Iterator[None]:
    """Tensors that are made without naming a device hold no numbers."""
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


def texts(backbone: Backbone) -> list[Encoded]:
    """Texts of mixed lengths and answers; as ids where a tokenizer knows no words."""
    if backbone.tokenizer.tokenize("great") != backbone.tokenizer.tokenize("terrible"):
        return backbone.encode(EXAMPLES, 64, 16)
    return [Encoded(tuple(range(20, 28 - n)), -1, ((61,), (63, 66)), n % 2) for n in range(4)]


def step(backbone: Backbone, places: tuple[int | None, ...] = ()) -> torch.Tensor:
    """Losses under every loss of a family, and the gradient's way back."""
    batch = replace(backbone.batch(texts(backbone)), places=places)
    prompts_KPH = backbone.embed_ids(PROMPT).expand(2, -1, -1).clone().to(backbone.device).requires_grad_()
    losses = [backbone.check_loss("auto"), "rank"]
    found = torch.cat([backbone.losses(prompts_KPH, batch, loss, "mean") for loss in losses])
    found.sum().backward()
    assert prompts_KPH.grad is not None
    assert bool(prompts_KPH.grad.isfinite().all())
    return found.detach()


@torch.no_grad()
def checked(backbone: Backbone) -> torch.Tensor:
    """The readings that the check at load compares."""
    ids_1N = torch.tensor([PROMPT], device=backbone.device)
    prompt_PH = backbone.embed_ids(PROMPT).to(backbone.device)
    plain = [backbone.read_plainly(prompt_PH, text) for text in texts(backbone)]
    return torch.cat([each.flatten() for each in (*backbone.read_ids(ids_1N), *plain)])


def generated(backbone: Backbone, places: tuple[int | None, ...] = ()) -> list[str]:
    """What a model says behind a prompt."""
    batch = replace(backbone.batch(texts(backbone)), places=places)
    prompt_PH = backbone.embed_ids(PROMPT).to(backbone.device)
    return backbone.generate(prompt_PH, batch, 5)


@pytest.fixture(params=["gemma3n_text", "gemma4_text E2B"])
def layered(request: pytest.FixtureRequest, tmp_path: Path) -> Backbone:
    """A model that looks up a second embedding of every token, for each layer."""
    # Sliding windows have a cache for which transformers makes a tensor on the CPU, and moves it.
    folder = tiny.build(tmp_path, "causal", request.param, layer_types=["full_attention"] * 4)
    return load_backbone(str(folder), dtype="float32", device="cpu")


def same_anywhere(work: Callable[[], object]) -> bool:
    """Whether work gives the same where only tensors with a named device have numbers."""
    wanted = work()
    with nothing_on_the_cpu():
        return bool(torch.equal(work(), wanted)) if isinstance(wanted, torch.Tensor) else work() == wanted


def test_a_step_names_its_devices(model_name: str, backbone_of: Callable[..., Backbone]) -> None:
    backbone = backbone_of(model_name)
    assert same_anywhere(lambda: step(backbone))
    assert same_anywhere(lambda: checked(backbone))


@pytest.mark.parametrize("name", ["gpt2", "llama", "bloom"])
def test_a_step_with_prompts_inside_texts_names_its_devices(name: str, backbone_of: Callable[..., Backbone]) -> None:
    backbone = backbone_of(name)
    assert same_anywhere(lambda: step(backbone, (2, None, 0, 3)))
    assert not torch.equal(step(backbone), step(backbone, (2, None, 0, 3)))


@pytest.mark.parametrize("name", ["t5", "bart", "gpt2", "llama"])
def test_generation_names_its_devices(name: str, backbone_of: Callable[..., Backbone]) -> None:
    backbone = backbone_of(name)
    assert same_anywhere(lambda: generated(backbone))


def test_embeddings_of_each_layer_name_their_devices(layered: Backbone) -> None:
    assert layered.has_layer_embeddings
    places = (2, None, 0, 3)
    assert same_anywhere(lambda: step(layered, places))
    assert same_anywhere(lambda: generated(layered, places))
    assert same_anywhere(lambda: checked(layered))


@pytest.mark.parametrize("mode", ["cls", "max", "mean", "mean_sqrt_len", "weightedmean", "lasttoken"])
def test_pooling_names_its_devices(mode: str) -> None:
    hidden_RLH, mask_RL = torch.randn(2, 4, 3), torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    assert same_anywhere(lambda: pool(hidden_RLH, mask_RL, mode))


def test_a_tensor_without_a_device_is_told(
    backbone_of: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = backbone_of("gpt2")
    lookup = backbone.lookup
    monkeypatch.setattr(backbone, "lookup", lambda ids: lookup(ids) + torch.zeros(backbone.info.hidden))
    step(backbone)
    with nothing_on_the_cpu(), pytest.raises((RuntimeError, NotImplementedError)):
        step(backbone)
