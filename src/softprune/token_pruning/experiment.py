"""Learned token pruning from beginning to end (Kim et al. 2022).

fine-tune -> for each lambda: train thresholds and weights (soft), then weights behind fixed thresholds (hard)
-> choose lambda on the held-out set -> train the baselines at that model's operations -> report once
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from softprune.data import answered, constant_answer
from softprune.data.metrics import metric_named
from softprune.runs.record_parts import DifferenceRecord, Gap, ResultRow, StageRecord, Truncation
from softprune.statistics.bootstrap import bootstrap_interval, paired_bootstrap
from softprune.statistics.estimates import difference_row
from softprune.token_pruning.families import Encoder
from softprune.token_pruning.forward import Predictions, relative_macs
from softprune.token_pruning.rules import KeepAll, Order, Ranked, Rule, Thresholds
from softprune.token_pruning.session import TextSet, TokenWorkspace, tokenise_texts
from softprune.token_pruning.stages import TrainedModel, Weights, train_stage, typical_step
from softprune.training.hardware import choose_threads

BASELINE = "baseline"
NEAR = 0.01
"""Largest distance from the wanted share of operations that still counts as equal operations."""
_STEEPEST = -20.0  # of the rates: one token is left after the first layer that prunes
_HIGHEST_THETA = 8.0  # an average token's importance is 1: at 8 next to nothing is left


def experiment(workspace: TokenWorkspace) -> tuple[dict[str, TrainedModel], str]:
    """Train and compare; every model by its name, and the name of the chosen one. The results are in run.json."""
    encoder, settings = workspace.encoder(), workspace.recipe.pruning
    if workspace.recipe.backbone.threads == "auto":
        note = choose_threads(workspace.run, encoder.device, lambda: typical_step(workspace, encoder))
        if note is not None:
            with workspace.run.editing() as record:
                record.add_notes(note)
    baseline = train_baseline(workspace, encoder)
    models, operations = {BASELINE: baseline}, {}
    for price in settings.lambdas:
        model = train_thresholds(workspace, encoder, baseline, price)
        models[model.name], operations[model.name] = model, model.select.relative_macs(encoder)
    chosen = choose(workspace, models, operations)
    lengths = models[chosen].select.lengths
    # A rule that counts tokens can't come nearer than one token of every text in one layer.
    near = max(NEAR, len(lengths) / (sum(lengths) * len(encoder.layers)))
    # Rules that aren't learned get as many passes as the learned one had.
    epochs = settings.baseline_epochs or settings.soft_epochs + settings.hard_epochs
    for name, rule in make_baseline_rules(workspace, encoder, baseline, models[chosen]).items():
        encoder.load_weights(baseline.weights)  # not the learned model's: its weights were trained with thresholds
        with workspace.run.phase("rules"):
            weights = train_stage(workspace, encoder, name, f"rule {name}", rule, epochs, workspace.recipe.tuning.lr)
            models[name] = _measure(workspace, encoder, name, rule, weights)
        with workspace.run.editing() as record:
            record.stages[name].macs_target = operations[chosen]
            gap = abs(models[name].select.relative_macs(encoder) - operations[chosen])
            record.stages[name].macs_reached = gap <= near
    with workspace.run.phase("report"):
        _report_models(workspace, encoder, models, chosen)
    return models, chosen


def train_baseline(workspace: TokenWorkspace, encoder: Encoder) -> TrainedModel:
    """Fine-tune the encoder; nothing is pruned."""
    tuning = workspace.recipe.tuning
    with workspace.run.phase(BASELINE):
        if tuning.epochs:
            title = "fine-tuning the unpruned model"
            weights = train_stage(workspace, encoder, BASELINE, title, KeepAll(), tuning.epochs, tuning.lr)
        else:
            weights = {name: value.detach().clone()[None].cpu() for name, value in encoder.model.named_parameters()}
        return _measure(workspace, encoder, BASELINE, KeepAll(), weights)


def train_thresholds(workspace: TokenWorkspace, encoder: Encoder, baseline: TrainedModel, price: float) -> TrainedModel:
    """The soft and the hard stage at one lambda, from the fine-tuned weights."""
    settings, tuning = workspace.recipe.pruning, workspace.recipe.tuning
    shown = f"{price:.15g}"
    rule = _make_thresholds(workspace, encoder, settings.theta_final, settings.temperature)
    encoder.load_weights(baseline.weights)
    with workspace.run.phase("soft"):
        work, title, epochs = f"soft-{shown}", f"soft pruning, lambda {shown}", settings.soft_epochs
        # The last checkpoint: the best of a stage that prunes ever more would be its first.
        weights = train_stage(workspace, encoder, work, title, rule, epochs, tuning.lr, price, best_by="last")
        trained = _measure(workspace, encoder, work, rule, weights)
        gap = soft_hard_gap(workspace, encoder, rule, trained.select)
        with workspace.run.editing() as record:
            record.stages[work].gap = gap
    rule.delta_L.requires_grad_(False)
    with workspace.run.phase("hard"):
        if settings.hard_epochs:
            work, title, epochs = f"hard-{shown}", f"hard pruning, lambda {shown}", settings.hard_epochs
            weights = train_stage(workspace, encoder, work, title, rule, epochs, settings.hard_lr or tuning.lr)
        return _measure(workspace, encoder, f"lambda-{shown}", rule, weights)


def soft_hard_gap(workspace: TokenWorkspace, encoder: Encoder, rule: Thresholds, hard: Predictions) -> Gap:
    """Accuracy and loss on `select` with soft masks minus those with hard ones: what soft training can't foresee."""
    soft, golds = workspace.evaluate(encoder, workspace.select, rule, soft=True), workspace.select.golds
    soft_score = workspace.metric.value(answered(soft.predicted, golds))
    hard_score = workspace.metric.value(answered(hard.predicted, golds))
    return Gap(score=soft_score - hard_score, loss=soft.loss(golds) - hard.loss(golds))


