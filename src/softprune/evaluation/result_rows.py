"""What a row of the comparison holds, and the bar that all rows are held against; by the kind of target.

Answers: the metric, how often each answer was given, and as a bar the best constant answer. Text: the metric, the loss,
all three ROUGE, and as a bar the first sentences of the input, cut as target texts are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from softprune.data import answered, constant_answer
from softprune.data.lead_baseline import NAME, lead, written
from softprune.data.metrics import Rouge1, Rouge2, RougeL
from softprune.data.rouge import rouge
from softprune.models.tokenization import cut_to
from softprune.runs.record_parts import ResultRow
from softprune.statistics.bootstrap import bootstrap_interval
from softprune.training.scoring import ScoredSet
from softprune.training.session import Workspace
from softprune.types import Scores


def row(workspace: Workspace, data: ScoredSet, scores: Scores) -> ResultRow:
    """What every row of the table holds."""
    return ResultRow(
        metric=workspace.metric.name,
        value=workspace.metric.value(scores),
        interval=interval(workspace, data, scores),
        n=len(data),
        **_DETAILS[workspace.task.definition.targets](data, scores),
    )


def bar(workspace: Workspace, data: ScoredSet) -> ResultRow:
    """The row `constant`, which says in `answer` what it is of."""
    found = _BARS[workspace.task.definition.targets](workspace, data)
    found.seconds = 0.0
    return found


def interval(workspace: Workspace, data: ScoredSet, scores: Scores) -> tuple[float, float]:
    """The 95% bootstrap interval of the metric."""
    metric = workspace.metric
    found = bootstrap_interval(
        metric.counts(scores),
        metric.score,
        groups_of(data),
        seed=workspace.recipe.seed,
        resamples=workspace.recipe.selection.resamples,
    )
    return found.low, found.high


def groups_of(data: ScoredSet) -> list[str | None] | None:
    """What is resampled as a whole; None where examples are."""
    groups = [example.group for example in data.examples]
    return groups if any(groups) else None


def predictions(data: ScoredSet, scores: Scores) -> list[dict[str, Any]]:
    """The lines of a predictions file."""
    lines = [
        {
            "id": example.id,
            **({} if example.group is None else {"group": example.group}),
            "index": example.index,
            "text": example.text,
            "answers": list(example.answers),
        }
        for example in data.examples
    ]
    if data.is_generation:
        more: Sequence[dict[str, Any]] = [
            {"written": text, "reference": reference, "rougeL": rouge(text, reference)[-1], "loss": loss}
            for text, reference, loss in zip(scores.texts, scores.references, scores.losses, strict=True)
        ]
        return [{k: v for k, v in line.items() if k != "answers"} | m for line, m in zip(lines, more, strict=True)]
    more = [
        {"gold": gold, "predicted": predicted, "scores": list(each)}
        for gold, predicted, each in zip(scores.gold, scores.predicted, scores.answer_scores, strict=True)
    ]
    return [line | m for line, m in zip(lines, more, strict=True)]


def answers_alone(data: ScoredSet, scores: Scores) -> list[dict[str, Any]]:
    """What `predictions` holds but for texts and scores: enough to compute the metric again."""
    left_out = {"text", "answers", "scores", "written", "reference"}
    return [{k: v for k, v in line.items() if k not in left_out} for line in predictions(data, scores)]


def _best_constant(workspace: Workspace, data: ScoredSet) -> ResultRow:
    """The answer that does best when it is always given; of joined tasks, the best one of each."""
    gold = [example.gold for example in data.examples]
    always = [0] * len(data)
    for places in _by_task(data).values():
        size = max(len(data.examples[i].answers) for i in places)
        constant = constant_answer([gold[i] for i in places], size, workspace.metric)
        for i in places:
            always[i] = constant.answer
    found = row(workspace, data, answered(always, gold))
    found.answer = ", ".join(answer for answer, n in (found.predicted or {}).items() if n)
    return found


def _lead(workspace: Workspace, data: ScoredSet) -> ResultRow:
    length, tokenizer = workspace.scoring.max_answer_length, workspace.backbone.tokenizer
    texts = tuple(cut_to(tokenizer, lead(example), length) for example in data.examples)
    found = row(workspace, data, written(texts, data.examples))
    found.answer = NAME
    return found


def _given(data: ScoredSet, scores: Scores) -> dict[str, Any]:
    """How often each answer was given; by position where answers depend on the example; by task where several are."""
    given: dict[str, int] = {}
    for task, places in _by_task(data).items():
        answers = {data.examples[i].answers for i in places}
        names = next(iter(answers)) if len(answers) == 1 else None
        count = Counter(scores.predicted[i] for i in places)
        before = f"{task}: " if task else ""
        for a in range(max(map(len, answers))):
            given[before + (names[a] if names else f"answer {a + 1}")] = count[a]
        if count[-1]:
            given[f"{before}none of them"] = count[-1]
    return {"predicted": given}


def _by_task(data: ScoredSet) -> dict[str, list[int]]:
    """Places of the examples of each task; all under "" where it is one."""
    found: dict[str, list[int]] = {}
    for place, example in enumerate(data.examples):
        found.setdefault(example.task, []).append(place)
    return found


def _told(data: ScoredSet, scores: Scores) -> dict[str, Any]:
    """Loss and ROUGE; what was only copied has no loss."""
    rouge = {metric.name: metric.value(scores) for metric in (Rouge1(), Rouge2(), RougeL())}
    words = sum(len(text.split()) for text in scores.texts) / len(data)
    return {"loss": scores.loss if scores.losses else None, **rouge, "words": words}


_DETAILS: dict[str, Callable[[ScoredSet, Scores], dict[str, Any]]] = {"answers": _given, "text": _told}
_BARS: dict[str, Callable[[Workspace, ScoredSet], ResultRow]] = {"answers": _best_constant, "text": _lead}
