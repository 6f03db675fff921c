"""Metrics as sums of per-example counts, which is the form that `softprune.statistics.bootstrap` resamples.

A metric reads what it needs of `Scores`: chosen answers, generated texts or losses.

Axes here: N examples, C counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from softprune.config.registry import Registry
from softprune.data.rouge import KINDS, rouge
from softprune.errors import SoftpruneError
from softprune.types import Scores

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Metric(Protocol):
    """What every metric offers. Higher is better; values are fractions, but for `Loss`.

    Attributes:
        name: as tables have it.
        grain: the most that one answer can change the sum behind a mean, where answers are right or wrong; else 0.
    """

    name: ClassVar[str]
    grain: ClassVar[float]

    def counts(self, scores: Scores) -> Floats:
        """One row of counts per example, `[N, C]`."""
        ...

    def score(self, counts: Floats) -> Floats:
        """Summed counts `[..., C]` to values `[...]`."""
        ...

    def value(self, scores: Scores) -> float:
        """The metric of N examples."""
        ...


class _FromCounts:
    """`value` through `counts` and `score`."""

    def value(self: Metric, scores: Scores) -> float:
        """The metric of N examples.

        Raises:
            SoftpruneError: without examples, or where not every example has what the metric reads.
        """
        return float(self.score(self.counts(scores).sum(axis=0)))


@dataclass(frozen=True, slots=True)
class Accuracy(_FromCounts):
    """The fraction of right answers. Counts: `[correct, 1]`."""

    name: ClassVar[str] = "accuracy"
    grain: ClassVar[float] = 1.0

    def counts(self, scores: Scores) -> Floats:
        """`[N, 2]`."""
        a, b = _paired(scores)
        return np.stack([a == b, np.ones(len(a))], axis=1).astype(np.float64)

    def score(self, counts: Floats) -> Floats:
        """`[..., 2]` to `[...]`."""
        return np.asarray(counts[..., 0] / counts[..., 1])


@dataclass(frozen=True, slots=True)
class F1(_FromCounts):
    """F1 of one answer over all examples (MultiRC's F1a: over all answer options). Counts: `[tp, fp, fn]`.

    Attributes:
        positive: position of the answer that counts as positive; a task's own is in `Task.metric`.
    """

    name: ClassVar[str] = "f1"
    grain: ClassVar[float] = 1.0
    positive: int = 1

    def counts(self, scores: Scores) -> Floats:
        """`[N, 3]`."""
        a, b = (array == self.positive for array in _paired(scores))
        return np.stack([a & b, a & ~b, ~a & b], axis=1).astype(np.float64)

    def score(self, counts: Floats) -> Floats:
        """`[..., 3]` to `[...]`; 0 where nothing is positive."""
        hits = 2 * counts[..., 0]
        total = hits + counts[..., 1] + counts[..., 2]
        return np.divide(hits, total, out=np.zeros_like(hits, dtype=np.float64), where=total > 0)


class _Rouge(_FromCounts):
    """Mean of one ROUGE F1 over the generated texts; see `softprune.data.rouge`. Counts: `[F1, 1]`."""

    name: ClassVar[str]
    grain: ClassVar[float] = 0.0

    def counts(self, scores: Scores) -> Floats:
        """`[N, 2]`."""
        _check_each("generated text", len(scores.texts), len(scores.references))
        at = KINDS.index(self.name)
        return np.array([[rouge(*pair)[at], 1.0] for pair in zip(scores.texts, scores.references, strict=True)])

    def score(self, counts: Floats) -> Floats:
        """`[..., 2]` to `[...]`."""
        return np.asarray(counts[..., 0] / counts[..., 1])


class Rouge1(_Rouge):
    """Single words."""

    name: ClassVar[str] = "rouge1"


class Rouge2(_Rouge):
    """Pairs of words."""

    name: ClassVar[str] = "rouge2"


class RougeL(_Rouge):
    """The longest common subsequence of words."""

    name: ClassVar[str] = "rougeL"


class Loss(_FromCounts):
    """Minus the mean loss, so that higher is better: what targets of kind `text` are chosen by. Counts: `[loss, 1]`."""

    name: ClassVar[str] = "loss"
    grain: ClassVar[float] = 0.0

    def counts(self, scores: Scores) -> Floats:
        """`[N, 2]`."""
        _check_each("loss", len(scores.losses), len(scores.losses))
        losses = np.asarray(scores.losses, np.float64)
        return np.stack([losses, np.ones(len(losses))], axis=1)

    def score(self, counts: Floats) -> Floats:
        """`[..., 2]` to `[...]`."""
        return np.asarray(-counts[..., 0] / counts[..., 1])


METRICS: Registry[type[Accuracy] | type[F1] | type[_Rouge]] = Registry(
    "metric",
    {
        "accuracy": "softprune.data.metrics:Accuracy",
        "f1": "softprune.data.metrics:F1",
        "rouge1": "softprune.data.metrics:Rouge1",
        "rouge2": "softprune.data.metrics:Rouge2",
        "rougeL": "softprune.data.metrics:RougeL",
    },
)


def metric_named(name: str, positive: int | None = None) -> Metric:
    """The metric of that name.

    Args:
        name: one of `METRICS`.
        positive: for F1, the position of the positive answer.

    Raises:
        SoftpruneError: for an unknown name.
    """
    metric = METRICS[name]()
    if isinstance(metric, F1) and positive is not None:
        return replace(metric, positive=positive)
    return metric


def answered(predicted: Sequence[int], gold: Sequence[int]) -> Scores:
    """Answers alone, as a metric of answers reads them."""
    return Scores(predicted=tuple(predicted), gold=tuple(gold))


@dataclass(frozen=True, slots=True)
class Constant:
    """What the best constant answer reaches: the bar that every model must pass.

    Attributes:
        answer: its position.
        value: the metric when it is always given.
    """

    answer: int
    value: float


def constant_answer(gold: Sequence[int], n_answers: int, metric: Metric) -> Constant:
    """The best constant answer; ties go to the lower position.

    Raises:
        SoftpruneError: without examples.
    """
    values = [metric.value(answered([answer] * len(gold), gold)) for answer in range(n_answers)]
    best = int(np.argmax(values))
    return Constant(best, values[best])


def _paired(scores: Scores) -> tuple[Ints, Ints]:
    _check_each("prediction", len(scores.predicted), len(scores.gold))
    return np.asarray(scores.predicted, np.int64), np.asarray(scores.gold, np.int64)


def _check_each(what: str, found: int, examples: int) -> None:
    if found != examples or not examples:
        raise SoftpruneError(
            f"one {what} per example, and at least one example",
            f"{found} {what}s for {examples} examples",
            "score the whole set",
        )
