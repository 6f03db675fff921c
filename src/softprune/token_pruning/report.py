"""The one time that a run of token pruning reads its report set: scores, intervals and predictions of every model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from softprune.data import answered, constant_answer
from softprune.data.metrics import metric_named
from softprune.runs.record_parts import DifferenceRecord, ResultRow, Truncation
from softprune.statistics.bootstrap import bootstrap_interval, paired_bootstrap
from softprune.statistics.estimates import difference_row
from softprune.token_pruning.evaluation import Predictions
from softprune.token_pruning.families import Encoder
from softprune.token_pruning.jobs import TrainedModel, load_weights
from softprune.token_pruning.session import TextSet, TokenWorkspace, tokenise_texts


def report_models(workspace: TokenWorkspace, encoder: Encoder, models: Mapping[str, TrainedModel], chosen: str) -> None:
    """Fix the choice, read `report` once, write every result; the first of the models is the unpruned one."""
    with workspace.run.phase("report"):
        workspace.report.fix(chosen)
        data = tokenise_texts(workspace.tokenizer, workspace.report.open(), workspace.recipe.task.max_length)
        predictions = {}
        for name, model in models.items():
            load_weights(encoder, model.weights)
            predictions[name] = workspace.evaluate(encoder, data, model.rule)
        unpruned = predictions[next(iter(models))]
        rows = {name: _result_row(workspace, encoder, data, each, unpruned) for name, each in predictions.items()}
        constant = constant_answer(data.golds, len(workspace.labels), workspace.metric)
        rows["constant"] = ResultRow(metric=workspace.metric.name, value=constant.value, n=len(data))
        with workspace.run.editing() as record:
            record.results = {**record.results, **rows}
            record.task.cut_report = Truncation(examples=sum(c > 0 for c in data.cut), tokens=sum(data.cut))
        for name, each in predictions.items():
            workspace.run.write_jsonl(f"predictions/{name}.jsonl", _prediction_rows(data, each))


def macro_f1(predicted: Sequence[int], golds: Sequence[int], classes: int) -> float:
    """The mean of each class's F1; a class that is neither predicted nor true scores 0, as in scikit-learn."""
    scores = answered(predicted, golds)
    return sum(metric_named("f1", positive).value(scores) for positive in range(classes)) / classes


def _result_row(
    workspace: TokenWorkspace, encoder: Encoder, data: TextSet, predictions: Predictions, unpruned: Predictions
) -> ResultRow:
    metric, seed = workspace.metric, workspace.recipe.seed
    resamples = workspace.recipe.selection.resamples
    scores, rival = answered(predictions.predicted, data.golds), answered(unpruned.predicted, data.golds)
    counts, others = metric.counts(scores), metric.counts(rival)
    interval = bootstrap_interval(counts, metric.score, seed=seed, resamples=resamples)
    difference = paired_bootstrap(counts, others, metric.score, seed=seed, resamples=resamples)
    return ResultRow(
        metric=metric.name,
        value=metric.value(scores),
        interval=(interval.low, interval.high),
        n=len(data),
        macro_f1=macro_f1(predictions.predicted, data.golds, len(workspace.labels)),
        loss=predictions.loss(data.golds),
        kept=predictions.kept(),
        paper_macs=predictions.relative_macs(encoder),
        executed_macs=predictions.relative_macs(encoder, executed=True),
        difference=DifferenceRecord(**difference_row(difference)),
    )


def _prediction_rows(data: TextSet, predictions: Predictions) -> list[dict[str, Any]]:
    columns = (data.golds, predictions.predicted, predictions.lengths, predictions.kept_NL.tolist(), data.cut)
    names = ("gold", "predicted", "tokens", "kept", "cut")
    return [{"index": i, **dict(zip(names, row, strict=True))} for i, row in enumerate(zip(*columns, strict=True))]
