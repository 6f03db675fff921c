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
from softprune.pruning.search import MaskedCandidate
from softprune.runs.record_parts import GatesRecord
from softprune.training.jobs import Fitted, FolderKeeper, evaluate, schedule
from softprune.training.loop import train
from softprune.training.optimizers import prompt_optimiser
from softprune.training.session import Workspace
from softprune.training.step import Feed
from softprune.types import Candidate

# Step sizes of the gates' logits, each the best of those tried (docs/log.md). Hard concrete at 1 chose worse masks: a
# gate that is folded to 0 has no gradient to come back by.
RATES = {"hard-concrete": 0.3, "straight-through": 0.5}


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
            candidate = Candidate(
                id=f"g{_price_name(price)}",
                token_ratio=(tokens - mask.tokens) / tokens,  # ratios are an outcome here
                piece_ratio=(room - mask.pieces) / room,
                tokens_kept=mask.tokens,
                pieces_kept=mask.pieces,
                parameters=mask.parameters(hidden),
            )
            same = MaskedCandidate(candidate, mask)
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
        TogetherOptimiser([prompts, gates], gated.stepped),
        Feed(data.lengths, lambda indices: data.batch(backbone, indices)),
        # The prompts under their masks of the moment, for the curves alone.
        lambda: evaluate(workspace, gated.hardened()),
        replace(whole, patience=None, best_by="last"),
        names=names,
        title=f"learning gates at {len(prices)} price{'s' * (len(prices) > 1)}",
        keeper=FolderKeeper(workspace.run, f"{names[0]}-{len(names)}", "gates", names),
        watch=workspace.watch,
    )
    gated.load(trained.tensors)
    token_KP, piece_KPS = gated.opened()
    return token_KP.detach().cpu(), piece_KPS.detach().cpu()