def choose(workspace: TokenWorkspace, models: dict[str, TrainedModel], operations: dict[str, float]) -> str:
    """The learned model with the fewest operations among those that lose little on the held-out set.

    Where all of them lose more than that, the one that loses least. `operations` are those of the learned models, as
    shares of the unpruned one's.
    """

    def accuracy(name: str) -> float:
        return workspace.metric.value(answered(models[name].select.predicted, workspace.select.golds))

    least = accuracy(BASELINE) - workspace.recipe.selection.within
    good = [name for name in operations if accuracy(name) >= least]
    chosen = min(good, key=operations.__getitem__) if good else max(operations, key=accuracy)
    with workspace.run.editing() as record:
        assert record.selection is not None  # written when the run was prepared
        record.selection.chosen, record.selection.within = chosen, bool(good)
    return chosen


def make_baseline_rules(
    workspace: TokenWorkspace, encoder: Encoder, baseline: TrainedModel, chosen: TrainedModel
) -> dict[str, Rule]:
    """The baselines at the chosen model's operations, by the paper's count on the held-out set."""
    target, settings = chosen.select.relative_macs(encoder), workspace.recipe.pruning

    def ranked(order: Order, seed: int = 0) -> Ranked:
        return match_macs(encoder, chosen.select.lengths, Ranked(len(encoder.layers), 0.0, order, seed), target)

    rules: dict[str, Rule] = {}
    if "top-k" in settings.baselines:
        rules["top-k"] = ranked("importance")
    if "manual" in settings.baselines:
        rules["manual"] = _manual_thresholds(workspace, encoder, baseline.weights, target)
    if "first" in settings.baselines:
        rules["first"] = ranked("first")
    if "random" in settings.baselines:
        for seed in range(settings.random_seeds):
            rules[f"random-{seed}"] = ranked("random", seed)
    return rules


def match_macs(encoder: Encoder, lengths: Sequence[int], rule: Ranked, target: float) -> Ranked:
    """A ranked rule with the rate that gives the wanted share of operations, or comes nearest to it.

    No rate can save what the whole layers cost: where the paper's number of them costs more than is wanted, there are
    fewer; and where a single one is still too many, the share falls faster (a rate below 0).
    """

    def macs(rate: float) -> float:
        candidate, kept_LN = replace(rule, rate=rate), []
        for layer in range(len(encoder.layers)):
            kept_LN.append([candidate.kept(layer, length) for length in lengths])
        return relative_macs(encoder.hidden, lengths, np.transpose(kept_LN))

    while macs(0.0) > target and rule.whole_layers > 1:
        rule = replace(rule, whole=rule.whole_layers - 1)
    lowest = _STEEPEST if macs(0.0) > target else 0.0
    rate = _bisect(lambda rate: macs(rate) <= target, lowest, 1.0, steps=24)  # about seven digits: counting is cheap
    return replace(rule, rate=rate)


