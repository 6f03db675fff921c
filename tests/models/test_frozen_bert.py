"""BERT's own forward and backward: transformers' numbers, for the encoders that it reads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from gradients import assert_as_near, gap, scored, several
from reference import EXAMPLES

from softprune.models.base import Backbone
from softprune.models.fused.bert import suits

NAMES = ["bert", "roberta", "sentence"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("examples", [1, len(EXAMPLES)], ids=["unpadded", "padded"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-11), ("float32", 1e-4)])
def test_sums_and_gradients_are_those_of_transformers(
    name: str,
    examples: int,
    dtype: str,
    tolerance: float,
    backbone_of: Callable[..., Backbone],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backbone = backbone_of(name, dtype)
    sums, gradient = scored(backbone, examples)
    assert backbone.fused is not None
    monkeypatch.setattr(backbone, "fused", None)
    wanted, wanted_gradient = scored(backbone, examples)
    assert gap(sums, wanted) <= tolerance
    assert gap(gradient, wanted_gradient) <= tolerance
    other, other_gradient = scored(backbone, examples, seed=4)
    assert gap(sums, other) > 100 * tolerance
    assert gap(gradient, other_gradient) > 100 * tolerance


@pytest.mark.parametrize("function", ["_Attend", "_Transform"])
def test_a_sublayer_without_its_backward_pass_is_told_apart(
    function: str, backbone_of: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: each sublayer's gradient moves what the test above compares, far beyond its tolerance."""
    backbone = backbone_of("bert", "float64")
    _, wanted = scored(backbone)
    nothing = {"_Attend": (None, None, None), "_Transform": (None, None)}[function]
    monkeypatch.setattr(
        f"softprune.models.fused.bert.{function}.backward", staticmethod(lambda _, gradient: (gradient, *nothing))
    )
    _, gradient = scored(backbone)
    assert gap(gradient, wanted) > 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_as_near_to_the_truth_as_transformers_is(
    name: str, backbone_of: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = several(backbone_of(name, "float64"))
    half = backbone_of(name, "bfloat16")
    ours = several(half)
    assert half.fused is not None
    monkeypatch.setattr(half, "fused", None)
    assert_as_near(ours, several(half), truth)


def test_other_encoders_are_left_to_transformers(
    backbone_of: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert backbone_of("distilbert", "float32").fused is None
    encoder = backbone_of("bert", "float32").model.base_model
    assert suits(encoder)
    for key, value in (("hidden_act", "silu"), ("is_decoder", True)):
        with monkeypatch.context() as patch:
            patch.setattr(encoder.config, key, value)
            assert not suits(encoder)
    assert suits(encoder)
