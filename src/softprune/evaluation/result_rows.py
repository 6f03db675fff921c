"""What a row of the comparison holds, and the bar that all rows are compared with; by the kind of target.

Answers: the metric, how often each answer was given, and as a bar the best constant answer. Text: the metric, the loss,
all three ROUGE, and as a bar the first sentences of the input, cut as target texts are. Text with an answer in it: the
metric, the loss, how often an answer was found, and as a bar the best constant answer.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from softprune.data import Metric, answered, constant_answer
from softprune.data.metrics import LEAD_NAME, ExactMatch, Rouge1, Rouge2, RougeL, lead, pair_texts
from softprune.data.rouge import rouge
from softprune.models.tokenization import cut_to
from softprune.runs.record_parts import ResultRow
from softprune.statistics.bootstrap import bootstrap_interval
from softprune.training.scoring import ScoredSet
from softprune.training.session import Workspace
from softprune.types import Scores

_BULKY = ("text", "written", "reference", "extracted", "expected", "answers", "scores")


def row(workspace: Workspace, data: ScoredSet, scores: Scores) -> ResultRow:
    """What every row of the table holds."""
    result = ResultRow(
        metric=workspace.metric.name,
        value=workspace.metric.value(scores),
        interval=interval(workspace, data, scores),
        n=len(data),
    )
    if not data.is_generation:
        result.predicted = _count_answers(data, scores)
        return result
    result.loss = scores.loss if scores.losses else None  # texts that were only copied have none
    if isinstance(workspace.metric, ExactMatch):
        result.extracted = sum(workspace.metric.answer(text) is not None for text in scores.texts) / len(data)
    else:
        kinds = Rouge1(), Rouge2(), RougeL()
        result.rouge1, result.rouge2, result.rougeL = (kind.value(scores) for kind in kinds)
    result.words = sum(len(text.split()) for text in scores.texts) / len(data)
    return result


def bar(workspace: Workspace, data: ScoredSet) -> ResultRow:
    """The row `constant`, whose `answer` says what it is.

    For answers, also of texts, the one that does best when it is always given; of joined tasks, the best one of each.
    """
    metric = workspace.metric
    if isinstance(metric, ExactMatch):
        always = metric.constant_text([example.answers[0] for example in data.examples])
        result = row(workspace, data, pair_texts((always,) * len(data), data.examples))
        result.answer = metric.answer(always)
    elif data.is_generation:
        length, tokenizer = workspace.scoring.max_answer_length, workspace.backbone.tokenizer
        texts = tuple(cut_to(tokenizer, lead(example), length) for example in data.examples)
        result = row(workspace, data, pair_texts(texts, data.examples))
        result.answer = LEAD_NAME
    else:
        gold = [example.gold for example in data.examples]
        given = [0] * len(data)
        for places in _by_task(data).values():
            size = max(len(data.examples[i].answers) for i in places)
            constant = constant_answer([gold[i] for i in places], size, metric)
            for i in places:
                given[i] = constant.answer
        result = row(workspace, data, answered(given, gold))
        result.answer = ", ".join(answer for answer, n in (result.predicted or {}).items() if n)
    result.seconds = 0.0
    return result


def interval(workspace: Workspace, data: ScoredSet, scores: Scores) -> tuple[float, float]:
    """The 95% bootstrap interval of the metric."""
    metric = workspace.metric
    seed, resamples = workspace.recipe.seed, workspace.recipe.selection.resamples
    return bootstrap_interval(metric.counts(scores), metric.score, group_ids(data), seed=seed, resamples=resamples)


def group_ids(data: ScoredSet) -> list[str | None] | None:
    """What is resampled as a whole; None where examples are."""
    groups = [example.group for example in data.examples]
    return groups if any(groups) else None


def predictions(data: ScoredSet, scores: Scores, metric: Metric, *, alone: bool = False) -> list[dict[str, Any]]:
    """The lines of a predictions file; `alone`, without texts and scores: enough to compute the metric again."""
    left_out = _BULKY if alone else ()
    lines = []
    for i, example in enumerate(data.examples):
        line: dict[str, Any] = {"id": example.id}
        if example.group is not None:
            line["group"] = example.group
        line |= {"index": example.index, "text": example.text}
        if data.is_generation:
            text, reference = scores.texts[i], scores.references[i]
            line |= {"written": text, "reference": reference, **_judge(text, reference, metric)}
            line["loss"] = scores.losses[i]
        else:
            line |= {"answers": list(example.answers), "gold": scores.gold[i], "predicted": scores.predicted[i]}
            line["scores"] = list(scores.answer_scores[i])
        lines.append({name: value for name, value in line.items() if name not in left_out})
    return lines


def _judge(text: str, reference: str, metric: Metric) -> dict[str, Any]:
    """What makes a written text good or bad, in a line of a predictions file."""
    if not isinstance(metric, ExactMatch):
        return {"rougeL": rouge(text, reference)[-1]}
    answers = {"extracted": metric.answer(text), "expected": metric.answer(reference)}
    return answers | {"right": metric.is_right(text, reference)}


def _count_answers(data: ScoredSet, scores: Scores) -> dict[str, int]:
    """How often each answer was given; by position where answers depend on the example; by task where several are."""
    given: dict[str, int] = {}
    for task, places in _by_task(data).items():
        answers = {data.examples[i].answers for i in places}
        names = next(iter(answers)) if len(answers) == 1 else None
        count = Counter(scores.predicted[i] for i in places)
        before = f"{task}: " if task else ""
        for a in range(max(map(len, answers))):
            given[before + (names[a] if names else f"answer {a + 1}")] = count[a]
        if count[-1]:  # generated texts that are no answer
            given[f"{before}none of them"] = count[-1]
    return given


def _by_task(data: ScoredSet) -> dict[str, list[int]]:
    """Places of the examples of each task; all under "" where it is one."""
    places: dict[str, list[int]] = {}
    for place, example in enumerate(data.examples):
        places.setdefault(example.task, []).append(place)
    return places
