"""The learned ratio: gates find how much to prune, and what, in one training.

    gates    = train(tuned prompt and gates, price)   for K prices at once
    mask     = harden(gates)                          open or shut
    ticket   = retrain(tuned * mask)                  as every other candidate

A price decides how far a gate training prunes, and which price is right differs from task to task. K of them make K
tickets along the Pareto front, and the run's objective chooses among them on `select`, as among all others. Gates are
trained on `train` alone.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from softprune.pruning.gated_prompts import GatedPrompts, TogetherOptimiser
from softprune.pruning.gates import GATES, expected_size, harden
from softprune.pruning.retraining import Trial
from softprune.runs.record_parts import GatesRecord
from softprune.runs.run_folder import Saved
from softprune.training.jobs import Fitted, FolderKeeper, evaluate, record_cost, schedule
from softprune.training.loop import Evaluation, train
from softprune.training.optimizers import make_optimiser
from softprune.training.session import Workspace
from softprune.training.step import Feed
from softprune.types import Candidate, Mask

# Step sizes of the gates' logits, each the best of those tried (docs/log.md). Hard concrete at 1 chose worse masks: a
# gate that is folded to 0 has no gradient to come back by.
RATES = {"hard-concrete": 0.3, "straight-through": 0.5}


def learned(workspace: Workspace, tuned: Fitted) -> list[Trial]:
    """Candidates whose masks were learned, the lowest price first; prices that came to one mask share one candidate."""
    prices, at_once = sorted(workspace.recipe.search.prices), workspace.group
    with workspace.run.phase("gates"):
        parts = [_trained(workspace, tuned, prices[at : at + at_once]) for at in range(0, len(prices), at_once)]
    token_KP, piece_KPS = (torch.cat([part[name] for part in parts]) for name in ("token_KP", "piece_KPS"))
    found: list[Trial] = []
    tickets: list[str] = []
    for price, token_P, piece_PS in zip(prices, token_KP, piece_KPS, strict=True):
        mask = harden(token_P, piece_PS, workspace.recipe.pruning.levels)
        same = next((trial for trial in found if torch.equal(trial.mask.piece_PS, mask.piece_PS)), None)
        if same is None:
            same = Trial(_candidate(price, mask, tuned.state.vectors_PH.shape[1]), mask)
            found.append(same)
        tickets.append(same.candidate.id)
    _record(workspace, prices, tickets, token_KP, piece_KPS)
    return found


def _candidate(price: float, mask: Mask, hidden: int) -> Candidate:
    """A candidate whose ratios are what came out."""
    tokens, pieces = mask.piece_PS.shape
    room = mask.tokens * pieces
    return Candidate(
        id=f"g{_written(price)}",
        token_ratio=(tokens - mask.tokens) / tokens,
        piece_ratio=(room - mask.pieces) / room,
        tokens_kept=mask.tokens,
        pieces_kept=mask.pieces,
        parameters=mask.parameters(hidden),
    )


def _written(price: float) -> str:
    """A price in a name; different ones look different."""
    return repr(price).removesuffix(".0")


def _trained(workspace: Workspace, tuned: Fitted, prices: list[float]) -> dict[str, torch.Tensor]:
    """Probabilities of open gates after training some prices side by side: `token_KP` and `piece_KPS`."""
    names = [f"gates-{_written(price)}" for price in prices]
    work = f"{names[0]}-{len(names)}"

    def compute() -> Saved:
        gated = _gated(workspace, tuned, prices)
        settings, backbone = workspace.recipe.search, workspace.backbone
        done = train(
            gated,
            _optimiser(workspace, gated),
            Feed(workspace.train.lengths, lambda indices: workspace.train.batch(backbone, indices)),
            lambda: _evaluated(workspace, gated),
            # Nobody leaves, and the last gates count, not those of the best score: that is mostly the least pruned.
            replace(schedule(workspace, epochs=settings.gate_epochs or settings.epochs), patience=None),
            names=names,
            title=f"learning gates at {len(prices)} price{'s' * (len(prices) > 1)}",
            keeper=FolderKeeper(workspace.run, work, "gates", names),
            watch=workspace.watch,
        )
        token_KP, piece_KPS = (part.detach().cpu() for part in gated.opened())
        meta = {key: getattr(done, key) for key in ("steps", "examples", "seconds")}
        return Saved({"token_KP": token_KP, "piece_KPS": piece_KPS}, meta)

    saved = workspace.run.once(work, compute)
    record_cost(workspace, work, saved.meta)
    return saved.tensors


def _gated(workspace: Workspace, tuned: Fitted, prices: list[float]) -> GatedPrompts:
    recipe = workspace.recipe
    return GatedPrompts(
        workspace.backbone,
        tuned.state.vectors_PH,
        recipe.prompt.pieces,
        prices,
        GATES[recipe.search.gates],
        levels=recipe.pruning.levels,
        loss=workspace.scoring.loss,
        score=workspace.scoring.score,
        seed=recipe.seed,
    )


def _optimiser(workspace: Workspace, gated: GatedPrompts) -> TogetherOptimiser:
    """The run's own for the prompts, Adam at a rate of their own for the gates."""
    settings = workspace.recipe.tuning
    prompts = make_optimiser(
        settings.optimiser,
        gated.vectors_KPH,
        None,
        lr=workspace.lr,
        weight_decay=settings.weight_decay,
        clip_threshold=settings.clip_threshold,
        clip_scope=settings.clip_scope,
    )
    # A piece's share of a low price is a gradient of about 1e-7: Adam's usual epsilon would damp it.
    gates = torch.optim.Adam(gated.gates(), lr=_rate(workspace), eps=1e-12)
    return TogetherOptimiser([prompts, gates], gated.stepped)


def _rate(workspace: Workspace) -> float:
    settings = workspace.recipe.search
    return settings.gate_lr or RATES[settings.gates]


def _evaluated(workspace: Workspace, gated: GatedPrompts) -> list[Evaluation]:
    """The prompts under their masks of the moment, on `select`: for the curves; nothing is chosen by it."""
    return evaluate(workspace, gated.hardened(), workspace.select)


def _record(
    workspace: Workspace, prices: list[float], tickets: list[str], token_KP: torch.Tensor, piece_KPS: torch.Tensor
) -> None:
    """What the gates were and came to: in run.json and, gate by gate, in gates.safetensors."""
    settings = workspace.recipe.search
    sizes = expected_size(token_KP, piece_KPS).tolist()
    gates = GatesRecord(kind=settings.gates, lr=_rate(workspace), prices=prices, expected_sizes=sizes, tickets=tickets)
    with workspace.run.editing() as record:
        record.gates = gates
    tensors = {"prices_K": torch.tensor(prices), "token_KP": token_KP, "piece_KPS": piece_KPS}
    workspace.run.write_tensors("gates.safetensors", tensors, {"kind": settings.gates})
