"""The stages of token pruning as pieces of work of a run: each is trained once, and goes on after a kill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from softprune.data import answered
from softprune.models.batching import collate
from softprune.token_pruning.evaluation import Predictions
from softprune.token_pruning.families import Encoder
from softprune.token_pruning.rules import Rule, Thresholds
from softprune.token_pruning.session import TokenWorkspace
from softprune.token_pruning.trainable import THRESHOLDS, EncoderTrainable
from softprune.training.jobs import FolderKeeper
from softprune.training.loop import Evaluation, Schedule, train
from softprune.training.optimizers import weights_adamw
from softprune.training.step import Feed
from softprune.training.trainable import seed_dropout
from softprune.types import Batch, Encoded

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of one model.

    Attributes:
        work: its name, unique in the run.
        title: what displays show.
        rule: which tokens stay; the thresholds that are trained where there is a price.
        epochs: passes.
        lr: step size of the weights.
        price: lambda of a soft stage.
        best_by: what chooses the checkpoint: score, loss or last.
    """

    work: str
    title: str
    rule: Rule
    epochs: int
    lr: float
    price: float | None = None
    best_by: str = "score"


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A model of the comparison.

    Attributes:
        name: such as `lambda-0.1`, `top-k` or `random-1`.
        rule: which tokens stay.
        weights: what training left.
        select: what it predicted for the held-out set.
    """

    name: str
    rule: Rule
    weights: Weights
    select: Predictions


def train_stage(workspace: TokenWorkspace, encoder: Encoder, stage: Stage) -> Weights:
    """Train a stage from the weights that the encoder has; it is left with those of the best checkpoint.

    The thresholds of a soft stage are changed in place as well.

    Returns:
        The weights of the best checkpoint.
    """
    trainable = EncoderTrainable(encoder, stage.rule, workspace.convention, stage.price, workspace.compute)
    settings, data = workspace.recipe.tuning, workspace.train
    threshold_lr = workspace.recipe.pruning.threshold_lr / workspace.convention.divisor
    optimiser = weights_adamw(
        trainable.named(),
        lr=stage.lr,
        weight_decay=settings.weight_decay,
        own_rates={} if stage.price is None else {THRESHOLDS: threshold_lr},
    )
    schedule = Schedule(
        epochs=stage.epochs,
        batch_size=settings.batch_size,
        accumulate=settings.accumulate,
        best_by=stage.best_by,
        seed=workspace.recipe.seed,
        clip_norm=settings.clip_norm,
        warmup=settings.warmup,
        linear_decay=True,
    )

    def batch(indices: Sequence[int]) -> Batch:
        seed_dropout(workspace.recipe.seed, stage.work, indices)
        encoded = [Encoded(data.ids[i], -1, ((),), data.golds[i]) for i in indices]
        return collate(encoded, pad_id=0, device=trainable.encoder.device)

    def evaluate() -> list[Evaluation]:
        predictions = workspace.evaluate(trainable.encoder, workspace.select, stage.rule)
        golds = workspace.select.golds
        return [Evaluation(workspace.metric.value(answered(predictions.predicted, golds)), predictions.loss(golds))]

    trained = train(
        trainable,
        optimiser,
        Feed(tuple(map(len, data.ids)), batch),
        evaluate,
        schedule,
        names=[stage.work],
        title=stage.title,
        keeper=FolderKeeper(workspace.run, stage.work, stage.work, [stage.work]),
        watch=workspace.watch,
    )
    trainable.load(trained.tensors)
    return trained.tensors


def load_weights(encoder: Encoder, weights: Weights) -> None:
    """Give an encoder the weights that a stage left, without its thresholds."""
    with torch.no_grad():
        for name, value in encoder.model.named_parameters():
            value.copy_(weights[name][0])


def soft_hard_gap(workspace: TokenWorkspace, encoder: Encoder, rule: Thresholds, hard: Predictions) -> dict[str, float]:
    """Accuracy and loss on `select` with soft masks minus those with hard ones: what soft training can't foresee."""
    golds = workspace.select.golds
    soft = workspace.evaluate(encoder, workspace.select, rule, soft=True)
    soft_score, hard_score = (workspace.metric.value(answered(each.predicted, golds)) for each in (soft, hard))
    return {"score": soft_score - hard_score, "loss": soft.loss(golds) - hard.loss(golds)}
