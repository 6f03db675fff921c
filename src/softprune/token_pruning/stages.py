"""The three stages of token pruning, each trained once in a run; a stage that was cut off goes on.

baseline  cross-entropy, nothing pruned
soft      cross-entropy + lambda * sum over layers of the mean soft mask; thresholds and weights (section 3.3)
hard      cross-entropy behind a fixed rule: the tokens that it removes are left out, in training too (section 3.4)

Weights and their gradients are float32: in bfloat16, a step of 2e-5 would be rounded away. Matrix products are in
bfloat16 where that was asked for, by autocast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from softprune.data import answered
from softprune.models.batching import collate
from softprune.token_pruning.families import Encoder
from softprune.token_pruning.forward import Predictions, forward
from softprune.token_pruning.packing import pack
from softprune.token_pruning.rules import Convention, KeepAll, Rule, Thresholds
from softprune.token_pruning.session import TokenWorkspace
from softprune.training.jobs import FolderKeeper
from softprune.training.loop import Evaluation, Schedule, train
from softprune.training.optimizers import weights_adamw
from softprune.training.trainable import Feed, WeightsTrainable, products_in, seed_dropout
from softprune.types import Batch, Encoded

Weights = dict[str, torch.Tensor]
THRESHOLDS = "thresholds.delta_L"
"""The name of the thresholds among what a soft stage trains."""


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A model of the comparison."""

    name: str  # such as `lambda-0.1`, `top-k` or `random-1`
    rule: Rule  # which tokens stay
    weights: Weights  # what training left
    select: Predictions  # what it predicted for the held-out set


class EncoderTrainable(WeightsTrainable):
    """One encoder in one stage: `rule` and `price` as of `train_stage`, matrix products in `compute`."""

    def __init__(
        self, encoder: Encoder, rule: Rule, convention: Convention, price: float | None, compute: torch.dtype
    ) -> None:
        self.encoder, self.rule, self.convention, self.price = encoder, rule, convention, price
        self.compute = compute
        named = dict(encoder.model.named_parameters())
        if price is not None:
            assert isinstance(rule, Thresholds)
            named[THRESHOLDS] = rule.delta_L
        super().__init__(named)

    def loss(self, batch: Batch) -> torch.Tensor:
        """`[1, B]`."""
        encoder = self.encoder
        encoder.model.train()
        lengths = batch.input_mask.sum(1).tolist()  # the loop pads its batches; here padding costs time
        texts = [ids[:length] for ids, length in zip(batch.input_ids.tolist(), lengths, strict=True)]
        packed = pack(texts, batch.input_ids.device)
        with products_in(self.compute, encoder.dtype, encoder.device):
            output = forward(encoder, packed, self.rule, self.convention, soft=self.price is not None)
        gold_B = batch.gold.to(encoder.device)
        loss_B = F.cross_entropy(output.logits_BC.float(), gold_B, reduction="none")
        if self.price is not None:
            loss_B = loss_B + self.price * output.soft_B.float()
        return loss_B[None]


def train_stage(
    workspace: TokenWorkspace,
    encoder: Encoder,
    work: str,
    title: str,
    rule: Rule,
    epochs: int,
    lr: float,
    price: float | None = None,
    best_by: str = "score",
) -> Weights:
    """Train a stage from the weights that the encoder has; it is left with those of the best checkpoint, returned here.

    `work` is the stage's name, unique in the run; displays show `title`. With a price (lambda), the rule's thresholds
    are trained too, in place. `best_by` chooses the checkpoint: score, loss or last.
    """
    trainable = EncoderTrainable(encoder, rule, workspace.convention, price, workspace.compute)
    settings = workspace.recipe.tuning
    own_rates = {}
    if price is not None:  # the recipe gives it in units of an average token
        own_rates[THRESHOLDS] = workspace.recipe.pruning.threshold_lr / workspace.convention.divisor
    optimiser = weights_adamw(trainable.named(), lr=lr, weight_decay=settings.weight_decay, own_rates=own_rates)
    schedule = Schedule(
        epochs=epochs,
        batch_size=settings.batch_size,
        accumulate=settings.accumulate,
        best_by=best_by,
        seed=workspace.recipe.seed,
        clip_norm=settings.clip_norm,
        warmup=settings.warmup,
        linear_decay=True,
    )

    def evaluate() -> list[Evaluation]:
        predictions, golds = workspace.evaluate(encoder, workspace.select, rule), workspace.select.golds
        return [Evaluation(workspace.metric.value(answered(predictions.predicted, golds)), predictions.loss(golds))]

    trained = train(
        trainable,
        optimiser,
        Feed(tuple(map(len, workspace.train.ids)), partial(_make_batch, workspace, encoder, work)),
        evaluate,
        schedule,
        names=[work],
        title=title,
        keeper=FolderKeeper(workspace.run, work, work, [work]),
        watch=workspace.watch,
    )
    trainable.load(trained.tensors)
    return trained.tensors


def typical_step(workspace: TokenWorkspace, encoder: Encoder) -> None:
    """One step of the baseline without its update: what is timed to choose the CPU threads."""
    settings, examples = workspace.recipe.tuning, len(workspace.train)
    rows = math.ceil(min(settings.batch_size, examples) / settings.accumulate)  # what fits in memory
    trainable = EncoderTrainable(encoder, KeepAll(), workspace.convention, None, workspace.compute)
    trainable.loss(_make_batch(workspace, encoder, "threads", range(rows))).mean().backward()
    encoder.model.zero_grad()


def _make_batch(workspace: TokenWorkspace, encoder: Encoder, work: str, indices: Sequence[int]) -> Batch:
    seed_dropout(workspace.recipe.seed, work, indices)
    data = workspace.train
    encoded = [Encoded(data.ids[i], -1, ((),), data.golds[i]) for i in indices]  # no answer slot, no answer tokens
    return collate(encoded, pad_id=0, device=encoder.device)
