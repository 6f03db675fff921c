"""What the pruned models are held against, and the one time that `report` is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from softprune.data import answered, constant_answer
from softprune.runs.record_parts import DifferenceRecord, ResultRow, Truncation
from softprune.statistics.bootstrap import bootstrap_interval, paired_bootstrap
from softprune.statistics.estimates import by_example
from softprune.token_pruning.evaluation import Answers
from softprune.token_pruning.families import Anatomy
from softprune.token_pruning.jobs import Contestant, TextSet, TokenWorkspace, read_texts, take
from softprune.token_pruning.macs import relative_macs
from softprune.token_pruning.rules import Ranked

NEAR = 0.01
"""How far from the wanted share of operations a rule may stay and still be called at equal operations."""

_STEEPEST = -20.0


def at_macs(anatomy: Anatomy, lengths: Sequence[int], rule: Ranked, target: float) -> Ranked:
    """A ranked rule with the rate that gives the wanted share of operations; as near as rates come.

    No rate can spare what the layers cost that are left whole: where the paper's number of them costs more than is
    wanted, there are fewer; and where one is still too many, the share falls faster (a rate below 0).

    Args:
        anatomy: the model.
        lengths: tokens of each text.
        rule: its order and seed count.
        target: operations over those of the unpruned model.
    """

    def macs(found: Ranked) -> float:
        kept_LB = [[found.kept(layer, n) for n in lengths] for layer in range(len(anatomy.layers))]
        return relative_macs(anatomy.hidden, lengths, kept_LB)

    while macs(replace(rule, rate=0.0)) > target and rule.whole_layers > 1:
        rule = replace(rule, whole=rule.whole_layers - 1)
    low, high = _STEEPEST if macs(replace(rule, rate=0.0)) > target else 0.0, 1.0
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (low, middle) if macs(replace(rule, rate=middle)) > target else (middle, high)
    return replace(rule, rate=(low + high) / 2)


def report(
    workspace: TokenWorkspace, anatomy: Anatomy, found: Mapping[str, Contestant], chosen: str
) -> dict[str, Answers]:
    """Fix the choices, read `report` once, write every result."""
    with workspace.run.phase("report"):
        workspace.report.fix(chosen)
        examples = workspace.report.open()
        data = read_texts(workspace.tokenizer, examples, workspace.recipe.task.max_length)
        answers = {}
        for name, contestant in found.items():
            take(anatomy, contestant.weights)
            answers[name] = workspace.answers(anatomy, data, contestant.rule)
        unpruned = answers[next(iter(found))]
        rows = {name: _row(workspace, anatomy, data, each, unpruned) for name, each in answers.items()}
        constant = constant_answer(data.golds, len(workspace.labels), workspace.metric)
        rows["constant"] = ResultRow(metric=workspace.metric.name, value=constant.value, n=len(data))
        cut = Truncation(examples=sum(c > 0 for c in data.cut), tokens=sum(data.cut))
        with workspace.run.editing() as record:
            record.results = {**record.results, **rows}
            record.task.cut_report = cut
        for name, each in answers.items():
            workspace.run.write_jsonl(f"predictions/{name}.jsonl", _predictions(data, each))
    return answers


def macro_f1(predicted: Sequence[int], golds: Sequence[int], classes: int) -> float:
    """The mean over classes of each one's F1; a class that neither has scores 0, as scikit-learn's does."""
    scores = []
    for c in range(classes):
        right = sum(p == g == c for p, g in zip(predicted, golds, strict=True))
        said, true = sum(p == c for p in predicted), sum(g == c for g in golds)
        scores.append(2 * right / (said + true) if said + true else 0.0)
    return sum(scores) / classes


def _row(workspace: TokenWorkspace, anatomy: Anatomy, data: TextSet, answers: Answers, unpruned: Answers) -> ResultRow:
    metric, seed = workspace.metric, workspace.recipe.seed
    resamples = workspace.recipe.selection.resamples
    scores, rival = answered(answers.predicted, data.golds), answered(unpruned.predicted, data.golds)
    counts, others = metric.counts(scores), metric.counts(rival)
    interval = bootstrap_interval(counts, metric.score, seed=seed, resamples=resamples)
    against = paired_bootstrap(counts, others, metric.score, seed=seed, resamples=resamples)
    return ResultRow(
        metric=metric.name,
        value=metric.value(scores),
        interval=(interval.low, interval.high),
        n=len(data),
        macro_f1=macro_f1(answers.predicted, data.golds, len(workspace.labels)),
        loss=answers.loss(data.golds),
        kept=answers.kept(),
        paper_macs=answers.relative_macs(anatomy),
        executed_macs=answers.relative_macs(anatomy, executed=True),
        difference=DifferenceRecord(**by_example(against)),
    )


def _predictions(data: TextSet, answers: Answers) -> list[dict[str, Any]]:
    return [
        {"index": i, "gold": gold, "predicted": predicted, "tokens": n, "kept": kept_L, "cut": cut}
        for i, (gold, predicted, n, kept_L, cut) in enumerate(
            zip(data.golds, answers.predicted, answers.lengths, answers.kept_NL.tolist(), data.cut, strict=True)
        )
    ]
