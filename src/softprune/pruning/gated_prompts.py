"""K prompts under gates, each with a sparsity price of its own: a Trainable for the one loop, and its optimiser.

    L_k = E_x E_u L(x; p_k * gamma_k(u) * zeta_k(u))  +  price_k * (expected share of parameters that is there)

A price is what the whole prompt may cost in units of the loss: a part stays open where it lowers the loss by more than
its share of the price. Every example has gates drawn for itself: its row of a call has a copy of the prompt anyway, so
B draws a step cost what one does. All K prices see the same draws, so that they differ by their price alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from softprune.models.base import Backbone
from softprune.pruning.gates import Gate, expected_size, harden, uniform
from softprune.training.optimizers import Adafactor
from softprune.types import Batch, Mask

# Open with a probability of 0.73 (straight-through) or 0.93 (hard concrete): nearer to 1, a price hardly pulls.
START = 1.0


class GatedPrompts:
    """Prompts `[K, P, H]` with gates on tokens `[K, P]` and pieces `[K, P, S]`, trained together.

    Args:
        backbone: frozen.
        vectors_PH: where every prompt starts.
        pieces: S.
        prices: one a candidate.
        gate: the kind.
        levels: both, token or piece; the gates of a level that is off stay open.
        loss, score, seed: as in `PromptTrainable`; the seed is of the draws.
    """

    def __init__(
        self,
        backbone: Backbone,
        vectors_PH: torch.Tensor,
        pieces: int,
        prices: Sequence[float],
        gate: Gate,
        *,
        levels: str,
        loss: str,
        score: str,
        seed: int,
    ) -> None:
        self.backbone, self.gate, self.levels = backbone, gate, levels
        self.loss_name, self.score, self.seed = loss, score, seed
        start = vectors_PH.to(backbone.device, backbone.prompt_dtype)
        count, tokens = len(prices), start.shape[0]
        self.price_K = start.new_tensor(prices)
        self.vectors_KPH = nn.Parameter(start.expand(count, *start.shape).clone())
        self.token_KP = nn.Parameter(start.new_full((count, tokens), START))
        self.piece_KPS = nn.Parameter(start.new_full((count, tokens, pieces), START))
        self.step, self._row = 0, 0

    @property
    def candidates(self) -> int:
        """K."""
        return int(self.vectors_KPH.shape[0])

    def parameters(self) -> list[nn.Parameter]:
        """The prompts, and the logits of the gates there are."""
        return [self.vectors_KPH, *self.gates()]

    def gates(self) -> list[nn.Parameter]:
        """The logits of the levels that are pruned."""
        if self.levels == "both":
            return [self.token_KP, self.piece_KPS]
        return [self.token_KP if self.levels == "token" else self.piece_KPS]

    def opened(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Probabilities of open gates, `[K, P]` and `[K, P, S]`; differentiable."""
        token = self.gate.open(self.token_KP) if self.levels != "piece" else torch.ones_like(self.token_KP)
        piece = self.gate.open(self.piece_KPS) if self.levels != "token" else torch.ones_like(self.piece_KPS)
        return token, piece

    def loss(self, batch: Batch) -> torch.Tensor:
        """Loss of each candidate on each example under gates of its own, and the price of its size: `[K, B]`."""
        prompts_RPH = self._drawn(len(batch)).flatten(0, 1)
        losses_R = self.backbone.row_losses(prompts_RPH, batch, self.loss_name, self.score)
        return losses_R.view(-1, len(batch)) + (self.price_K * expected_size(*self.opened()))[:, None]

    def _drawn(self, rows: int) -> torch.Tensor:
        """Prompts under the gates of a part of a step's rows, `[K, B, P, H]`."""
        tokens, pieces = self.piece_KPS.shape[1:]
        begun, self._row = self._row, self._row + rows
        # Drawn from the step's first row on: so however a batch is split, its rows see the same gates.
        drawn = uniform(self.seed, self.step, self._row, tokens * (1 + pieces))[begun:].to(self.price_K)
        token_BP, piece_BPS = drawn[:, :tokens], drawn[:, tokens:].unflatten(1, (tokens, pieces))
        gates_KBPS = drawn.new_ones(()).expand(self.candidates, rows, tokens, pieces)
        if self.levels != "piece":
            gates_KBPS = gates_KBPS * self.gate.sample(self.token_KP[:, None], token_BP)[..., None]
        if self.levels != "token":
            gates_KBPS = gates_KBPS * self.gate.sample(self.piece_KPS[:, None], piece_BPS)
        parts_KPSD = self.vectors_KPH.unflatten(-1, (pieces, -1))
        prompts_KBPH: torch.Tensor = (parts_KPSD[:, None] * gates_KBPS[..., None]).flatten(-2)
        return prompts_KBPH

    def stepped(self) -> None:
        """The optimiser made a step: the next draws are another step's."""
        self.step, self._row = self.step + 1, 0

    def masks(self) -> list[Mask]:
        """What the gates stand for now, on the CPU."""
        token_KP, piece_KPS = (part.detach().cpu() for part in self.opened())
        return [harden(token, piece, self.levels) for token, piece in zip(token_KP, piece_KPS, strict=True)]

    def hardened(self) -> torch.Tensor:
        """The prompts under these masks, `[K, P, H]`."""
        hidden = self.vectors_KPH.shape[-1]
        elements = torch.stack([mask.elements_PH(hidden) for mask in self.masks()])
        return self.vectors_KPH.detach() * elements.to(self.vectors_KPH)

    def save(self) -> dict[str, torch.Tensor]:
        """Prompts, gates, and how many steps were drawn for."""
        named = {"vectors_KPH": self.vectors_KPH, "token_KP": self.token_KP, "piece_KPS": self.piece_KPS}
        steps = torch.full((self.candidates,), self.step)
        return {name: value.detach().clone() for name, value in named.items()} | {"step_K": steps}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take them back, in place."""
        for name in ("vectors_KPH", "token_KP", "piece_KPS"):
            getattr(self, name).data = tensors[name].to(self.vectors_KPH)
        self.step, self._row = int(tensors["step_K"][0]), 0

    def keep(self, indices: Sequence[int]) -> None:
        """Go on with some of the prices only."""
        chosen = list(indices)
        self.price_K = self.price_K[chosen]
        for parameter in (self.vectors_KPH, self.token_KP, self.piece_KPS):
            parameter.data = parameter.data[chosen]
            parameter.grad = None


class TogetherOptimiser(torch.optim.Optimizer):
    """Several optimisers, each over parameters of its own, as one, with one state for the loop to save."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer], stepped: Callable[[], None]) -> None:
        groups = [group for part in parts for group in part.param_groups]
        super().__init__([parameter for group in groups for parameter in group["params"]], {})
        self.parts, self.stepped = list(parts), stepped
        self.param_groups = groups  # the parts' own: a new step size of the loop's must reach them
        for part in parts:
            part.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update everything."""
        del closure
        for part in self.parts:
            part.step()
        self.stepped()

    def keep(self, indices: Sequence[int]) -> None:
        """Go on with some of the candidates only."""
        for part in self.parts:
            if isinstance(part, Adafactor):
                part.keep(indices)
