"""How many trainings, groups and steps a recipe asks for. No weights and no data: counts of examples are enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from softprune.config import Recipe
from softprune.evaluation.fresh_seeds import fresh_pairs
from softprune.pruning.masks import token_mask
from softprune.pruning.search import first_ratios, in_groups
from softprune.training.jobs import schedule_of
from softprune.training.loop import Schedule
from softprune.types import Candidate


@dataclass(frozen=True, slots=True)
class Stage:
    """Trainings of one kind.

    Attributes:
        name: tune, gates, retrain, control, fresh.
        groups: K of each group, and the tokens that the backbone reads of its prompts.
        steps: of each group, where nothing stops early.
        evaluations: of each candidate.
    """

    name: str
    groups: tuple[tuple[int, int], ...]
    steps: int
    evaluations: int

    @property
    def trainings(self) -> int:
        """Candidates over all groups."""
        return sum(size for size, _ in self.groups)


@dataclass(frozen=True, slots=True)
class StepCounts:
    """What a recipe asks for.

    Attributes:
        stages: in their order.
        candidates: that the search makes; each is scored on `select` once before it is trained.
        importances: passes over `train` that measure importance.
        reported: prompts that are scored on `report`; of the Pareto front, a third of those trained is assumed.
        exact: whether the groups, and with them the steps, are sure. Candidate-steps are always.
    """

    stages: tuple[Stage, ...]
    candidates: int
    importances: int
    reported: int
    exact: bool

    @property
    def largest(self) -> tuple[int, int]:
        """Candidates of the largest group, and the tokens of their prompts."""
        return max(group for stage in self.stages for group in stage.groups)


def count_steps(recipe: Recipe, examples: int, group: int) -> StepCounts:
    """Count a run's trainings.

    Args:
        recipe: with P settled.
        examples: of `train`.
        group: K.
    """
    plan, tokens = schedule_of(recipe, examples), recipe.prompt.tokens
    tuned = _stage("tune", plan, examples, [(1, tokens)] * len(recipe.tuning.sweep or (1,)))
    if recipe.kind == "tune":
        return StepCounts((tuned,), candidates=0, importances=0, reported=3, exact=True)
    batches = _batches(recipe)
    searched = _searched(recipe, examples, group, batches)
    candidates = [candidate for batch in batches for candidate in batch]
    trained = searched[-1].trainings
    fresh = len(fresh_pairs(recipe, range(recipe.selection.first_seeds)))
    # Importance is measured on the whole prompt, and again on what each token ratio leaves of it.
    shortened = {c.token_ratio for c in candidates if c.piece_ratio and c.tokens_kept < tokens}
    # Under `drop` the winner trains beside the control only where it keeps every token: all could, or none.
    alike = recipe.pruning.removal == "zero" or len({c.tokens_kept == tokens for c in candidates}) == 1
    return StepCounts(
        (tuned, *searched, *_rivals(recipe, examples, group, candidates[0].tokens_kept)),
        candidates=len(candidates),
        importances=1 + len(shortened),
        reported=6 + fresh + math.ceil(trained / 3),
        exact=alike and recipe.search.chosen() != "learned",
    )


def _batches(recipe: Recipe) -> list[list[Candidate]]:
    """The candidates that the search makes at once."""
    settings, levels = recipe.search, recipe.pruning.levels
    strategy = settings.chosen()
    if strategy == "learned":  # nobody knows their sizes yet: half of everything stands for them
        return [[_candidate(recipe, 0.5, 0.5) for _ in settings.prices]]
    ratios = first_ratios(strategy, levels, settings.token_ratios, settings.piece_ratios, settings.samples, recipe.seed)
    batches = [[_candidate(recipe, *pair) for pair in ratios]]
    if strategy == "sequential" and levels == "both":  # the middle token ratio stands for the one that does best
        token_ratio = settings.token_ratios[len(settings.token_ratios) // 2]
        batches.append([_candidate(recipe, token_ratio, piece_ratio) for piece_ratio in settings.piece_ratios])
    return batches


def _candidate(recipe: Recipe, token_ratio: float, piece_ratio: float) -> Candidate:
    """A candidate of the right length, whatever its importance; how many pieces it has doesn't count here."""
    kept = int(token_mask(torch.arange(recipe.prompt.tokens), token_ratio, recipe.pruning.rounding).sum())
    return Candidate("planned", token_ratio, piece_ratio, kept, 0, 0)


def _searched(recipe: Recipe, examples: int, group: int, batches: Sequence[Sequence[Candidate]]) -> list[Stage]:
    """The trainings of a search."""
    settings = recipe.search
    plan = schedule_of(recipe, examples, epochs=settings.epochs)
    groups = [part for batch in batches for part in in_groups(batch, group, recipe.pruning.removal)]
    retrain = _stage("retrain", plan, examples, _sizes(recipe, groups))
    if settings.chosen() != "learned":
        return [retrain]
    # Gates are trained on the whole prompt, one training a price, and leave at most as many tickets.
    gate_plan = schedule_of(recipe, examples, epochs=settings.gate_epochs or settings.epochs)
    prices = len(settings.prices)
    sizes = [(min(group, prices - start), recipe.prompt.tokens) for start in range(0, prices, group)]
    return [_stage("gates", gate_plan, examples, sizes), retrain]


def _rivals(recipe: Recipe, examples: int, group: int, tokens: int) -> list[Stage]:
    """Control and random mask, and with the winner on fresh seeds; the winner has so many tokens."""
    plan = schedule_of(recipe, examples, epochs=recipe.search.epochs)
    lengths = {"winner": tokens, "control": recipe.prompt.tokens, "random": tokens}
    fresh = [name for name, _ in fresh_pairs(recipe, range(recipe.selection.first_seeds))]
    stages = []
    for stage, names in (("control", ["control", "random"]), ("fresh", fresh)):
        prompts = [Candidate(name, 0.0, 0.0, lengths[name], 0, 0) for name in names]
        groups = list(in_groups(prompts, group, recipe.pruning.removal))
        if names:
            stages.append(_stage(stage, plan, examples, _sizes(recipe, groups)))
    return stages


def _sizes(recipe: Recipe, groups: Sequence[Sequence[Candidate]]) -> list[tuple[int, int]]:
    """Size and tokens of each group; under `zero` a pruned token is still read."""
    if recipe.pruning.removal == "zero":
        return [(len(group), recipe.prompt.tokens) for group in groups]
    return [(len(group), group[0].tokens_kept) for group in groups]


def _stage(name: str, plan: Schedule, examples: int, groups: Sequence[tuple[int, int]]) -> Stage:
    _, interval, total = plan.steps(examples)
    return Stage(name, tuple(groups), total, math.ceil(total / interval))
