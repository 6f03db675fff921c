"""Metrics as sums of per-example counts, which is the form that `softprune.significance` resamples.

Axes here: N examples, C counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from softprune.errors import SoftpruneError
from softprune.registry import Registry

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Metric(Protocol):
    """What every metric offers. Values are fractions; higher is better."""

    name: ClassVar[str]

    def counts(self, predicted: Sequence[int], gold: Sequence[int]) -> Floats:
        """One row of counts per example, `[N, C]`."""
        ...

    def score(self, counts: Floats) -> Floats:
        """Summed counts `[..., C]` to values `[...]`."""
        ...

    def value(self, predicted: Sequence[int], gold: Sequence[int]) -> float:
        """The metric of N predictions."""
        ...


class _FromCounts:
    """`value` through `counts` and `score`."""

    def value(self: Metric, predicted: Sequence[int], gold: Sequence[int]) -> float:
        """The metric of N predictions.

        Raises:
            SoftpruneError: without examples, or where the two aren't equally long.
        """
        return float(self.score(self.counts(predicted, gold).sum(axis=0)))


@dataclass(frozen=True, slots=True)
class Accuracy(_FromCounts):
    """The fraction of right answers. Counts: `[correct, 1]`."""

    name: ClassVar[str] = "accuracy"

    def counts(self, predicted: Sequence[int], gold: Sequence[int]) -> Floats:
        """`[N, 2]`."""
        a, b = _paired(predicted, gold)
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
    positive: int = 1

    def counts(self, predicted: Sequence[int], gold: Sequence[int]) -> Floats:
        """`[N, 3]`."""
        a, b = (array == self.positive for array in _paired(predicted, gold))
        return np.stack([a & b, a & ~b, ~a & b], axis=1).astype(np.float64)

    def score(self, counts: Floats) -> Floats:
        """`[..., 3]` to `[...]`; 0 where nothing is positive."""
        hits = 2 * counts[..., 0]
        total = hits + counts[..., 1] + counts[..., 2]
        return np.divide(hits, total, out=np.zeros_like(hits, dtype=np.float64), where=total > 0)


METRICS: Registry[type[Accuracy] | type[F1]] = Registry(
    "metric", {"accuracy": "softprune.tasks.metrics:Accuracy", "f1": "softprune.tasks.metrics:F1"}
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
    values = [metric.value([answer] * len(gold), gold) for answer in range(n_answers)]
    best = int(np.argmax(values))
    return Constant(best, values[best])


def _paired(predicted: Sequence[int], gold: Sequence[int]) -> tuple[Ints, Ints]:
    if len(predicted) != len(gold) or not len(gold):
        raise SoftpruneError(
            "one prediction per example, and at least one example",
            f"{len(predicted)} predictions for {len(gold)} examples",
            "score the whole set",
        )
    return np.asarray(predicted, np.int64), np.asarray(gold, np.int64)
