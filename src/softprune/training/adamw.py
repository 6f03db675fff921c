"""The optimiser of weights, as everywhere in fine-tuning. Soft prompts have theirs in optimisers.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from softprune.ratios import exact

_NO_DECAY = ("bias", "norm")  # vectors aren't pulled to zero


class FineTuner(torch.optim.AdamW):
    """AdamW whose step sizes rise and then fall linearly to 0, behind a clip of the gradient's norm.

    Args:
        named: what is trained, by name.
        lr: step size at its highest.
        weight_decay: of matrices.
        warmup: share of the steps over which step sizes rise.
        steps: in all.
        clip_norm: largest norm of a gradient; what has a step size of its own aside.
        falls: whether step sizes fall after the warm-up.
        apart: parameters with a step size of their own and no decay, by their name.
    """

    def __init__(
        self,
        named: Mapping[str, nn.Parameter],
        *,
        lr: float,
        weight_decay: float,
        warmup: float,
        steps: int,
        clip_norm: float,
        falls: bool = True,
        apart: Mapping[str, float] | None = None,
    ) -> None:
        own = apart or {}
        weights = {name: p for name, p in named.items() if name not in own}
        plain = [p for name, p in weights.items() if any(part in name.lower() for part in _NO_DECAY)]
        decayed = [p for name, p in weights.items() if not any(part in name.lower() for part in _NO_DECAY)]
        groups: list[dict[str, Any]] = [
            {"params": decayed, "lr": lr, "weight_decay": weight_decay},
            {"params": plain, "lr": lr, "weight_decay": 0.0},
            *({"params": [named[name]], "lr": rate, "weight_decay": 0.0} for name, rate in own.items()),
        ]
        fused = next(iter(named.values())).device.type in ("cpu", "cuda")
        # One pass over memory instead of ten, and no slow roots of denormal moments (of words that no text holds).
        super().__init__(groups, lr=lr, fused=fused)
        self._highest = [group["lr"] for group in self.param_groups]
        self._weights = [*decayed, *plain]
        self._warm, self._steps, self._clip = max(1, round(exact(warmup) * steps)), steps, clip_norm
        self._falls = falls

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update at the step size of its place."""
        del closure
        nn.utils.clip_grad_norm_([p for p in self._weights if p.grad is not None], self._clip)
        first = next((state for state in self.state.values() if "step" in state), None)
        done = 0 if first is None else int(first["step"])  # all parameters have made as many
        left = (self._steps - done) / max(1, self._steps - self._warm) if self._falls else 1.0
        share = min((done + 1) / self._warm, left)
        for group, highest in zip(self.param_groups, self._highest, strict=True):
            group["lr"] = highest * max(0.0, share)
        super().step()
