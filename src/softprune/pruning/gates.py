"""Gates on tokens and pieces: random variables on [0, 1] that multiply them; how likely they are open is learned.

Two kinds, told apart by how a gradient gets through the choice between open and shut. `a` is a gate's logit, `u`
uniform on (0, 1), `z` the gate.

Hard concrete (Louizos, Welling and Kingma 2018, equations 10 to 12; their gamma and zeta are `low` and `high`, their
beta is `temperature`):

    s = sigmoid((log u - log(1 - u) + a) / beta)          a binary concrete variable
    z = min(1, max(0, s (zeta - gamma) + gamma))          stretched, then folded back: 0 and 1 have mass of their own
    P(z != 0) = sigmoid(a - beta log(-gamma / zeta))      what the L0 penalty counts

Straight-through, after Bengio, Leonard and Courville (2013, section 4), who copy the gradient of z to a; ours goes
through the sigmoid, as z's expectation does:

    z = 1 if u < sigmoid(a) else 0,   dz/da := d sigmoid(a)/da,   P(z != 0) = sigmoid(a)

Either kind is hardened by our own rule, not by equation 13 of the former paper: a gate stays that is more likely open
than shut.

A token's gate gamma_p multiplies all its pieces' gates zeta_ps, as in equations 2 and 4 of XPrompt, so piece s of token
p is there with probability P(gamma_p != 0) P(zeta_ps != 0).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from softprune.types import Mask

# Without it, the same seed would give the numbers that order the data.
_STREAM = 1


class Gate(Protocol):
    """A kind of gate, element by element over tensors of any shape."""

    def sample(self, logits: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        """Gates drawn from uniform numbers; differentiable in the logits."""

    def open(self, logits: torch.Tensor) -> torch.Tensor:
        """P(z != 0); differentiable."""


@dataclass(frozen=True, slots=True)
class HardConcrete:
    """A binary concrete variable, stretched and folded; the paper's constants.

    Attributes:
        temperature: beta.
        low, high: gamma and zeta, the ends that (0, 1) is stretched to.
    """

    temperature: float = 2 / 3
    low: float = -0.1
    high: float = 1.1

    def sample(self, logits: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        """`z`; its gradient is zero where it was folded to 0 or 1."""
        concrete = torch.sigmoid((torch.logit(uniform) + logits) / self.temperature)
        return (concrete * (self.high - self.low) + self.low).clamp(0.0, 1.0)

    def open(self, logits: torch.Tensor) -> torch.Tensor:
        """P(z != 0)."""
        return torch.sigmoid(logits - self.temperature * math.log(-self.low / self.high))


@dataclass(frozen=True, slots=True)
class StraightThrough:
    """A coin whose gradient is that of its probability."""

    def sample(self, logits: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        """`z`, exactly 0 or 1."""
        probability = torch.sigmoid(logits)
        coin = (uniform < probability).to(logits)
        # In this order the forward value is exactly the coin.
        return coin + (probability - probability.detach())

    def open(self, logits: torch.Tensor) -> torch.Tensor:
        """P(z != 0)."""
        return torch.sigmoid(logits)


GATES: dict[str, Gate] = {"hard-concrete": HardConcrete(), "straight-through": StraightThrough()}


def expected_size(token_KP: torch.Tensor, piece_KPS: torch.Tensor) -> torch.Tensor:
    """Expected share of the prompt's parameters that is there, `[K]`, of the probabilities of open gates."""
    return (token_KP[..., None] * piece_KPS).mean((-2, -1))


def uniform(seed: int, step: int, rows: int, width: int) -> torch.Tensor:
    """Uniform numbers `[rows, width]` float64, a function of seed and step alone; fewer rows are the first of more."""
    return torch.from_numpy(np.random.default_rng([seed, step, _STREAM]).random((rows, width)))


def harden(token_P: torch.Tensor, piece_PS: torch.Tensor, levels: str) -> Mask:
    """The mask that gates stand for: what is more likely open than shut stays.

    A token without an open piece goes, unless tokens aren't pruned: then its likeliest piece stays. At least one token
    stays, the one with the likeliest piece.

    Args:
        token_P, piece_PS: probabilities of open gates, 1 where a level has none.
        levels: both, token or piece.
    """
    kept_P, kept_PS = token_P >= 0.5, piece_PS >= 0.5
    if levels == "piece":
        first = torch.zeros_like(kept_PS)
        first[torch.arange(len(first)), piece_PS.argmax(1)] = True
        kept_PS = torch.where(kept_PS.any(1, keepdim=True), kept_PS, first)
    kept_P = kept_P & kept_PS.any(1)
    if not bool(kept_P.any()):
        token, piece = divmod(int((token_P[:, None] * piece_PS).argmax()), piece_PS.shape[1])
        kept_P[token] = True
        kept_PS[token, piece] = True
    return Mask(kept_P, kept_PS & kept_P[:, None])
