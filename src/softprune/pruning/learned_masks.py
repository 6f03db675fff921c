"""The learned ratio: gates find how much to prune, and what, in one training.

    gates    = train(tuned prompt and gates, price)   for K prices at once
    mask     = harden(gates)                          open or shut
    ticket   = retrain(tuned * mask)                  as every other candidate

A price is what the whole prompt may cost in units of the loss: a part stays open where it lowers the loss by more than
its share of the price. Which price is right differs from task to task, so K of them make K tickets along the Pareto
front, and the run's objective chooses among them on `select`. Gates are trained on `train` alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import nn

from softprune.models.base import Backbone
from softprune.pruning.search import MaskedCandidate
from softprune.runs.record_parts import GatesRecord
from softprune.training.jobs import Fitted, FolderKeeper, evaluate, schedule
from softprune.training.loop import train
from softprune.training.optimizers import prompt_optimiser
from softprune.training.session import Workspace
from softprune.training.trainable import Feed
from softprune.types import Batch, Mask

# Step sizes of the gates' logits, each the best of those tried (docs/log.md). Hard concrete at 1 chose worse masks: a
# gate that is folded to 0 has no gradient to come back by.
RATES = {"hard-concrete": 0.3, "straight-through": 0.5}

# Open with a probability of 0.73 (straight-through) or 0.93 (hard concrete): nearer to 1, a price hardly pulls.
START = 1.0

# Without it, the same seed would give the numbers that order the data.
_STREAM = 1


def learn_masks(workspace: Workspace, tuned: Fitted) -> list[MaskedCandidate]:
    """Candidates whose masks were learned, the lowest price first; prices that came to one mask share one candidate."""
    settings, hidden = workspace.recipe.search, tuned.state.vectors_PH.shape[1]
    prices, at_once = sorted(settings.prices), workspace.group
    rate = settings.gate_lr or RATES[settings.gates]
    with workspace.run.phase("gates"):
        starts = range(0, len(prices), at_once)
        parts = [_train_gates(workspace, tuned, prices[at : at + at_once], rate) for at in starts]
    token_KP, piece_KPS = (torch.cat(part) for part in zip(*parts, strict=True))
    candidates: list[MaskedCandidate] = []
    tickets: list[str] = []
    for price, token_P, piece_PS in zip(prices, token_KP, piece_KPS, strict=True):
        mask = harden(token_P, piece_PS, workspace.recipe.pruning.levels)
        same = next((each for each in candidates if torch.equal(each.mask.piece_PS, mask.piece_PS)), None)
        if same is None:
            tokens, pieces = mask.piece_PS.shape
            room = mask.tokens * pieces
            ratios = (tokens - mask.tokens) / tokens, (room - mask.pieces) / room  # an outcome here
            same = MaskedCandidate.make(f"g{_price_name(price)}", mask, hidden, *ratios)
            candidates.append(same)
        tickets.append(same.candidate.id)
    sizes = expected_size(token_KP, piece_KPS).tolist()
    with workspace.run.editing() as record:
        record.gates = GatesRecord(kind=settings.gates, lr=rate, prices=prices, expected_sizes=sizes, tickets=tickets)
    tensors = {"prices_K": torch.tensor(prices), "token_KP": token_KP, "piece_KPS": piece_KPS}
    workspace.run.write_tensors("gates.safetensors", tensors, {"kind": settings.gates})
    return candidates


def _price_name(price: float) -> str:
    """A price in a name: with all its digits, so that different ones have different names."""
    return repr(price).removesuffix(".0")


def _train_gates(
    workspace: Workspace, tuned: Fitted, prices: list[float], rate: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities of open gates, `[K, P]` and `[K, P, S]`, after training K prices side by side."""
    recipe, backbone, data = workspace.recipe, workspace.backbone, workspace.train
    gated = GatedPrompts(
        backbone,
        tuned.state.vectors_PH,
        recipe.prompt.pieces,
        prices,
        GATES[recipe.search.gates],
        levels=recipe.pruning.levels,
        loss=workspace.scoring.loss,
        score=workspace.scoring.score,
        seed=recipe.seed,
    )
    prompts = prompt_optimiser(recipe.tuning, gated.vectors_KPH, None, workspace.lr)
    # A piece's share of a low price is a gradient of about 1e-7: Adam's usual epsilon would damp it.
    gates = torch.optim.Adam(gated.gates(), lr=rate, eps=1e-12)
    # Nobody leaves, and the last gates count, not those of the best score: that is mostly the least pruned.
    whole = schedule(recipe, len(data), recipe.search.gate_epochs or recipe.search.epochs)
    names = [f"gates-{_price_name(price)}" for price in prices]
    trained = train(
        gated,
        TogetherOptimiser([prompts, gates], gated.next_step),
        Feed(data.lengths, lambda indices: data.batch(backbone, indices)),
        # The prompts under their masks of the moment, for the curves alone.
        lambda: evaluate(workspace, gated.harden_prompts()),
        replace(whole, patience=None, best_by="last"),
        names=names,
        title=f"learning gates at {len(prices)} price{'s' * (len(prices) > 1)}",
        keeper=FolderKeeper(workspace.run, f"{names[0]}-{len(names)}", "gates", names),
        watch=workspace.watch,
    )
    gated.load(trained.tensors)
    token_KP, piece_KPS = gated.open_probabilities()
    return token_KP.detach().cpu(), piece_KPS.detach().cpu()


