"""The parts of the frozen layers, each against its definition in float64, as near as torch's own in bfloat16."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from softprune.models.fused import layers
from softprune.models.fused.layers import ACTIVATIONS, linear, portions, softmax, softmax_back


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.to(dtype)


def gap(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


ROUNDED = 2.0**-8
"""bfloat16 keeps eight bits: one rounding moves a number by half of this at most."""


@pytest.mark.parametrize("plus", [False, True], ids=["bias", "bias and residual"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, ROUNDED), (torch.float32, 1e-5)])
def test_a_product_with_its_additions(plus: bool, dtype: torch.dtype, tolerance: float) -> None:
    x, weight, bias = (
        numbers(37, 24, dtype=dtype),
        numbers(40, 24, seed=1, dtype=dtype),
        numbers(40, seed=2, dtype=dtype),
    )
    more = numbers(37, 40, seed=3, dtype=dtype) if plus else None
    found = linear(x, weight, bias, more)
    alone = F.linear(x.double(), weight.double(), bias.double())
    wanted = alone if more is None else alone + more.double()
    assert found.dtype == dtype
    assert gap(found, wanted) <= tolerance
    assert gap(linear(x, weight, 0 * bias, more), wanted) > 10 * tolerance
    if plus:
        assert gap(linear(x, weight, bias), wanted) > 10 * tolerance


def test_a_product_without_onednn_is_the_same_but_for_one_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias, more = numbers(37, 24), numbers(40, 24, seed=1), numbers(40, seed=2), numbers(37, 40, seed=3)
    found, plain = linear(x, weight, bias, more), linear(x, weight, bias)
    monkeypatch.setattr(layers, "has_fused_linear", lambda: False)
    assert gap(linear(x, weight, bias, more), found) <= ROUNDED
    assert gap(linear(x, weight, bias), plain) <= ROUNDED


@pytest.mark.parametrize("width", [5, 31, 32, 63, 64])
@pytest.mark.parametrize("most", [1, 300, 1_000_000])
def test_softmax_and_its_gradient_at_every_width_and_in_portions(
    width: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "IN_CACHE", most)
    scores, grad = numbers(7, width, width), numbers(7, width, width, seed=1)
    exact = scores.double().requires_grad_()
    p = torch.softmax(exact, -1)
    (wanted,) = torch.autograd.grad(p, exact, grad.double())
    assert gap(softmax(scores), p.detach()) <= ROUNDED
    assert gap(softmax_back(grad, softmax(scores)), wanted) <= 2 * ROUNDED
    assert gap(softmax_back(grad, softmax(-scores)), wanted) > 0.1


def test_portions_are_the_whole_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.arange(60.0).view(10, 6)
    for most, count in ((6, 10), (20, 4), (1, 10), (60, 1)):
        monkeypatch.setattr(layers, "IN_CACHE", most)
        found = list(portions(x))
        assert len(found) == count
        assert torch.equal(torch.cat([part for _, part in found]), x)
        assert all(torch.equal(x[at], part) for at, part in found)
    assert [len(part) for _, part in portions(x[:0])] == [0]


def all_bfloat16(most: float) -> torch.Tensor:
    """Every number of bfloat16 between -most and most."""
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    return every[every.abs() <= most]


def as_transformers(x: torch.Tensor) -> torch.Tensor:
    from transformers.activations import NewGELUActivation

    found: torch.Tensor = NewGELUActivation()(x)
    return found


def slopes(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(function(x).sum(), x)
    return found.double()


def test_gelu_by_tanh_in_bfloat16_is_nearer_to_its_definition_than_transformers() -> None:
    forward, backward = ACTIVATIONS["gelu_new"]
    x = all_bfloat16(8.0)
    x = x[x.abs() >= 1e-3]
    exact, slope = as_transformers(x.double()), slopes(as_transformers, x.double())
    ours, ours_slope = forward(x).double(), backward(torch.ones_like(x), x).double()
    theirs, their_slope = as_transformers(x).double(), slopes(as_transformers, x)
    for mine, other, wanted in ((ours, theirs, exact), (ours_slope, their_slope, slope)):
        assert (mine - wanted).norm() <= (other - wanted).norm()
        assert (mine - wanted).abs().max() <= (other - wanted).abs().max()
    control = F.silu(x).double()
    assert (control - exact).norm() > 10 * (theirs - exact).norm()


def test_gelu_by_tanh_in_float32_is_its_definition() -> None:
    forward, backward = ACTIVATIONS["gelu_new"]
    x = numbers(500, dtype=torch.float32)
    assert gap(forward(x), as_transformers(x.double())) <= 1e-6
    assert gap(backward(torch.ones_like(x), x), slopes(as_transformers, x.double())) <= 1e-6
    assert gap(F.gelu(x), as_transformers(x.double())) > 1e-5
