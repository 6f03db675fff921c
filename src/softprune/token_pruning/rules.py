"""Which tokens stay after a layer: learned thresholds, and the rules that they are compared with.

    s_j      = 1 / (heads * D) * sum over heads h and alive queries i of P[h, i, j]           importance (section 3.2)
    theta_l  = theta_final * l / L + delta_l,  l from 0, layer 0 prunes nothing               threshold
    m_j      = sigmoid((s_j - theta_l) / T)                                                   soft stage (section 3.3)
    kept     : s_j >= max(1e-5 * 128 / D, theta_l)                                            hard stage

after Kim et al. 2022, "Learned Token Pruning for Transformers". Attention rows sum to 1, so the mean of s over alive
tokens is 1 / D exactly. The official code divides by the padded length; here D is a constant of the model, so that no
token's fate depends on its batch: 1 ("relative": a threshold of 1 is an average token) or 128 (the official figures).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import nn

from softprune.ratios import exact

OFFICIAL_LENGTH = 128
"""The padded length D of the official GLUE figures: what theta_final = 0.01 and T = 1e-3 were chosen for."""
LEAST = 1e-5  # the lowest cut of the hard rule, in official units
Order = Literal["importance", "random", "first"]


@dataclass(frozen=True, slots=True)
class Convention:
    """How importance is counted and which token is protected.

    The first token of a text is the one that the head reads. In the official code it can be pruned: from the next layer
    on no token attends to it, and its own row of attention is zero, so that attention adds only the output projection's
    bias to its residual stream. Norms and feed-forward parts go on, and the head reads it.
    """

    divisor: float = 1.0  # D, as above
    protect: bool = True  # whether the first token can't be pruned

    @property
    def least(self) -> float:
        """The lowest cut of the hard rule."""
        return LEAST * (OFFICIAL_LENGTH / self.divisor)


OFFICIAL = Convention(divisor=OFFICIAL_LENGTH, protect=False)


@dataclass(frozen=True, slots=True)
class AliveTokens:
    """The tokens that a rule decides on: those of a batch that are left, text by text."""

    layer: int
    row_M: torch.Tensor  # the text of each token
    position_M: torch.Tensor  # its position in that text, from 0
    lengths: Sequence[int]  # tokens of each text that are left
    originals: Sequence[int]  # tokens of each text at the beginning
    keys: Sequence[int]  # `text_key` of each text: a seeded draw depends on it, and so not on the batch
    protect: bool = True  # whether the first token of a text stays whatever a rule says


class Rule(Protocol):
    """Decides after a layer's attention which tokens stay (all of them, if nothing is overridden).

    It is called through `tokens_to_keep`.
    """

    @property
    def scored(self) -> bool:
        """Whether it needs importance; attention without it can be fused."""
        return False

    def prunes(self, layer: int) -> bool:
        """Whether it may remove tokens after this layer."""
        del layer
        return False

    def keep_mask(self, alive: AliveTokens, score_M: torch.Tensor | None) -> torch.Tensor:
        """`[M]` bool; the protected token and a text's last one stay even where this is False."""
        del score_M
        return torch.ones_like(alive.row_M, dtype=torch.bool)


def tokens_to_keep(rule: Rule, alive: AliveTokens, score_M: torch.Tensor | None) -> torch.Tensor:
    """`[M]` bool: the rule's choice and the protected tokens; no text loses all of its tokens."""
    keep_M = rule.keep_mask(alive, score_M)
    if alive.protect:
        return keep_M | (alive.position_M == 0)
    lengths = list(alive.lengths)
    if score_M is None:
        score_M = -torch.arange(len(keep_M), device=keep_M.device)  # without scores the first one stays
    for keep_N, score_N in zip(keep_M.split(lengths), score_M.split(lengths), strict=True):
        if not bool(keep_N.any()):  # one token stays, or attention has no keys
            keep_N[int(score_N.argmax())] = True
    return keep_M


class KeepAll(Rule):
    """No pruning."""


class Thresholds(nn.Module):
    """Learned thresholds; with `delta_L` left at zero, the manual rule of the paper's baselines.

    `theta_final` (the threshold at l = L, had it one) and `temperature` (T of the soft mask) are in units of 1 / D.
    """

    scored = True

    def __init__(self, layers: int, theta_final: float, temperature: float, convention: Convention) -> None:
        super().__init__()
        self.theta_final, self.temperature, self.convention = theta_final, temperature, convention
        # float32 in every dtype of the model: near 1 / 128, bfloat16 is as coarse as T
        self.delta_L = nn.Parameter(torch.zeros(layers))

    def theta(self, layer: int) -> torch.Tensor:
        """theta_l, a scalar with its gradient."""
        return self.theta_final * layer / len(self.delta_L) + self.delta_L[layer]

    def soft(self, layer: int, score_M: torch.Tensor) -> torch.Tensor:
        """m `[M]`, between 0 and 1."""
        return torch.sigmoid((score_M - self.theta(layer)) / self.temperature)

    def prunes(self, layer: int) -> bool:
        """In every layer but the first."""
        return layer > 0

    def keep_mask(self, alive: AliveTokens, score_M: torch.Tensor | None) -> torch.Tensor:
        """Tokens whose importance reaches the threshold."""
        assert score_M is not None
        return score_M >= max(self.convention.least, float(self.theta(alive.layer).detach()))

    def values(self) -> list[float]:
        """theta_l of every layer; 0 for the first, which has none."""
        return [0.0, *(float(self.theta(layer).detach()) for layer in range(1, len(self.delta_L)))]


