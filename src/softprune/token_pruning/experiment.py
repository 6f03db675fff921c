"""Learned token pruning from beginning to end (Kim et al. 2022), on one page.

fine-tune -> for each lambda: train thresholds and weights (soft), then weights behind fixed thresholds (hard)
-> choose lambda on the held-out set -> train the baselines at that model's operations -> report once
"""

from __future__ import annotations

from dataclasses import replace

from softprune.data import answered
from softprune.runs.record_parts import Gap, StageRecord
from softprune.token_pruning.evaluation import Answers
from softprune.token_pruning.families import Anatomy
from softprune.token_pruning.jobs import Contestant, Stage, TokenWorkspace, Weights, fit, soft_hard_gap, take
from softprune.token_pruning.rule_comparison import NEAR, at_macs, report
from softprune.token_pruning.rules import Everything, Ranked, Rule, Thresholds

BASELINE = "baseline"


def experiment(workspace: TokenWorkspace) -> tuple[dict[str, Contestant], str]:
    """Train and compare; every model by its name, and the name of the chosen one. The results are in run.json."""
    anatomy = workspace.anatomy()
    baseline = train_baseline(workspace, anatomy)
    found = {BASELINE: baseline}
    for price in workspace.recipe.pruning.lambdas:
        contestant = train_thresholds(workspace, anatomy, baseline, price)
        found[contestant.name] = contestant
    learned = {name: contestant for name, contestant in found.items() if name != BASELINE}
    operations = {name: contestant.select.relative_macs(anatomy) for name, contestant in learned.items()}
    chosen = choose(workspace, found, operations)
    for name, rule in rules_at(workspace, anatomy, baseline, found[chosen]).items():
        found[name] = train_behind(workspace, anatomy, baseline, name, rule)
        note_target(workspace, anatomy, found[name], found[chosen])
    report(workspace, anatomy, found, chosen)
    return found, chosen


def train_baseline(workspace: TokenWorkspace, anatomy: Anatomy) -> Contestant:
    """Fine-tune the encoder; nothing is pruned."""
    tuning = workspace.recipe.tuning
    stage = Stage(BASELINE, "fine-tuning the unpruned model", Everything(), tuning.epochs, tuning.lr)
    with workspace.run.phase(BASELINE):
        weights = fit(workspace, anatomy, stage) if tuning.epochs else _as_it_is(anatomy)
        return _measured(workspace, anatomy, BASELINE, Everything(), weights)


def train_thresholds(workspace: TokenWorkspace, anatomy: Anatomy, baseline: Contestant, price: float) -> Contestant:
    """The soft and the hard stage at one lambda, from the fine-tuned weights."""
    settings, tuning = workspace.recipe.pruning, workspace.recipe.tuning
    shown, convention = f"{price:.15g}", workspace.convention
    name = f"lambda-{shown}"
    # theta_final and T are written in units of an average token.
    rule = Thresholds(
        len(anatomy.layers),
        settings.theta_final / convention.divisor,
        settings.temperature / convention.divisor,
        convention,
    ).to(anatomy.device)
    take(anatomy, baseline.weights)
    with workspace.run.phase("soft"):
        soft = Stage(f"soft-{shown}", f"soft pruning, lambda {shown}", rule, settings.soft_epochs, tuning.lr)
        weights = fit(workspace, anatomy, replace(soft, price=price, best_by="last"))
        before = workspace.answers(anatomy, workspace.select, rule)
        gap = soft_hard_gap(workspace, anatomy, rule, before)
        note = _stage_record(workspace, anatomy, before)
        note.theta, note.gap = rule.values(), Gap(score=gap["score"], loss=gap["loss"])
        with workspace.run.editing() as record:
            record.stages[f"soft-{shown}"] = note
    rule.delta_L.requires_grad_(False)
    with workspace.run.phase("hard"):
        if settings.hard_epochs:
            lr = settings.hard_lr or tuning.lr
            hard = Stage(f"hard-{shown}", f"hard pruning, lambda {shown}", rule, settings.hard_epochs, lr)
            weights = fit(workspace, anatomy, hard)
        return _measured(workspace, anatomy, name, rule, weights)


def train_behind(
    workspace: TokenWorkspace, anatomy: Anatomy, baseline: Contestant, name: str, rule: Rule
) -> Contestant:
    """Fine-tune on behind a rule that isn't learned, for as many passes as the learned one had."""
    settings = workspace.recipe.pruning
    epochs = settings.baseline_epochs or settings.soft_epochs + settings.hard_epochs
    take(anatomy, baseline.weights)
    with workspace.run.phase("rules"):
        weights = fit(workspace, anatomy, Stage(name, f"rule {name}", rule, epochs, workspace.recipe.tuning.lr))
        return _measured(workspace, anatomy, name, rule, weights)


