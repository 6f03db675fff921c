"""Training an adapter as a piece of work of a run, and what it then says of a set of examples."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from softprune.methods.adaptation import Adaptation, Tensors, copies, put
from softprune.methods.settings import method_of
from softprune.methods.trainable import AdapterTrainable, products_in
from softprune.runs.store import Saved
from softprune.tuning.fine_tuner import FineTuner
from softprune.tuning.loop import Evaluation, Feed, Trained, train
from softprune.tuning.scoring import ScoredSet, score_prompts
from softprune.tuning.setup import Workspace
from softprune.tuning.stages import FolderKeeper, record_cost, schedule
from softprune.types import Batch, Scores

PHASE = "adapt"
"""Of the curves in metrics.jsonl, which have their step size's name."""


@dataclass(frozen=True, slots=True)
class FittedAdapter:
    """A trained adapter.

    Attributes:
        values: its best checkpoint on `select`, by name.
        evaluation: metric and loss there.
        lr: the step size that it was trained with.
        seconds: wall time, that of other step sizes included.
    """

    values: Tensors
    evaluation: Evaluation
    lr: float
    seconds: float


def fit(workspace: Workspace, adaptation: Adaptation) -> FittedAdapter:
    """Train an adapter at each step size of the sweep; the best on `select` stays, and the backbone reads with it."""
    start, tried = copies(adaptation.named()), []
    multiples = workspace.recipe.tuning.sweep or (1.0,)
    with workspace.run.phase("tune"):
        for multiple in multiples:
            put(adaptation.named(), start)
            tried.append(_fit(workspace, adaptation, multiple))
    best = max(tried, key=lambda fitted: (fitted.evaluation.score, -fitted.evaluation.loss))
    put(adaptation.named(), best.values)
    found = {f"{m:g}": asdict(fitted.evaluation) for m, fitted in zip(multiples, tried, strict=True)}
    workspace.run.record(settings={"lr": best.lr, "sweep": found if workspace.recipe.tuning.sweep else None})
    return FittedAdapter(best.values, best.evaluation, best.lr, sum(fitted.seconds for fitted in tried))


def scores_of(workspace: Workspace, adaptation: Adaptation, data: ScoredSet) -> Scores:
    """What the adapted backbone says of a set."""
    adaptation.train(False)
    with products_in(workspace.backbone, compute_of(workspace)):
        (found,) = score_prompts(workspace.backbone, made_prompts(adaptation), data, workspace.scoring)
    return found


def made_prompts(adaptation: Adaptation) -> torch.Tensor:
    """The adapter's prompt `[1, Q, H]` without a graph behind it."""
    with torch.no_grad():
        return adaptation.prompts().detach()


def compute_of(workspace: Workspace) -> torch.dtype:
    """The dtype of the matrix products, which the run has pinned."""
    found: torch.dtype = getattr(torch, workspace.run.info["backbone"]["dtype"])
    return found


def _fit(workspace: Workspace, adaptation: Adaptation, multiple: float) -> FittedAdapter:
    """The same at one step size, as a piece of work."""
    work, lr = f"adapt-{multiple:g}", multiple * workspace.lr

    def compute() -> Saved:
        trained = _train(workspace, adaptation, lr, work)
        meta = {key: getattr(trained, key) for key in ("steps", "examples", "seconds")}
        return Saved({k: v[0].cpu() for k, v in trained.tensors.items()}, meta | {"best": asdict(trained.best[0])})

    saved = workspace.run.once(work, compute)
    record_cost(workspace, work, saved.meta)
    return FittedAdapter(saved.tensors, Evaluation(**saved.meta["best"]), lr, saved.meta["seconds"])


def _train(workspace: Workspace, adaptation: Adaptation, lr: float, work: str) -> Trained:
    recipe, backbone, data = workspace.recipe, workspace.backbone, workspace.train
    plan = schedule(workspace)
    scoring = workspace.scoring
    trainable = AdapterTrainable(adaptation, scoring.loss, scoring.score, compute_of(workspace))
    optimiser = FineTuner(
        adaptation.named(),
        lr=lr,
        weight_decay=recipe.tuning.weight_decay,
        warmup=recipe.adapter.warmup,
        steps=plan.steps(len(data))[2],
        clip_norm=recipe.adapter.clip_norm,
        falls=recipe.adapter.decay == "linear",
    )

    def batch(indices: Sequence[int]) -> Batch:
        # Dropout draws what seed and batch decide, so that training goes on bit by bit after a kill.
        torch.manual_seed(zlib.crc32(repr((recipe.seed, work, tuple(indices))).encode()))
        return data.batch(backbone, indices)

    def evaluate() -> list[Evaluation]:
        found = scores_of(workspace, adaptation, workspace.select)
        return [Evaluation(workspace.metric.value(found.predicted, found.gold), found.loss)]

    return train(
        trainable,
        optimiser,
        Feed(data.lengths, batch),
        evaluate,
        plan,
        names=[f"{lr:g}"],
        title=f"{method_of(recipe).name}, step size {lr:g}",
        keeper=FolderKeeper(workspace.run, work, PHASE, [f"{lr:g}"]),
        watch=workspace.watch,
        processes=workspace.run.processes,
    )
