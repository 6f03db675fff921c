"""The rules that learned thresholds are compared with, at as many operations as the chosen model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from softprune.token_pruning.families import Encoder
from softprune.token_pruning.jobs import TrainedModel, load_weights
from softprune.token_pruning.macs import relative_macs
from softprune.token_pruning.rules import Order, Ranked, Rule, Thresholds
from softprune.token_pruning.session import TokenWorkspace

NEAR = 0.01
"""Largest distance from the wanted share of operations that still counts as equal operations."""
_STEEPEST = -20.0
_HIGHEST_THETA = 8.0  # an average token's importance is 1: at 8 next to nothing is left


def make_baseline_rules(
    workspace: TokenWorkspace, encoder: Encoder, baseline: TrainedModel, chosen: TrainedModel
) -> dict[str, Rule]:
    """The baselines at the chosen model's operations, by the paper's count on the held-out set."""
    target, layers = chosen.select.relative_macs(encoder), len(encoder.layers)
    lengths, wanted = chosen.select.lengths, workspace.recipe.pruning.baselines

    def ranked(order: Order, seed: int = 0) -> Ranked:
        return match_macs(encoder, lengths, Ranked(layers, 0.0, order, seed), target)

    rules: dict[str, Rule] = {}
    if "top-k" in wanted:
        rules["top-k"] = ranked("importance")
    if "manual" in wanted:
        rules["manual"] = _manual_thresholds(workspace, encoder, baseline, target)
    if "first" in wanted:
        rules["first"] = ranked("first")
    if "random" in wanted:
        for seed in range(workspace.recipe.pruning.random_seeds):
            rules[f"random-{seed}"] = ranked("random", seed)
    return rules


def match_macs(encoder: Encoder, lengths: Sequence[int], rule: Ranked, target: float) -> Ranked:
    """A ranked rule with the rate that gives the wanted share of operations, or comes nearest to it.

    No rate can save what the whole layers cost: where the paper's number of them costs more than is wanted, there are
    fewer; and where a single one is still too many, the share falls faster (a rate below 0).

    Args:
        encoder: the model.
        lengths: tokens of each text.
        rule: its order and seed count.
        target: operations over those of the unpruned model.
    """

    def macs(candidate: Ranked) -> float:
        kept_LB = [[candidate.kept(layer, n) for n in lengths] for layer in range(len(encoder.layers))]
        return relative_macs(encoder.hidden, lengths, kept_LB)

    while macs(replace(rule, rate=0.0)) > target and rule.whole_layers > 1:
        rule = replace(rule, whole=rule.whole_layers - 1)
    low, high = _STEEPEST if macs(replace(rule, rate=0.0)) > target else 0.0, 1.0
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (low, middle) if macs(replace(rule, rate=middle)) > target else (middle, high)
    return replace(rule, rate=(low + high) / 2)


def record_target(workspace: TokenWorkspace, encoder: Encoder, model: TrainedModel, chosen: TrainedModel) -> None:
    """Record whether a baseline has the chosen model's operations on the held-out set."""
    lengths = chosen.select.lengths
    target, reached = chosen.select.relative_macs(encoder), model.select.relative_macs(encoder)
    token = len(lengths) / (sum(lengths) * len(encoder.layers))  # of every text, in one layer
    near = abs(reached - target) <= max(NEAR, token)
    with workspace.run.editing() as record:
        stage = record.stages[model.name]
        stage.macs_target, stage.macs_reached = target, near


def _manual_thresholds(
    workspace: TokenWorkspace, encoder: Encoder, baseline: TrainedModel, target: float
) -> Thresholds:
    """The threshold rule with delta = 0 whose theta_final gives the wanted operations on the fine-tuned weights."""
    convention = workspace.convention

    def rule(theta: float) -> Thresholds:
        thresholds = Thresholds(len(encoder.layers), theta / convention.divisor, 1.0, convention).to(encoder.device)
        thresholds.delta_L.requires_grad_(False)
        return thresholds

    def search() -> float:
        load_weights(encoder, baseline.weights)
        low, high = 0.0, _HIGHEST_THETA
        for _ in range(12):
            middle = (low + high) / 2
            macs = workspace.evaluate(encoder, workspace.select, rule(middle)).relative_macs(encoder)
            low, high = (middle, high) if macs > target else (low, middle)
        return (low + high) / 2

    return rule(float(workspace.run.pin("manual_theta_final", search)))
