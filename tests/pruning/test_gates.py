"""Gates: hard concrete and straight-through against values by hand, a Monte-Carlo estimate and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import distance

from softprune.pruning.learned_masks import GATES, HardConcrete, StraightThrough, expected_size, harden, uniform

CONCRETE, THROUGH = HardConcrete(), StraightThrough()
LOGITS = torch.tensor([-4.0, -1.5, 0.0, 0.7, 3.0], dtype=torch.float64)
DRAWS = 200_000


def drawn(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_constants_are_the_papers() -> None:
    assert (CONCRETE.temperature, CONCRETE.low, CONCRETE.high) == (2 / 3, -0.1, 1.1)


@pytest.mark.parametrize(
    ("logit", "u", "wanted"),
    [
        (0.0, 0.5, 0.5),  # s = 1/2, stretched to 1.2 / 2 - 0.1
        (1.0, 0.5, 1.2 / (1 + math.exp(-1.5)) - 0.1),
        (0.0, 0.75, 1.2 * 3**1.5 / (1 + 3**1.5) - 0.1),  # log u / (1 - u) = log 3
        (-4.0, 0.5, 0.0),  # s = 0.0025 is folded to 0
        (4.0, 0.5, 1.0),
    ],
)
def test_stretched_and_folded_by_hand(logit: float, u: float, wanted: float) -> None:
    found = CONCRETE.sample(torch.tensor(logit, dtype=torch.float64), torch.tensor(u, dtype=torch.float64))
    assert float(found) == pytest.approx(wanted, rel=1e-12)


def test_open_by_hand() -> None:
    """beta log(0.1 / 1.1) = -2/3 log 11, so P(z != 0) at logit 0 is 11^(2/3) / (1 + 11^(2/3)) = 0.8318."""
    odds = 11 ** (2 / 3)
    assert float(CONCRETE.open(LOGITS)[2]) == pytest.approx(odds / (1 + odds), rel=1e-12)
    assert float(CONCRETE.open(LOGITS)[2]) == pytest.approx(0.8318, abs=5e-5)
    assert float(THROUGH.open(LOGITS)[2]) == 0.5
    assert float(THROUGH.open(LOGITS)[4]) == pytest.approx(1 / (1 + math.exp(-3)), rel=1e-12)


@pytest.mark.parametrize("name", GATES)
def test_open_is_how_often_gates_are_open(name: str) -> None:
    gate, other = GATES[name], next(gate for kind, gate in GATES.items() if kind != name)
    often = (gate.sample(LOGITS, drawn(DRAWS)) != 0).double().mean(0)
    # Five standard errors of the estimate.
    errors = 5 * (often * (1 - often) / DRAWS).sqrt()
    assert ((often - gate.open(LOGITS)).abs() <= errors).all()
    assert ((often - other.open(LOGITS)).abs() > errors).all(), "the other kind is open as often"


def test_hard_concrete_has_mass_at_both_ends() -> None:
    """P(z = 1) = P(z = 0) of the mirrored logit: sigmoid(a - beta log 11)."""
    often = (CONCRETE.sample(LOGITS, drawn(DRAWS)) == 1).double().mean(0)
    wanted = torch.sigmoid(LOGITS - 2 / 3 * math.log(11))
    assert ((often - wanted).abs() <= 5 * (wanted * (1 - wanted) / DRAWS).sqrt()).all()


@pytest.mark.parametrize("name", GATES)
def test_the_price_of_size_has_the_gradient_that_differences_say(name: str) -> None:
    """d/da of mean_ps P(gamma_p) P(zeta_ps), by autograd, by central differences, and of one gate by hand."""
    gate, generator = GATES[name], torch.Generator().manual_seed(0)
    token = torch.randn(2, 3, generator=generator, dtype=torch.float64).requires_grad_()
    piece = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64).requires_grad_()

    def size(token_KP: torch.Tensor, piece_KPS: torch.Tensor) -> torch.Tensor:
        return expected_size(gate.open(token_KP), gate.open(piece_KPS)).sum()

    found = torch.autograd.grad(size(token, piece), [token, piece])
    for at, tensor in enumerate((token, piece)):
        wanted = torch.zeros_like(tensor).flatten()
        for i in range(tensor.numel()):
            step = torch.zeros(tensor.numel(), dtype=torch.float64)
            step[i] = 1e-6
            moved = [[token, piece], [token, piece]]
            for sign, pair in zip((1, -1), moved, strict=True):
                pair[at] = tensor + sign * step.view(tensor.shape)
            wanted[i] = (size(*moved[0]) - size(*moved[1])).detach() / 2e-6
        assert distance(found[at], wanted.view(tensor.shape)) <= 1e-8
        assert distance(found[at].flip(1), wanted.view(tensor.shape)) > 1e-3
    p, q = (float(gate.open(part.detach())[1, 2].flatten()[0]) for part in (token, piece))
    assert float(found[1][1, 2, 0]) == pytest.approx(p * q * (1 - q) / 12, rel=1e-10)


def test_straight_through_by_hand() -> None:
    """z is a coin; dL/da = dL/dz sigmoid(a) (1 - sigmoid(a)), whichever way it fell."""
    logits = torch.tensor([0.0, 0.0, math.log(3)], dtype=torch.float64, requires_grad=True)
    gates = THROUGH.sample(logits, torch.tensor([0.4, 0.6, 0.7], dtype=torch.float64))
    assert gates.tolist() == [1.0, 0.0, 1.0]
    (gates * torch.tensor([2.0, 5.0, -8.0])).sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == pytest.approx([2 * 0.25, 5 * 0.25, -8 * 3 / 16], rel=1e-12)


def test_hard_concrete_gradient_by_hand_is_none_where_folded() -> None:
    """Inside, dz/da = 1.2 s (1 - s) / beta; at the ends nothing."""
    logits = torch.tensor([0.0, -4.0, 4.0], dtype=torch.float64, requires_grad=True)
    CONCRETE.sample(logits, torch.tensor(0.5, dtype=torch.float64)).sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == pytest.approx([1.2 * 0.25 * 1.5, 0.0, 0.0], rel=1e-12)


@pytest.mark.parametrize("name", GATES)
def test_the_ends_of_uniform_numbers_give_gates_and_gradients(name: str) -> None:
    logits = torch.zeros(2, requires_grad=True)
    gates = GATES[name].sample(logits, torch.tensor([0.0, 1.0]))
    gates.sum().backward()
    assert logits.grad is not None
    assert bool((gates.isfinite() & logits.grad.isfinite()).all())


def test_expected_size_by_hand() -> None:
    token, piece = torch.tensor([[1.0, 0.5]]), torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])
    assert expected_size(token, piece).tolist() == [(1 + 0 + 0.25 + 0.25) / 4]


def test_draws_are_a_function_of_seed_and_step() -> None:
    first = uniform(0, 3, 8, 5)
    assert torch.equal(first, uniform(0, 3, 8, 5))
    assert torch.equal(uniform(0, 3, 5, 5), first[:5]), "fewer rows are the first of more"
    for other in (uniform(1, 3, 8, 5), uniform(0, 4, 8, 5)):
        assert not torch.equal(other, first)
    assert bool(((first >= 0) & (first < 1)).all())


def test_hardened_by_hand() -> None:
    token = torch.tensor([0.9, 0.4, 0.8, 0.7])
    piece = torch.tensor([[0.9, 0.2], [0.9, 0.9], [0.1, 0.3], [0.5, 0.6]])
    mask = harden(token, piece, "both")
    assert mask.token_P.tolist() == [True, False, False, True], "one is shut, one has no open piece"
    assert mask.piece_PS.tolist() == [[True, False], [False, False], [False, False], [True, True]]
    every = torch.ones(4)
    assert harden(every, piece, "piece").piece_PS.tolist() == [[True, False], [True, True], [False, True], [True, True]]
    assert harden(token, torch.ones(4, 2), "token").piece_PS.tolist() == [
        [True] * 2,
        [False] * 2,
        [True] * 2,
        [True] * 2,
    ]


def test_something_always_stays() -> None:
    token, piece = torch.tensor([0.1, 0.3]), torch.tensor([[0.4, 0.1], [0.2, 0.3]])
    mask = harden(token, piece, "both")
    assert mask.piece_PS.tolist() == [[False, False], [False, True]], "0.3 * 0.3 is the likeliest"
    assert harden(token, torch.ones(2, 2), "token").piece_PS.tolist() == [[False, False], [True, True]]


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 5), st.sampled_from(["both", "token", "piece"]))
def test_hardened_masks_are_masks(seed: int, tokens: int, pieces: int, levels: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    power = 0.2 + 3 * torch.rand(1, generator=generator)  # from mostly open to mostly shut
    token = torch.rand(tokens, generator=generator) ** power if levels != "piece" else torch.ones(tokens)
    piece = (
        torch.rand(tokens, pieces, generator=generator) ** power if levels != "token" else torch.ones(tokens, pieces)
    )
    mask = harden(token, piece, levels)
    assert mask.tokens >= 1
    assert torch.equal(mask.piece_PS.any(1), mask.token_P), "a kept token has a piece, a pruned one none"
    if levels == "piece":
        assert mask.tokens == tokens
