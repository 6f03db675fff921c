"""P-tuning's vectors in front of a text are peft's own: answers and gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PromptEncoderConfig
from pefts import TASKS, P, adapted, batch_of, difference, log_likelihoods

from models import FAMILY
from softprune.adapters.base import AdapterPlan
from softprune.adapters.p_tuning import STORED, new_prompt
from softprune.models.base import Backbone

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers.modeling_utils")
Backbones = Callable[..., Backbone]
# A network starts with vectors far smaller than the embeddings of our random models; these are of their size.
GAIN = 6


@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    [
        ("gpt2", "float32", 1e-5),
        ("llama", "float32", 1e-5),
        ("t5_v1_1", "float32", 1e-5),
        ("bart_scaled", "float32", 1e-5),
        ("gpt2", "float64", 1e-10),
        ("bart", "float64", 1e-10),
    ],
)
def test_answers_and_gradients_are_pefts(
    name: str, dtype: str, tolerance: float, backbone_of: Backbones, tiny_models: Callable[[str], Path]
) -> None:
    backbone = backbone_of(name, dtype)
    batch, family = batch_of(backbone), FAMILY[name]
    plan = AdapterPlan("p-tuning", tokens=P, hidden=24)
    made = [new_prompt(backbone, plan, seed) for seed in (0, 1)]
    with torch.no_grad():
        for each in made:
            each.made_by.mlp_head[4].weight.mul_(GAIN)
    config = PromptEncoderConfig(
        task_type=TASKS[family], num_virtual_tokens=P, encoder_hidden_size=24, num_transformer_submodules=1
    )
    model = adapted(name, tiny_models(name), config, getattr(torch, dtype))
    model.prompt_encoder["default"].load_state_dict(made[0].made_by.state_dict())

    ours, other = (backbone.scores(each.prompts(), batch, "sum")[0] for each in made)
    theirs = log_likelihoods(model, backbone.tokenizer, family, P)
    assert difference(ours, theirs) <= tolerance
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1)).to(ours.dtype)
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    for key, parameter in model.prompt_encoder["default"].named_parameters():
        found = made[0].made_by.get_parameter(key).grad
        assert difference(found, parameter.grad) <= 20 * tolerance
        assert difference(1.01 * found, parameter.grad) > 20 * tolerance
    assert all(parameter.grad is None for parameter in backbone.model.parameters())

    # Negative controls: another seed's, zeros, the same vectors in another order.
    vectors = made[0].prompts()[0].detach()
    turned, zeros = (backbone.scores(v[None], batch, "sum")[0] for v in (vectors.flip(0), torch.zeros_like(vectors)))
    for wrong in (other, turned, zeros):
        assert difference(wrong, theirs) > 100 * tolerance


def test_it_is_made_of_its_seed(backbone_of: Backbones) -> None:
    backbone = backbone_of("bert")
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, second, other = (new_prompt(backbone, AdapterPlan("p-tuning", tokens=P), seed) for seed in (4, 4, 5))
    assert torch.equal(first.prompts(), second.prompts())
    assert difference(first.prompts(), other.prompts()) > 0.1
    assert torch.equal(torch.rand(3), expected)
    assert first.made_by.mlp_head[0].weight.shape == (32, 32)
    stored = first.stored()
    assert {key: tuple(value.shape) for key, value in stored.items()} == {STORED: (P, 32)}
    assert torch.equal(stored[STORED], first.prompts()[0])
    assert not stored[STORED].requires_grad