# --- prompts under gates ---


class GatedPrompts:
    """Prompts `[K, P, H]` with gates on tokens `[K, P]` and pieces `[K, P, S]`, each with a price of its own.

        L_k = E_x E_u L(x; p_k * gamma_k(u) * zeta_k(u))  +  price_k * (expected share of parameters that is there)

    Every example has gates drawn for itself: its row of a call has a copy of the prompt anyway, so B draws a step cost
    what one does. All K prices see the same draws, so that they differ by their price alone. Every prompt starts at
    `vectors_PH`; the gates of a level that is off stay open; `seed` is of the draws.
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

    def open_probabilities(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Probabilities of open gates, `[K, P]` and `[K, P, S]`; differentiable."""
        token_KP, piece_KPS = torch.ones_like(self.token_KP), torch.ones_like(self.piece_KPS)
        if self.levels != "piece":
            token_KP = self.gate.open(self.token_KP)
        if self.levels != "token":
            piece_KPS = self.gate.open(self.piece_KPS)
        return token_KP, piece_KPS

    def loss(self, batch: Batch) -> torch.Tensor:
        """Loss of each candidate on each example under gates of its own, and the price of its size: `[K, B]`."""
        prompts_RPH = self._draw(len(batch)).flatten(0, 1)
        losses_R = self.backbone.row_losses(prompts_RPH, batch, self.loss_name, self.score)
        return losses_R.view(-1, len(batch)) + (self.price_K * expected_size(*self.open_probabilities()))[:, None]

    def _draw(self, rows: int) -> torch.Tensor:
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

    def next_step(self) -> None:
        """The optimiser made a step: the next draws are another step's."""
        self.step, self._row = self.step + 1, 0

    def masks(self) -> list[Mask]:
        """The masks of the gates as they are now, on the CPU."""
        token_KP, piece_KPS = (part.detach().cpu() for part in self.open_probabilities())
        return [harden(token, piece, self.levels) for token, piece in zip(token_KP, piece_KPS, strict=True)]

    def harden_prompts(self) -> torch.Tensor:
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
        """Go on with all of the prices: no patience lets one go."""
        assert list(indices) == list(range(self.candidates))


class TogetherOptimiser(torch.optim.Optimizer):
    """Several optimisers, each over parameters of its own, as one, with one state for the loop to save."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer], next_step: Callable[[], None]) -> None:
        groups = [group for part in parts for group in part.param_groups]
        super().__init__([parameter for group in groups for parameter in group["params"]], {})
        self.parts, self.next_step = parts, next_step
        self.param_groups = groups  # the parts' own: a new step size of the loop's must reach them
        for part in parts:
            part.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update everything."""
        del closure
        for part in self.parts:
            part.step()
        self.next_step()


# --- gates ---


class Gate(Protocol):
    """A random variable z on [0, 1] that multiplies a token or piece; how likely it is open is learned.

    Kinds differ in how a gradient gets through the choice between open and shut. `a` is a gate's logit, `u` uniform on
    (0, 1). A token's gate gamma_p multiplies all its pieces' gates zeta_ps, as in equations 2 and 4 of XPrompt, so
    piece s of token p is there with probability P(gamma_p != 0) P(zeta_ps != 0). Tensors may have any shape.
    """

    def sample(self, logits: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        """Gates drawn from uniform numbers; differentiable in the logits."""

    def open(self, logits: torch.Tensor) -> torch.Tensor:
        """P(z != 0); differentiable."""


class HardConcrete:
    """Hard concrete (Louizos, Welling and Kingma 2018, equations 10 to 12), with the paper's constants.

    s = sigmoid((log u - log(1 - u) + a) / beta)          a binary concrete variable
    z = min(1, max(0, s (zeta - gamma) + gamma))          stretched, then folded: 0 and 1 have mass of their own
    P(z != 0) = sigmoid(a - beta log(-gamma / zeta))      what the L0 penalty counts
    """

    temperature = 2 / 3  # beta
    low, high = -0.1, 1.1  # gamma and zeta: the ends that (0, 1) is stretched to

    def sample(self, logits: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        """`z`; its gradient is zero where it was folded to 0 or 1."""
        concrete = torch.sigmoid((torch.logit(uniform) + logits) / self.temperature)
        return (concrete * (self.high - self.low) + self.low).clamp(0.0, 1.0)

    def open(self, logits: torch.Tensor) -> torch.Tensor:
        """P(z != 0)."""
        return torch.sigmoid(logits - self.temperature * math.log(-self.low / self.high))


class StraightThrough:
    """A coin whose gradient is that of its probability.

        z = 1 if u < sigmoid(a) else 0,   dz/da := d sigmoid(a)/da,   P(z != 0) = sigmoid(a)

    After Bengio, Leonard and Courville (2013, section 4), who copy the gradient of z to a; ours goes through the
    sigmoid, as z's expectation does.
    """

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
    """The mask that gates make: what is more likely open than shut stays (our rule, not the paper's equation 13).

    A token without an open piece goes, unless tokens aren't pruned: then its likeliest piece stays. At least one token
    stays, the one with the likeliest piece. The probabilities are those of open gates, 1 where a level has none.
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
