"""The stages of token pruning as pieces of work of a run: each is trained once, and goes on after a kill."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from softprune.config import TokensRecipe
from softprune.data import Metric, Task, answered
from softprune.models.batching import collate
from softprune.runs.record_parts import TrainingCost
from softprune.runs.run_folder import RunFolder, Saved
from softprune.token_pruning.evaluation import Answers, answer
from softprune.token_pruning.families import Anatomy
from softprune.token_pruning.rules import Convention, Rule, Thresholds
from softprune.token_pruning.trainable import THRESHOLDS, EncoderTrainable, set_dropout
from softprune.training.adamw import FineTuner
from softprune.training.jobs import FolderKeeper
from softprune.training.loop import Evaluation, Schedule, Watch, train
from softprune.training.sealed_set import SealedSet
from softprune.training.step import Feed
from softprune.types import Batch, Encoded, Example


@dataclass(frozen=True, slots=True)
class TextSet:
    """Examples of a classification task with their token ids.

    Attributes:
        texts: as the tokenizer read them, whole.
        ids: token ids with special tokens, cut to the recipe's length.
        golds: the class of each.
        cut: tokens that were cut off each.
    """

    texts: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    golds: tuple[int, ...]
    cut: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.texts)


def read_texts(tokenizer: Any, examples: Sequence[Example], max_length: int) -> TextSet:
    """Tokenise examples: their fields, without the template's own words."""
    texts = tuple(example.content for example in examples)
    whole = tokenizer(list(texts), add_special_tokens=True, truncation=False, verbose=False)["input_ids"]
    cut = tokenizer(list(texts), add_special_tokens=True, truncation=True, max_length=max_length)["input_ids"]
    lost = tuple(len(a) - len(b) for a, b in zip(whole, cut, strict=True))
    return TextSet(texts, tuple(map(tuple, cut)), tuple(example.gold for example in examples), lost)


@dataclass(frozen=True, slots=True)
class TokenWorkspace:
    """What the stages of one run share.

    Attributes:
        recipe: the settings.
        run: the folder.
        watch: who is told how training goes.
        task: with its metric.
        labels: names of the classes.
        tokenizer: of the model.
        train, select: tokenised.
        report: sealed.
        make: a fresh model with the released weights and a seeded head.
        compute: dtype of the matrix products.
        convention: how importance is counted.
    """

    recipe: TokensRecipe
    run: RunFolder
    watch: Watch
    task: Task
    labels: tuple[str, ...]
    tokenizer: Any
    train: TextSet
    select: TextSet
    report: SealedSet
    make: Callable[[], Any]
    compute: torch.dtype
    convention: Convention

    @property
    def metric(self) -> Metric:
        """The task's."""
        return self.task.metric

    def anatomy(self) -> Anatomy:
        """A fresh model, taken apart, with the recipe's dropout."""
        anatomy = Anatomy(self.make())
        set_dropout(anatomy, self.recipe.tuning.dropout, self.recipe.tuning.attention_dropout)
        return anatomy

    def answers(self, anatomy: Anatomy, data: TextSet, rule: Rule, *, soft: bool = False) -> Answers:
        """What the model says of a set."""
        rows = self.recipe.tuning.eval_rows
        return answer(anatomy, data.ids, rule, self.convention, compute=self.compute, rows=rows, soft=soft)


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of one model.

    Attributes:
        work: its name, unique in the run.
        title: what displays show.
        rule: who stays; the thresholds that are trained where there is a price.
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


Weights = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Contestant:
    """A model of the comparison.

    Attributes:
        name: such as `lambda-0.1`, `top-k` or `random-1`.
        rule: who stays.
        weights: what training left.
        select: what it said of the held-out set.
    """

    name: str
    rule: Rule
    weights: Weights
    select: Answers


def fit(workspace: TokenWorkspace, anatomy: Anatomy, stage: Stage) -> Weights:
    """Train a stage from the weights that the model has; they are then its best checkpoint's, which comes back too.

    The thresholds of a soft stage are changed in place as well.
    """
    trainable = EncoderTrainable(anatomy, stage.rule, workspace.convention, stage.price, workspace.compute)

    def compute() -> Saved:
        trained = _train(workspace, trainable, stage)
        meta = {key: getattr(trained, key) for key in ("steps", "examples", "seconds")}
        return Saved({k: v.cpu() for k, v in trained.tensors.items()}, meta | {"best": asdict(trained.best[0])})

    saved = workspace.run.once(stage.work, compute)
    cost = {key: saved.meta[key] for key in ("steps", "examples", "seconds")}
    with workspace.run.editing() as record:
        record.cost.training[stage.work] = TrainingCost(**cost)
    trainable.load(saved.tensors)
    return saved.tensors


def take(anatomy: Anatomy, weights: Weights) -> None:
    """Give a model the weights that a stage left; thresholds among them are left aside."""
    with torch.no_grad():
        for name, value in anatomy.model.named_parameters():
            value.copy_(weights[name][0])


def _train(workspace: TokenWorkspace, trainable: EncoderTrainable, stage: Stage) -> Any:
    settings, data = workspace.recipe.tuning, workspace.train
    plan = Schedule(
        epochs=stage.epochs,
        batch_size=settings.batch_size,
        accumulate=settings.accumulate,
        best_by=stage.best_by,
        seed=workspace.recipe.seed,
    )
    lengths = tuple(map(len, data.ids))
    threshold_lr = workspace.recipe.pruning.threshold_lr / workspace.convention.divisor
    optimiser = FineTuner(
        trainable.named(),
        lr=stage.lr,
        weight_decay=settings.weight_decay,
        warmup=settings.warmup,
        steps=plan.steps(len(data))[2],
        clip_norm=settings.clip_norm,
        apart={} if stage.price is None else {THRESHOLDS: threshold_lr},
    )

    def batch(indices: Sequence[int]) -> Batch:
        # Dropout draws what seed and batch decide, so that training goes on bit by bit after a kill.
        torch.manual_seed(zlib.crc32(repr((workspace.recipe.seed, stage.work, tuple(indices))).encode()))
        encoded = [Encoded(data.ids[i], -1, ((),), data.golds[i]) for i in indices]
        return collate(encoded, pad_id=0, device=trainable.anatomy.device)

    def evaluate() -> list[Evaluation]:
        found = workspace.answers(trainable.anatomy, workspace.select, stage.rule)
        golds = workspace.select.golds
        return [Evaluation(workspace.metric.value(answered(found.predicted, golds)), found.loss(golds))]

    return train(
        trainable,
        optimiser,
        Feed(lengths, batch),
        evaluate,
        plan,
        names=[stage.work],
        title=stage.title,
        keeper=FolderKeeper(workspace.run, stage.work, stage.work, [stage.work]),
        watch=workspace.watch,
    )


def soft_hard_gap(workspace: TokenWorkspace, anatomy: Anatomy, rule: Thresholds, hard: Answers) -> dict[str, float]:
    """Accuracy and loss on `select` with soft masks less those with hard ones: what soft training can't foresee."""
    golds = workspace.select.golds
    soft = workspace.answers(anatomy, workspace.select, rule, soft=True)
    value = workspace.metric.value
    return {
        "score": value(answered(soft.predicted, golds)) - value(answered(hard.predicted, golds)),
        "loss": soft.loss(golds) - hard.loss(golds),
    }
