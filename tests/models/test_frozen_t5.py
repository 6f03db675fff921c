"""T5's own forward and backward: transformers' numbers, for every family member and switch that it reads."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from gradients import assert_as_near, gap, scored, several
from transformers.models.mt5.modeling_mt5 import MT5LayerNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

from softprune.models.base import Backbone
from softprune.models.fused.t5 import FrozenT5, suits
from softprune.models.seq2seq import Seq2SeqBackbone

NAMES = ["t5", "t5_v1_1", "mt5"]


def backbone_named(
    backbone_of: Callable[..., Backbone], name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> Seq2SeqBackbone:
    """A backbone with our layers; in float64 with transformers' norms made float64's too."""
    backbone = backbone_of(name, dtype)
    assert isinstance(backbone, Seq2SeqBackbone)
    assert (backbone.fused is None) == (dtype == "float64")
    monkeypatch.setattr(FrozenT5, "most_positions", 1_000)  # heads of these small models are no longer than answers
    if dtype == "float64":
        monkeypatch.setattr(T5LayerNorm, "forward", exact_norm)
        monkeypatch.setattr(MT5LayerNorm, "forward", exact_norm)
        monkeypatch.setattr(backbone, "fused", FrozenT5(backbone.model))
    return backbone


def exact_norm(self: T5LayerNorm, x: torch.Tensor) -> torch.Tensor:
    scaled: torch.Tensor = self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)
    return scaled


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-11), ("float32", 1e-4)])
def test_sums_and_gradients_are_those_of_transformers(
    name: str, dtype: str, tolerance: float, backbone_of: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = backbone_named(backbone_of, name, dtype, monkeypatch)
    sums, gradient = scored(backbone)
    monkeypatch.setattr(backbone, "fused", None)
    wanted, wanted_gradient = scored(backbone)
    assert gap(sums, wanted) <= tolerance
    assert gap(gradient, wanted_gradient) <= tolerance
    other, other_gradient = scored(backbone, seed=4)
    assert gap(sums, other) > 100 * tolerance
    assert gap(gradient, other_gradient) > 100 * tolerance


@pytest.mark.parametrize("part", ["attend", "cross", "dense", "norm"])
def test_a_sublayer_without_its_backward_pass_is_told_apart(
    part: str, backbone_of: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: each sublayer's gradient moves what the test above compares, far beyond its tolerance."""
    backbone = backbone_named(backbone_of, "t5_v1_1", "float64", monkeypatch)
    _, wanted = scored(backbone)
    function = {"attend": "_Attend", "cross": "_Cross", "dense": "_Transform", "norm": "_Final"}[part]
    target = f"softprune.models.fused.t5.{function}.backward"

    def around(_: object, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rest = {"attend": 2, "cross": 2, "dense": 2, "norm": 1}[part]
        return (*gradients, *[None] * rest)

    monkeypatch.setattr(target, staticmethod(around))
    _, gradient = scored(backbone)
    assert gap(gradient, wanted) > 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_as_near_to_the_truth_as_transformers_is(
    name: str, backbone_of: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = several(backbone_of(name, "float64"))
    half = backbone_named(backbone_of, name, "bfloat16", monkeypatch)
    ours = several(half)
    monkeypatch.setattr(half, "fused", None)
    assert_as_near(ours, several(half), truth)


def test_long_decoders_are_left_to_transformers(
    backbone_of: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = backbone_named(backbone_of, "t5", "float64", monkeypatch)
    wanted, _ = scored(backbone)
    calls: list[int] = []
    hook = backbone.model.get_decoder().register_forward_hook(lambda *_: calls.append(1))
    scored(backbone)
    assert calls == []
    monkeypatch.setattr(FrozenT5, "most_positions", 1)
    found, _ = scored(backbone)
    hook.remove()
    assert calls == [1]
    assert gap(found, wanted) <= 1e-11


def test_other_layers_are_left_to_transformers(
    backbone_of: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = deepcopy(backbone_of("t5", "float32").model)
    assert suits(model)
    with monkeypatch.context() as patch:
        patch.setattr(model.config, "dense_act_fn", "silu")
        assert not suits(model)
    monkeypatch.setattr(model, "lm_head", type("EightBit", (torch.nn.Linear,), {})(1, 1))
    assert not suits(model)