def choose(workspace: TokenWorkspace, found: dict[str, Contestant], operations: dict[str, float]) -> str:
    """The learned model with the fewest operations among those that lose little on the held-out set.

    Where all lose more than that, the one that loses least.

    Args:
        workspace: of the run.
        found: all models, the unpruned one too.
        operations: of each learned model, a share of the unpruned one's.
    """

    def accuracy(name: str) -> float:
        return workspace.metric.value(answered(found[name].select.predicted, workspace.select.golds))

    least = accuracy(BASELINE) - workspace.recipe.selection.within
    good = [name for name in operations if accuracy(name) >= least]
    chosen = min(good, key=operations.__getitem__) if good else max(operations, key=accuracy)
    with workspace.run.editing() as record:
        assert record.selection is not None  # written when the run was prepared
        record.selection.chosen, record.selection.within = chosen, bool(good)
    return chosen


def rules_at(workspace: TokenWorkspace, anatomy: Anatomy, baseline: Contestant, chosen: Contestant) -> dict[str, Rule]:
    """The baselines with as many operations as the chosen model, by the paper's count on the held-out set."""
    target, layers = chosen.select.relative_macs(anatomy), len(anatomy.layers)
    lengths, wanted = chosen.select.lengths, workspace.recipe.pruning.baselines

    made: dict[str, Rule] = {}
    if "top-k" in wanted:
        made["top-k"] = at_macs(anatomy, lengths, Ranked(layers, 0.0), target)
    if "manual" in wanted:
        made["manual"] = _manual(workspace, anatomy, baseline, target, layers)
    if "first" in wanted:
        made["first"] = at_macs(anatomy, lengths, Ranked(layers, 0.0, "first"), target)
    if "random" in wanted:
        for seed in range(workspace.recipe.pruning.random_seeds):
            made[f"random-{seed}"] = at_macs(anatomy, lengths, Ranked(layers, 0.0, "random", seed), target)
    return made


def note_target(workspace: TokenWorkspace, anatomy: Anatomy, contestant: Contestant, chosen: Contestant) -> None:
    """Whether a baseline really has the chosen model's operations on the held-out set, for run.json."""
    lengths = chosen.select.lengths
    target, found = chosen.select.relative_macs(anatomy), contestant.select.relative_macs(anatomy)
    token = len(lengths) / (sum(lengths) * len(anatomy.layers))  # of every text, in one layer
    near = abs(found - target) <= max(NEAR, token)
    with workspace.run.editing() as record:
        stage = record.stages[contestant.name]
        stage.macs_target, stage.macs_reached = target, near


def _manual(
    workspace: TokenWorkspace, anatomy: Anatomy, baseline: Contestant, target: float, layers: int
) -> Thresholds:
    """The threshold rule with delta = 0 whose theta_final gives the wanted operations on the fine-tuned weights."""
    convention = workspace.convention

    def rule(theta: float) -> Thresholds:
        found = Thresholds(layers, theta / convention.divisor, 1.0, convention).to(anatomy.device)
        found.delta_L.requires_grad_(False)
        return found

    def search() -> float:
        take(anatomy, baseline.weights)
        low, high = 0.0, 8.0  # an average token's importance is 1: at 8 next to nothing is left
        for _ in range(12):
            middle = (low + high) / 2
            macs = workspace.answers(anatomy, workspace.select, rule(middle)).relative_macs(anatomy)
            low, high = (middle, high) if macs > target else (low, middle)
        return (low + high) / 2

    return rule(float(workspace.run.pin("manual_theta_final", search)))


def _measured(workspace: TokenWorkspace, anatomy: Anatomy, name: str, rule: Rule, weights: Weights) -> Contestant:
    answers = workspace.answers(anatomy, workspace.select, rule)
    note = _stage_record(workspace, anatomy, answers)
    if isinstance(rule, Thresholds):
        note.theta = rule.values()
    if isinstance(rule, Ranked):
        note.rate, note.whole_layers = rule.rate, rule.whole_layers
    with workspace.run.editing() as record:
        record.stages[name] = note
    return Contestant(name, rule, weights, answers)


def _stage_record(workspace: TokenWorkspace, anatomy: Anatomy, answers: Answers) -> StageRecord:
    """What run.json holds of a stage, measured on the held-out set."""
    golds = workspace.select.golds
    return StageRecord(
        select=workspace.metric.value(answered(answers.predicted, golds)),
        select_loss=answers.loss(golds),
        kept=answers.kept(),
        relative_macs=answers.relative_macs(anatomy),
    )


def _as_it_is(anatomy: Anatomy) -> Weights:
    return {name: value.detach().clone()[None].cpu() for name, value in anatomy.model.named_parameters()}
