"""Adafactor over K candidates is the reference implementation on each alone; masks don't change a survivor's steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from transformers import Adafactor as Reference

from softprune.config.schema import TuningConfig
from softprune.training.optimizers import Adafactor, keep_candidates, pack, prompt_optimiser, unpack

K, P, H, S, STEPS = 3, 6, 8, 4, 50
DECAY = 0.01
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}
LR = 0.05

Gradients = Callable[[int], torch.Tensor]


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest difference over the largest wanted number."""
    return float((found - wanted).abs().max() / wanted.abs().max())


def start_KPH(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(K, P, H, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def growing(step: int) -> torch.Tensor:
    """Gradients that grow at another pace in each candidate: the clip is active, and differently so."""
    noise = torch.randn(K, P, H, generator=torch.Generator().manual_seed(100 + step), dtype=torch.float64)
    return noise * torch.tensor([1.0, 1.3, 2.0]).double()[:, None, None] ** (step / 4)


def fading(step: int) -> torch.Tensor:
    """Gradients of one magnitude that fades: no update's root mean square is above 1, the clip rests."""
    noise = torch.randn(K, P, H, generator=torch.Generator().manual_seed(100 + step), dtype=torch.float64)
    return noise.sign() * 0.9**step


def run(optimiser: torch.optim.Optimizer, gradients: Gradients, steps: range = range(STEPS)) -> torch.Tensor:
    parameter: torch.Tensor = optimiser.param_groups[0]["params"][0]
    for step in steps:
        parameter.grad = gradients(step).to(parameter)
        optimiser.step()
    return parameter.detach()


def reference(start: torch.Tensor, clip_threshold: float = 1.0) -> Reference:
    return Reference(
        [nn.Parameter(start.clone())],
        lr=LR,
        scale_parameter=False,
        relative_step=False,
        clip_threshold=clip_threshold,
        weight_decay=DECAY,
    )


def ours(start: torch.Tensor, alive: torch.Tensor | None = None, scope: str = "survivors") -> Adafactor:
    return Adafactor(nn.Parameter(start.clone()), alive, lr=LR, weight_decay=DECAY, clip_scope=scope)


def each_alone(dtype: torch.dtype, gradients: Gradients, clip_threshold: float = 1.0) -> torch.Tensor:
    """The reference on each [P, H]."""

    def alone(k: int) -> torch.Tensor:
        return run(reference(start_KPH(dtype)[k], clip_threshold), lambda step: gradients(step)[k])

    return torch.stack([alone(k) for k in range(K)])


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("gradients", [growing, fading])
def test_adafactor_is_the_reference_on_each_candidate_alone(dtype: torch.dtype, gradients: Gradients) -> None:
    tolerance = TOLERANCES[dtype]
    wanted = each_alone(dtype, gradients)
    assert distance(start_KPH(dtype), wanted) > 100 * tolerance, "nothing moved"
    assert distance(run(ours(start_KPH(dtype)), gradients), wanted) <= tolerance
    clipped = distance(each_alone(dtype, gradients, clip_threshold=1e9), wanted)
    assert clipped > 100 * tolerance if gradients is growing else clipped <= tolerance


def test_one_reference_over_all_candidates_is_something_else() -> None:
    wanted = each_alone(torch.float64, growing)
    assert distance(run(reference(start_KPH()), growing), wanted) > 1e-3


def masked_and_compact() -> tuple[torch.Tensor, torch.Tensor]:
    """Survivors `[K, P, H]` (two tokens of each candidate pruned, and pieces of others) and kept rows `[K, Q]`."""
    kept_KQ = torch.tensor([[0, 1, 3, 5], [1, 2, 3, 4], [0, 2, 4, 5]])
    piece_KPS = torch.rand(K, P, S, generator=torch.Generator().manual_seed(3)) > 0.4
    piece_KPS[..., 0] = True
    token_KP = torch.zeros(K, P, dtype=torch.bool).scatter(1, kept_KQ, True)
    alive = (piece_KPS & token_KP[..., None]).repeat_interleave(H // S, dim=2)
    return alive.double(), kept_KQ[..., None].expand(-1, -1, H)


@pytest.mark.parametrize(("scope", "same"), [("survivors", True), ("all", False)])
@pytest.mark.parametrize("gradients", [growing, fading])
def test_a_masked_prompt_and_its_compact_copy_take_the_same_steps(gradients: Gradients, scope: str, same: bool) -> None:
    alive, rows = masked_and_compact()
    start = start_KPH() * alive
    masked = run(ours(start, alive, scope), lambda step: gradients(step) * alive).gather(1, rows)
    compact = run(
        ours(start.gather(1, rows), alive.gather(1, rows), scope),
        lambda step: (gradients(step) * alive).gather(1, rows),
    )
    assert distance(start.gather(1, rows), compact) > 1e-2, "nothing moved"
    if same or gradients is fading:
        assert distance(masked, compact) <= 1e-12
    else:
        assert distance(masked, compact) > 1e-2


def test_under_all_a_masked_prompt_takes_the_references_steps() -> None:
    alive, _ = masked_and_compact()
    start = start_KPH() * alive

    def alone(k: int) -> torch.Tensor:
        return run(reference(start[k]), lambda step: (growing(step) * alive)[k])

    wanted = torch.stack([alone(k) for k in range(K)])
    assert distance(run(ours(start, alive, "all"), lambda step: growing(step) * alive), wanted) <= 1e-12
    assert distance(run(ours(start, alive, "survivors"), lambda step: growing(step) * alive), wanted) > 1e-2


def test_counting_pruned_zeros_lets_survivors_go_further() -> None:
    """Why `clip_scope: survivors`, by hand: with a fifth of a prompt left, `all` clips only above sqrt(5)."""
    alive = torch.zeros(1, 5, H, dtype=torch.float64)
    alive[:, 0] = 1.0
    # A sudden large gradient after small ones, so that the second step is clipped in both.
    sizes = [1e-3, 1.0]
    ends = {
        scope: run(
            Adafactor(nn.Parameter(torch.zeros(1, 5, H).double()), alive, lr=1.0, clip_scope=scope),
            lambda step: alive * sizes[step],
            range(2),
        )
        for scope in ("survivors", "all")
    }
    # Step one: the survivors' update is 1, which no clip touches. Step two: it is u > 1, and its root mean square is u
    # over the survivors, so it is clipped to 1, but u / sqrt(5) < 1 over all numbers, so it isn't.
    beta = 1 - 2**-0.8
    u = 1 / (beta * 1e-6 + (1 - beta)) ** 0.5
    assert 1.2 < u < 5**0.5
    assert ends["survivors"][0, 0].tolist() == pytest.approx([-2.0] * H)
    assert ends["all"][0, 0].tolist() == pytest.approx([-1.0 - u] * H)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("scope", ["survivors", "all"])
@pytest.mark.parametrize("name", ["adafactor", "adamw"])
@pytest.mark.parametrize("scale", [1.0, 1e12])
def test_masked_places_stay_exactly_zero(name: str, scope: str, dtype: torch.dtype, scale: float) -> None:
    """At the large scale the moments' ratio of a pruned row is infinite in float32, and zero times that isn't zero."""
    alive = masked_and_compact()[0].to(dtype)
    parameter = nn.Parameter(start_KPH(dtype) * alive)
    optimiser = prompt_optimiser(
        TuningConfig(optimiser=name, weight_decay=0.1, clip_scope=scope), parameter, alive, lr=LR
    )
    end = run(optimiser, lambda step: (fading(step) * scale).to(dtype) * alive)
    assert torch.isfinite(end).all()
    assert (end[alive == 0] == 0).all()
    assert (end[alive == 1] != start_KPH(dtype)[alive == 1]).all()


def made(name: str, start: torch.Tensor) -> torch.optim.Optimizer:
    tuning = TuningConfig(optimiser=name, weight_decay=DECAY)
    return prompt_optimiser(tuning, nn.Parameter(start.clone()), torch.ones_like(start), lr=LR)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", ["adafactor", "adamw"])
def test_a_packed_state_goes_on_bit_for_bit(name: str, dtype: torch.dtype) -> None:
    unbroken = run(made(name, start_KPH(dtype)), growing, range(20))
    first = made(name, start_KPH(dtype))
    halfway = run(first, growing, range(10)).clone()
    state = pack(first)
    before = {key: value.clone() for key, value in state.items()}
    run(first, growing, range(10, 12))
    assert all(torch.equal(state[key], before[key]) for key in state), "the packed state moved on"
    second = made(name, halfway)
    unpack(second, state)
    assert torch.equal(run(second, growing, range(10, 20)), unbroken)
    assert all(torch.equal(state[key], before[key]) for key in state), "going on changed what was packed"
    assert not torch.equal(run(made(name, halfway), growing, range(10, 20)), unbroken), "the state doesn't matter"


@pytest.mark.parametrize("name", ["adafactor", "adamw"])
def test_keeping_some_candidates_is_never_having_had_the_others(name: str) -> None:
    chosen = [2, 0]
    optimiser = made(name, start_KPH())
    parameter = optimiser.param_groups[0]["params"][0]
    run(optimiser, growing, range(10))
    parameter.data = parameter.data[chosen]
    parameter.grad = None
    keep_candidates(optimiser, chosen)
    found = run(optimiser, lambda step: growing(step)[chosen], range(10, 20))
    wanted = run(made(name, start_KPH()[chosen]), lambda step: growing(step)[chosen], range(20))
    assert distance(found, wanted) <= 1e-12
    assert distance(found.flip(0), wanted) > 1e-2


def test_a_step_without_a_gradient_does_nothing() -> None:
    optimiser = ours(start_KPH())
    optimiser.step()
    assert torch.equal(optimiser.param_groups[0]["params"][0], start_KPH())
    assert pack(optimiser) == {}