def _bisect(is_low: Callable[[float], bool], low: float, high: float, steps: int) -> float:
    """Where values begin to be too high."""
    for _ in range(steps):
        middle = (low + high) / 2
        if is_low(middle):
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _manual_thresholds(workspace: TokenWorkspace, encoder: Encoder, weights: Weights, target: float) -> Thresholds:
    """The threshold rule with delta = 0 whose theta_final gives the wanted operations on the fine-tuned weights."""

    def rule(theta: float) -> Thresholds:
        thresholds = _make_thresholds(workspace, encoder, theta, 1.0)
        thresholds.delta_L.requires_grad_(False)
        return thresholds

    def is_low(theta: float) -> bool:
        return workspace.evaluate(encoder, workspace.select, rule(theta)).relative_macs(encoder) > target

    def search() -> float:
        encoder.load_weights(weights)
        return _bisect(is_low, 0.0, _HIGHEST_THETA, steps=12)  # to 0.002: each step evaluates the whole held-out set

    return rule(float(workspace.run.pin("manual_theta_final", search)))  # pinned: a resumed run takes the same


def _make_thresholds(workspace: TokenWorkspace, encoder: Encoder, theta_final: float, temperature: float) -> Thresholds:
    """Thresholds without deltas, by figures in units of an average token, as recipes give them."""
    divisor = workspace.convention.divisor
    rule = Thresholds(len(encoder.layers), theta_final / divisor, temperature / divisor, workspace.convention)
    return rule.to(encoder.device)


def _measure(workspace: TokenWorkspace, encoder: Encoder, name: str, rule: Rule, weights: Weights) -> TrainedModel:
    """A trained model, whose figures on the held-out set are recorded under its name."""
    predictions, golds = workspace.evaluate(encoder, workspace.select, rule), workspace.select.golds
    stage = StageRecord(
        select=workspace.metric.value(answered(predictions.predicted, golds)),
        select_loss=predictions.loss(golds),
        kept=predictions.kept(),
        relative_macs=predictions.relative_macs(encoder),
    )
    if isinstance(rule, Thresholds):
        stage.theta = rule.values()
    if isinstance(rule, Ranked):
        stage.rate, stage.whole_layers = rule.rate, rule.whole_layers
    with workspace.run.editing() as record:
        record.stages[name] = stage
    return TrainedModel(name, rule, weights, predictions)


def _report_models(
    workspace: TokenWorkspace, encoder: Encoder, models: Mapping[str, TrainedModel], chosen: str
) -> None:
    """Fix the choice, read `report` once, write every model's results and predictions."""
    workspace.report.fix(chosen)
    data = tokenise_texts(workspace.tokenizer, workspace.report.open(), workspace.recipe.task.max_length)
    predictions, rows = dict[str, Predictions](), dict[str, ResultRow]()
    for name, model in models.items():
        encoder.load_weights(model.weights)
        predictions[name] = workspace.evaluate(encoder, data, model.rule)
        rows[name] = _result_row(workspace, encoder, data, predictions[name], predictions[BASELINE])
    constant = constant_answer(data.golds, len(workspace.labels), workspace.metric)
    rows["constant"] = ResultRow(metric=workspace.metric.name, value=constant.value, n=len(data))
    with workspace.run.editing() as record:
        record.results = {**record.results, **rows}
        record.task.cut_report = Truncation(examples=sum(c > 0 for c in data.cut), tokens=sum(data.cut))
    for name, each in predictions.items():
        fields = ("index", "gold", "predicted", "tokens", "kept", "cut")
        columns = (range(len(data)), data.golds, each.predicted, each.lengths, each.kept_NL.tolist(), data.cut)
        lines = [dict(zip(fields, values, strict=True)) for values in zip(*columns, strict=True)]
        workspace.run.write_jsonl(f"predictions/{name}.jsonl", lines)


def _result_row(
    workspace: TokenWorkspace, encoder: Encoder, data: TextSet, predictions: Predictions, unpruned: Predictions
) -> ResultRow:
    metric, seed, resamples = workspace.metric, workspace.recipe.seed, workspace.recipe.selection.resamples
    scores = answered(predictions.predicted, data.golds)
    counts, others = metric.counts(scores), metric.counts(answered(unpruned.predicted, data.golds))
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


def macro_f1(predicted: Sequence[int], golds: Sequence[int], classes: int) -> float:
    """The mean of each class's F1; a class that is neither predicted nor true scores 0, as in scikit-learn."""
    scores = answered(predicted, golds)
    return sum(metric_named("f1", positive).value(scores) for positive in range(classes)) / classes
