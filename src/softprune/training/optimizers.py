"""Optimisers: of K candidates in one parameter, each treated as if it were alone, and of a model's weights.

AdamW works element by element, so torch's own serves. Adafactor clips by the root mean square of a whole parameter's
update and needs a form that does so per candidate. Clipping of gradients and the course of step sizes are the loop's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from softprune.config.schema import TuningConfig

EPSILON, DECAY_RATE = 1e-30, -0.8  # of Adafactor, as in its paper and in transformers

# Parts of the names of biases and norms, in every architecture: pulling them to zero doesn't help.
_NO_DECAY = ("bias", "norm")


class Adafactor(torch.optim.Optimizer):
    """Adafactor (Shazeer and Stern 2018, algorithm 4) over `[K, P, H]`, one candidate at a time in effect.

    Equals `transformers.Adafactor(scale_parameter=False, relative_step=False)` on each `[P, H]` alone:

        R = beta R + (1 - beta) mean_h(G^2 + eps)      row second moments, `[K, P]`
        C = beta C + (1 - beta) mean_p(G^2 + eps)      column second moments, `[K, H]`
        U = G / sqrt(R C / mean_p(R))                  the update
        U = U / max(1, RMS(U) / d)                     its clip
        p = p - lr (weight_decay p + U)

    with beta = 1 - step^-0.8. Zero gradients of pruned rows scale mean_p(R) and C alike, so R C / mean_p(R) is what
    it would be without those rows; only by the clip's RMS does a masked prompt differ from its compact copy. Under
    `clip_scope: survivors` the mean runs over surviving dimensions, and both take identical steps. Under
    `clip_scope: all` it runs over all (the paper's masked prompts under the reference implementation). `survivors_KPH`
    is 1 where a dimension survives, None for all; d is `clip_threshold`.
    """

    def __init__(
        self,
        parameter: nn.Parameter,
        survivors_KPH: torch.Tensor | None = None,
        *,
        lr: float,
        weight_decay: float = 0.0,
        clip_threshold: float = 1.0,
        clip_scope: str = "survivors",
    ) -> None:
        super().__init__([parameter], {"lr": lr})
        self.weight_decay, self.clip_threshold = weight_decay, clip_threshold
        alive = torch.ones_like(parameter) if survivors_KPH is None else survivors_KPH.to(parameter)
        self.alive_KPH = alive.detach()
        self.count_everything = clip_scope == "all"

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every candidate from `parameter.grad`."""
        del closure
        parameter = self.param_groups[0]["params"][0]
        gradient, lr = parameter.grad, self.param_groups[0]["lr"]
        if gradient is None:
            return
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float64)
            state["row_KP"] = torch.zeros_like(gradient[..., 0])
            state["column_KH"] = torch.zeros_like(gradient[:, 0])
        state["step"] += 1
        beta = 1.0 - math.pow(float(state["step"]), DECAY_RATE)
        squares = gradient.square() + EPSILON
        row_KP = state["row_KP"].mul_(beta).add_(squares.mean(-1), alpha=1 - beta)
        column_KH = state["column_KH"].mul_(beta).add_(squares.mean(-2), alpha=1 - beta)
        scale = (row_KP / row_KP.mean(-1, keepdim=True)).rsqrt()[..., None] * column_KH.rsqrt()[:, None]
        # where, not times: the scale of a pruned row may overflow, and zero times infinity is no zero.
        update = torch.where(self.alive_KPH > 0, scale * gradient, torch.zeros_like(gradient))
        counted_KPH = torch.ones_like(self.alive_KPH) if self.count_everything else self.alive_KPH
        rms_K = (update.square().sum((-2, -1)) / counted_KPH.sum((-2, -1))).sqrt()
        update /= (rms_K[:, None, None] / self.clip_threshold).clamp(min=1.0)
        parameter.mul_(1 - lr * self.weight_decay).sub_(update, alpha=lr)

    def keep(self, indices: Sequence[int]) -> None:
        """Go on with some of the candidates only."""
        self.alive_KPH = self.alive_KPH[list(indices)]


def prompt_optimiser(
    tuning: TuningConfig, parameter: nn.Parameter, survivors_KPH: torch.Tensor | None, lr: float
) -> torch.optim.Optimizer:
    """The optimiser of a recipe for its prompts, one `[K, P, H]` parameter, at an absolute step size."""
    if tuning.optimiser == "adamw":
        return torch.optim.AdamW([parameter], lr=lr, weight_decay=tuning.weight_decay)
    return Adafactor(
        parameter,
        survivors_KPH,
        lr=lr,
        weight_decay=tuning.weight_decay,
        clip_threshold=tuning.clip_threshold,
        clip_scope=tuning.clip_scope,
    )


def form_adamw(
    trained: Mapping[str, nn.Parameter], sizes: Mapping[str, float], *, lr: float, rms: float, weight_decay: float
) -> torch.optim.AdamW:
    """AdamW of a form's tensors (`softprune.prompts.forms`), each of K candidates in one parameter.

    `lr` is how far a step moves the vectors of the prompt; `sizes` are of the numbers that move them by `rms`, that of
    the embeddings.
    """
    groups = [{"params": [values], "lr": lr * sizes[name] / rms} for name, values in trained.items()]
    return torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay)


def weights_adamw(
    named: Mapping[str, nn.Parameter],
    *,
    lr: float,
    weight_decay: float,
    own_rates: Mapping[str, float] | None = None,
) -> torch.optim.AdamW:
    """AdamW as everywhere in fine-tuning: matrices decay, biases and norms don't.

    `lr` is the step size at its highest; parameters with `own_rates` neither decay nor count for the gradient's norm.
    """
    own_rates = own_rates or {}
    shared = {name: parameter for name, parameter in named.items() if name not in own_rates}
    vectors = [name for name in shared if any(part in name.lower() for part in _NO_DECAY)]
    groups: list[dict[str, Any]] = [
        {"params": [shared[name] for name in shared if name not in vectors], "weight_decay": weight_decay},
        {"params": [shared[name] for name in vectors], "weight_decay": 0.0},
    ]
    for name, rate in own_rates.items():
        groups.append({"params": [named[name]], "lr": rate, "weight_decay": 0.0, "clip": False})
    # Fused: one pass over memory instead of ten, and no slow roots of denormal moments (of words that no text holds).
    fused = next(iter(named.values())).device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, lr=lr, fused=fused)


def pack(optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """An optimiser's state as named tensors."""
    return {
        f"optimiser.{number}.{name}": value.detach().clone()
        for number, parameter in enumerate(_parameters(optimiser))
        for name, value in optimiser.state.get(parameter, {}).items()
    }


def unpack(optimiser: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Take a packed state back."""
    for number, parameter in enumerate(_parameters(optimiser)):
        prefix = f"optimiser.{number}."
        state = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        # Copies, since steps change states in place. Scalars (step counts) stay on the CPU, where they were made.
        optimiser.state[parameter] = {
            name: t.clone() if t.dim() == 0 else t.to(parameter.device, copy=True) for name, t in state.items()
        }


def keep_candidates(optimiser: torch.optim.Optimizer, indices: Sequence[int]) -> None:
    """Drop the state of candidates that left; their axis is the first of every state tensor."""
    chosen = list(indices)
    for parameter in _parameters(optimiser):
        state = optimiser.state.get(parameter, {})
        for name, value in state.items():
            if value.dim():
                state[name] = value[chosen]
    keep = getattr(optimiser, "keep", None)  # of those that hold more than their state
    if keep is not None:
        keep(chosen)


def _parameters(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]