@dataclass(frozen=True, slots=True)
class Ranked:
    """A fixed number of tokens after each layer: the baselines top-k, random tokens and first tokens.

    The first max(3, ceil(0.15 L)) layers keep all tokens; then the share falls linearly to `rate` at the last layer.
    k is a share of the text's original length (Kim et al. 2022, section 4.1, after SpAtten). Three whole layers out of
    six cost three quarters of all operations, so `whole` can lower their number.
    """

    layers: int  # L
    rate: float  # share of the tokens left after the last layer; below 0, only one token is left before the last layer
    order: Order = "importance"  # random: a seeded draw that only the text decides
    seed: int = 0  # of the draw
    whole: int | None = None  # number of layers that keep all tokens; None is the paper's

    @property
    def scored(self) -> bool:
        """Only the order by importance needs scores."""
        return self.order == "importance"

    @property
    def whole_layers(self) -> int:
        """Number of layers that keep all tokens."""
        return max(3, math.ceil(exact(0.15) * self.layers)) if self.whole is None else self.whole

    def share(self, layer: int) -> float:
        """Share of a text's tokens that is left after a layer."""
        whole = self.whole_layers
        if layer < whole:
            return 1.0
        return max(0.0, 1.0 - (1.0 - self.rate) * (layer - whole + 1) / (self.layers - whole))

    def kept(self, layer: int, original: int) -> int:
        """k: tokens of a text that are left after a layer."""
        return max(1, round(exact(self.share(layer)) * original))

    def prunes(self, layer: int) -> bool:
        """Where the share is below one."""
        return self.share(layer) < 1.0

    def keep_mask(self, alive: AliveTokens, score_M: torch.Tensor | None) -> torch.Tensor:
        """The first k of each text in the rule's order; equal scores go by position."""
        if self.order == "importance":
            assert score_M is not None
            priority_M = score_M
        elif self.order == "first":
            priority_M = -alive.position_M.float()
        else:
            priority_M = self._draw_priorities(alive)
        if alive.protect:  # the first token is one of the k
            priority_M = priority_M.masked_fill(alive.position_M == 0, math.inf)
        keep_M, lengths = torch.zeros_like(alive.row_M, dtype=torch.bool), list(alive.lengths)
        texts = zip(keep_M.split(lengths), priority_M.split(lengths), alive.originals, strict=True)
        for keep_N, priority_N, original in texts:
            best = torch.sort(priority_N, descending=True, stable=True).indices
            keep_N[best[: self.kept(alive.layer, original)]] = True
        return keep_M

    def _draw_priorities(self, alive: AliveTokens) -> torch.Tensor:
        """A number for every original token of a text, the same in every layer: what is dropped stays dropped."""
        drawn = []
        for key, original in zip(alive.keys, alive.originals, strict=True):
            # One number of 32 bits: on a CPU, torch's generator ignores further ones.
            generator = torch.Generator().manual_seed(zlib.crc32(str(self.seed).encode(), key))
            drawn.append(torch.rand(original, generator=generator))
        starts = torch.tensor([0, *alive.originals[:-1]]).cumsum(0).to(alive.row_M.device)
        priority_M: torch.Tensor = torch.cat(drawn).to(alive.row_M.device)[starts[alive.row_M] + alive.position_M]
        return priority_M


@dataclass(frozen=True, slots=True)
class ForcedTokens:
    """A rule with exceptions, by which `TokenModel.trace` measures what single tokens do."""

    rule: Rule  # for the other tokens
    out: tuple[frozenset[int], ...]  # per text, positions of tokens that leave after the first layer that prunes

    @property
    def scored(self) -> bool:
        """As the rule."""
        return self.rule.scored

    def prunes(self, layer: int) -> bool:
        """As the rule; and after layer 1 where tokens are forced out of a model that removes none."""
        return self.rule.prunes(layer) or (layer == 1 and any(self.out))

    def keep_mask(self, alive: AliveTokens, score_M: torch.Tensor | None) -> torch.Tensor:
        """The rule's choice without the tokens that are forced out."""
        keep_M = torch.ones_like(alive.row_M, dtype=torch.bool)
        if self.rule.prunes(alive.layer):
            keep_M = self.rule.keep_mask(alive, score_M)
        for i, (row, position) in enumerate(zip(alive.row_M.tolist(), alive.position_M.tolist(), strict=True)):
            if position in self.out[row]:
                keep_M[i] = False
        return keep_M


def text_key(ids: Sequence[int]) -> int:
    """A number from a text's token ids, the same on every machine."""
    return zlib.crc32(b"".join(int(i).to_bytes(4, "little") for i in ids))
