"""Metrics as sums of per-example counts, which is the form that `softprune.statistics.bootstrap` resamples.

A new metric is a subclass of `Metric` with a name and `counts`, listed in `METRICS`; nothing else needs to know it.

Axes here: N examples, C counts.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt

from softprune.config.registry import unknown
from softprune.data.exact_match import comparable, extract_answer, is_same_answer
from softprune.data.rouge import KINDS, rouge
from softprune.errors import SoftpruneError
from softprune.statistics.bootstrap import Floats
from softprune.types import Example, Scores

Ints = npt.NDArray[np.int64]


class Metric(ABC):
    """A number for a set of examples. Higher is better; values are fractions, except for `Loss`."""

    name: ClassVar[str]  # as task files and records have it
    label: ClassVar[str] = ""  # as reports write it; empty where that is the name
    reads: ClassVar[Literal["answers", "texts"]] = "answers"  # whether it counts chosen `answers` or generated `texts`
    needs_positive: ClassVar[bool] = False  # whether a task must name the answer that counts as positive
    # The most that one answer can change the sum behind a mean, where answers are right or wrong; else 0.
    grain: ClassVar[float] = 0.0

    @classmethod
    def for_task(cls, n_answers: int, positive: int | None, extract: str | None = None) -> Metric:
        """The metric as a task with A answers needs it.

        `positive` is the position of its positive answer, if any; `extract` finds what counts of a text.
        """
        return cls()

    @abstractmethod
    def counts(self, scores: Scores) -> Floats:
        """One row of counts per example, `[N, C]`; refused without examples, or without what it reads of each."""

    def score(self, counts: Floats) -> Floats:
        """Summed counts `[..., C]` to values `[...]`. By default a mean: the first count over the second."""
        return np.asarray(counts[..., 0] / counts[..., 1])

    def value(self, scores: Scores) -> float:
        """The metric of N examples; errors as `counts`."""
        return float(self.score(self.counts(scores).sum(axis=0)))


class Accuracy(Metric):
    """The fraction of right answers. Counts: `[correct, 1]`."""

    name = "accuracy"
    grain = 1.0

    def counts(self, scores: Scores) -> Floats:
        """`[N, 2]`."""
        predicted, gold = answer_arrays(scores)
        return with_ones(predicted == gold)


@dataclass(frozen=True)
class F1(Metric):
    """F1 of one answer over all examples (MultiRC's F1a: over all answer options). Counts: `[tp, fp, fn]`."""

    name: ClassVar[str] = "f1"
    needs_positive: ClassVar[bool] = True
    grain: ClassVar[float] = 1.0
    positive: int = 1  # position of the answer that counts as positive

    @classmethod
    def for_task(cls, n_answers: int, positive: int | None, extract: str | None = None) -> F1:
        """F1 of the task's positive answer."""
        return cls() if positive is None else cls(positive)

    def counts(self, scores: Scores) -> Floats:
        """`[N, 3]`."""
        predicted_N, gold_N = answer_arrays(scores)
        predicted, gold = predicted_N == self.positive, gold_N == self.positive
        return np.stack([predicted & gold, predicted & ~gold, ~predicted & gold], axis=1).astype(np.float64)

    def score(self, counts: Floats) -> Floats:
        """`[..., 3]` to `[...]`; 0 where nothing is positive."""
        hits = 2 * counts[..., 0]
        total = hits + counts[..., 1] + counts[..., 2]
        # A resample may hold no positive example: 0 / 0 is 0 here, and no warning.
        return np.divide(hits, total, out=np.zeros_like(hits, dtype=np.float64), where=total > 0)


class _Rouge(Metric):
    """Mean of one ROUGE F1 over the generated texts; see `softprune.data.rouge`. Counts: `[F1, 1]`."""

    reads = "texts"

    def counts(self, scores: Scores) -> Floats:
        """`[N, 2]`."""
        _check_each("generated text", len(scores.texts), len(scores.references))
        kind = KINDS.index(self.name)
        pairs = zip(scores.texts, scores.references, strict=True)
        return with_ones(np.array([rouge(text, reference)[kind] for text, reference in pairs]))


class Rouge1(_Rouge):
    """Single words."""

    name, label = "rouge1", "ROUGE-1"


class Rouge2(_Rouge):
    """Pairs of words."""

    name, label = "rouge2", "ROUGE-2"


class RougeL(_Rouge):
    """The longest common subsequence of words."""

    name, label = "rougeL", "ROUGE-L"


@dataclass(frozen=True)
class ExactMatch(Metric):
    """The fraction of generated texts that come to the reference's answer; see `softprune.data.exact_match`.

    Counts: `[right, 1]`.
    """

    name: ClassVar[str] = "exact_match"
    label: ClassVar[str] = "exact match"
    reads: ClassVar[Literal["answers", "texts"]] = "texts"
    grain: ClassVar[float] = 1.0
    extract: str | None = None  # the regular expression that finds the answer in a text; None compares whole texts

    @classmethod
    def for_task(cls, n_answers: int, positive: int | None, extract: str | None = None) -> ExactMatch:
        """With the task's own pattern."""
        return cls(extract)

    def counts(self, scores: Scores) -> Floats:
        """`[N, 2]`."""
        _check_each("generated text", len(scores.texts), len(scores.references))
        pairs = zip(scores.texts, scores.references, strict=True)
        return with_ones([self.is_right(text, reference) for text, reference in pairs])

    def is_right(self, text: str, reference: str) -> bool:
        """Whether a text comes to its reference's answer."""
        return is_same_answer(text, reference, self.extract)

    def answer(self, text: str) -> str | None:
        """What counts of a text; None where nothing is found."""
        return extract_answer(text, self.extract)

    def constant_text(self, references: Sequence[str]) -> str:
        """The reference whose answer is right most often, the first of equals: the best constant answer."""
        answers = [comparable(self.answer(reference) or "") for reference in references]
        ((most, _),) = Counter(answers).most_common(1)
        return references[answers.index(most)]


class Loss(Metric):
    """Minus the mean loss, so that higher is better: what targets of kind `text` are chosen by. Counts: `[loss, 1]`."""

    name = "loss"

    def counts(self, scores: Scores) -> Floats:
        """`[N, 2]`."""
        _check_each("loss", len(scores.losses), len(scores.losses))
        return with_ones(np.asarray(scores.losses))

    def score(self, counts: Floats) -> Floats:
        """`[..., 2]` to `[...]`."""
        return np.asarray(-counts[..., 0] / counts[..., 1])


_LISTED: Final[tuple[type[Metric], ...]] = (Accuracy, F1, Rouge1, Rouge2, RougeL, ExactMatch)
METRICS: Final[dict[str, type[Metric]]] = {metric.name: metric for metric in _LISTED}
"""What a task file may name as its metric."""


def metric_named(name: str, positive: int | None = None, n_answers: int = 2, extract: str | None = None) -> Metric:
    """The metric of that name, for a task with these answers (see `Metric.for_task`); unknown names are refused."""
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    return METRICS[name].for_task(n_answers, positive, extract)


def metric_label(name: str) -> str:
    """A metric's name as reports write it; a name that isn't in `METRICS` (an average over classes, say) as it is."""
    label = METRICS[name].label if name in METRICS else ""
    return label or name


def answered(predicted: Sequence[int], gold: Sequence[int]) -> Scores:
    """Answers alone, as a metric of answers reads them."""
    return Scores(predicted=tuple(predicted), gold=tuple(gold))


def pair_texts(texts: tuple[str, ...], examples: tuple[Example, ...]) -> Scores:
    """Texts beside the examples' own, as a metric of written texts reads them."""
    return Scores(texts=texts, references=tuple(example.answers[0] for example in examples))


@dataclass(frozen=True, slots=True)
class Constant:
    """What the best constant answer reaches: the bar that every model must pass."""

    answer: int  # its position
    value: float  # the metric when it is always given


def constant_answer(gold: Sequence[int], n_answers: int, metric: Metric) -> Constant:
    """The best constant answer; ties go to the lower position. A SoftpruneError without examples."""
    values = [metric.value(answered([answer] * len(gold), gold)) for answer in range(n_answers)]
    best = int(np.argmax(values))  # the first of equals
    return Constant(best, values[best])


LEAD_SENTENCES: Final = 3
LEAD_NAME: Final = f"first {LEAD_SENTENCES} sentences"

# A mark that ends sentences with what closes behind it, and the letter or digit behind what opens the next one; marks
# of full width have no blank behind them. "(e.g. this)" goes on: a small letter begins no sentence.
_END = re.compile(
    r"""(?:(?<=[.!?؟۔։।॥።។៕။])["'”’»›)\]]*\s+|(?<=[。！？｡])["'”’»›)\]」』）】]*\s*)(?=["'“‘«‹„¿¡(\[「『（【]*([^\W_]))"""
)


def lead(example: Example, sentences: int = LEAD_SENTENCES) -> str:
    """The first sentences of what the example holds of its row; a line break ends one too.

    The bar of summaries, since reporters put what matters first.
    """
    first: list[str] = []
    for line in example.content.splitlines():
        start = 0
        for match in _END.finditer(line):
            if not match[1].islower():
                first.append(line[start : match.end()].strip())
                start = match.end()
        first.append(line[start:].strip())
        first = [sentence for sentence in first if sentence]
        if len(first) >= sentences:
            break
    return " ".join(first[:sentences])


def answer_arrays(scores: Scores) -> tuple[Ints, Ints]:
    """Positions of the predicted and the right answers, `[N]` each.

    Raises:
        SoftpruneError: without examples, or without a prediction for each.
    """
    _check_each("prediction", len(scores.predicted), len(scores.gold))
    return np.asarray(scores.predicted, np.int64), np.asarray(scores.gold, np.int64)


def with_ones(values_N: npt.ArrayLike) -> Floats:
    """Counts `[N, 2]` of a metric that is the mean of one number per example."""
    values = np.asarray(values_N, np.float64)
    return np.stack([values, np.ones(len(values))], axis=1)


def _check_each(what: str, count: int, examples: int) -> None:
    if count != examples or not examples:
        expected = f"one {what} per example, and at least one example"
        raise SoftpruneError(expected, f"{count} {what}s for {examples} examples", "score the whole set")
