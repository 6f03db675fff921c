"""Learned token pruning from beginning to end (Kim et al. 2022).

fine-tune -> for each lambda: train thresholds and weights (soft), then weights behind fixed thresholds (hard)
-> choose lambda on the held-out set -> train the baselines at that model's operations -> report once
"""

from __future__ import annotations

from softprune.data import answered
from softprune.runs.record_parts import Gap, StageRecord
from softprune.token_pruning.baseline_rules import make_baseline_rules, record_target
from softprune.token_pruning.evaluation import Predictions
from softprune.token_pruning.families import Encoder
from softprune.token_pruning.jobs import Stage, TrainedModel, Weights, load_weights, soft_hard_gap, train_stage
from softprune.token_pruning.report import report_models
from softprune.token_pruning.rules import KeepAll, Ranked, Rule, Thresholds
from softprune.token_pruning.session import TokenWorkspace

BASELINE = "baseline"


def experiment(workspace: TokenWorkspace) -> tuple[dict[str, TrainedModel], str]:
    """Train and compare; every model by its name, and the name of the chosen one. The results are in run.json."""
    encoder = workspace.encoder()
    baseline = train_baseline(workspace, encoder)
    models = {BASELINE: baseline}
    for price in workspace.recipe.pruning.lambdas:
        model = train_thresholds(workspace, encoder, baseline, price)
        models[model.name] = model
    learned = {name: model for name, model in models.items() if name != BASELINE}
    operations = {name: model.select.relative_macs(encoder) for name, model in learned.items()}
    chosen = choose(workspace, models, operations)
    for name, rule in make_baseline_rules(workspace, encoder, baseline, models[chosen]).items():
        models[name] = train_behind_rule(workspace, encoder, baseline, name, rule)
        record_target(workspace, encoder, models[name], models[chosen])
    report_models(workspace, encoder, models, chosen)
    return models, chosen


def train_baseline(workspace: TokenWorkspace, encoder: Encoder) -> TrainedModel:
    """Fine-tune the encoder; nothing is pruned."""
    tuning = workspace.recipe.tuning
    with workspace.run.phase(BASELINE):
        if tuning.epochs:
            stage = Stage(BASELINE, "fine-tuning the unpruned model", KeepAll(), tuning.epochs, tuning.lr)
            weights = train_stage(workspace, encoder, stage)
        else:
            weights = {name: value.detach().clone()[None].cpu() for name, value in encoder.model.named_parameters()}
        return _measure(workspace, encoder, BASELINE, KeepAll(), weights)


def train_thresholds(workspace: TokenWorkspace, encoder: Encoder, baseline: TrainedModel, price: float) -> TrainedModel:
    """The soft and the hard stage at one lambda, from the fine-tuned weights."""
    settings, tuning = workspace.recipe.pruning, workspace.recipe.tuning
    shown, convention = f"{price:.15g}", workspace.convention
    # The recipe gives theta_final and T in units of an average token.
    theta_final, temperature = settings.theta_final / convention.divisor, settings.temperature / convention.divisor
    rule = Thresholds(len(encoder.layers), theta_final, temperature, convention).to(encoder.device)
    load_weights(encoder, baseline.weights)
    with workspace.run.phase("soft"):
        title = f"soft pruning, lambda {shown}"
        soft = Stage(f"soft-{shown}", title, rule, settings.soft_epochs, tuning.lr, price, best_by="last")
        weights = train_stage(workspace, encoder, soft)
        before = workspace.evaluate(encoder, workspace.select, rule)
        gap = soft_hard_gap(workspace, encoder, rule, before)
        stage = _stage_record(workspace, encoder, before)
        stage.theta, stage.gap = rule.values(), Gap(score=gap["score"], loss=gap["loss"])
        with workspace.run.editing() as record:
            record.stages[soft.work] = stage
    rule.delta_L.requires_grad_(False)
    with workspace.run.phase("hard"):
        if settings.hard_epochs:
            lr = settings.hard_lr or tuning.lr
            hard = Stage(f"hard-{shown}", f"hard pruning, lambda {shown}", rule, settings.hard_epochs, lr)
            weights = train_stage(workspace, encoder, hard)
        return _measure(workspace, encoder, f"lambda-{shown}", rule, weights)


def train_behind_rule(
    workspace: TokenWorkspace, encoder: Encoder, baseline: TrainedModel, name: str, rule: Rule
) -> TrainedModel:
    """Fine-tune behind a rule that isn't learned, for as many passes as the learned one had."""
    settings = workspace.recipe.pruning
    epochs = settings.baseline_epochs or settings.soft_epochs + settings.hard_epochs
    load_weights(encoder, baseline.weights)
    with workspace.run.phase("rules"):
        stage = Stage(name, f"rule {name}", rule, epochs, workspace.recipe.tuning.lr)
        return _measure(workspace, encoder, name, rule, train_stage(workspace, encoder, stage))


def choose(workspace: TokenWorkspace, models: dict[str, TrainedModel], operations: dict[str, float]) -> str:
    """The learned model with the fewest operations among those that lose little on the held-out set.

    Where all of them lose more than that, the one that loses least.

    Args:
        workspace: of the run.
        models: all of them, the unpruned one too.
        operations: of each learned model, as a share of the unpruned one's.
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


def _measure(workspace: TokenWorkspace, encoder: Encoder, name: str, rule: Rule, weights: Weights) -> TrainedModel:
    predictions = workspace.evaluate(encoder, workspace.select, rule)
    stage = _stage_record(workspace, encoder, predictions)
    if isinstance(rule, Thresholds):
        stage.theta = rule.values()
    if isinstance(rule, Ranked):
        stage.rate, stage.whole_layers = rule.rate, rule.whole_layers
    with workspace.run.editing() as record:
        record.stages[name] = stage
    return TrainedModel(name, rule, weights, predictions)


def _stage_record(workspace: TokenWorkspace, encoder: Encoder, predictions: Predictions) -> StageRecord:
    """What run.json holds of a stage, measured on the held-out set."""
    golds = workspace.select.golds
    return StageRecord(
        select=workspace.metric.value(answered(predictions.predicted, golds)),
        select_loss=predictions.loss(golds),
        kept=predictions.kept(),
        relative_macs=predictions.relative_macs(encoder),
    )
