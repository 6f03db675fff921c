"""How many trainings, groups and steps a recipe asks for. No weights and no data: counts of examples are enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from softprune.config import Recipe
from softprune.evaluation.fresh_seeds import fresh_pairs
from softprune.pruning.masks import token_mask
from softprune.pruning.search import in_groups, leaders, rungs, search, tiers
from softprune.ratios import exact
from softprune.training.jobs import schedule_of
from softprune.training.loop import Schedule
from softprune.types import Candidate


@dataclass(frozen=True, slots=True)
class Stage:
    """Trainings of one kind.

    Attributes:
        name: tune, gates, retrain, rung 1 and so on, control, fresh.
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
    trained = next((stage for stage in searched if stage.name == "retrain"), searched[-1]).trainings
    fresh = len(fresh_pairs(recipe, range(recipe.selection.first_seeds)))
    # Importance is measured on the whole prompt, and again on what each token ratio leaves of it.
    shortened = {c.token_ratio for c in candidates if c.piece_ratio and c.tokens_kept < tokens}
    alike = recipe.pruning.removal == "zero" or len({c.tokens_kept for c in candidates}) == 1
    return StepCounts(
        (tuned, *searched, *_rivals(recipe, examples, group, candidates[0].tokens_kept)),
        candidates=len(candidates),
        importances=1 + len(shortened),
        reported=6 + fresh + math.ceil(trained / 3),
        exact=alike and _groups_are_sure(recipe, searched),
    )


def _batches(recipe: Recipe) -> list[list[Candidate]]:
    """The candidates that the search makes at once, as the search itself asks for them."""
    settings = recipe.search
    if settings.chosen() == "learned":  # nobody knows their sizes yet: half of everything stands for them
        return [[_candidate(recipe, 0.5, 0.5) for _ in settings.prices]]
    batches: list[list[Candidate]] = []

    def train(ratios: Sequence[tuple[float, float]]) -> list[Candidate]:
        batches.append([_candidate(recipe, *pair) for pair in ratios])
        return batches[-1]

    def pick_middle(candidates: Sequence[Candidate]) -> Candidate:
        return candidates[len(candidates) // 2]

    levels = recipe.pruning.levels
    search(settings.chosen(), levels, settings.token_ratios, settings.piece_ratios, train, pick_middle)
    return batches


def _candidate(recipe: Recipe, token_ratio: float, piece_ratio: float) -> Candidate:
    """A candidate of the right length, whatever its importance; its parameters only order it among others."""
    tokens = recipe.prompt.tokens
    kept = int(token_mask(torch.arange(tokens), token_ratio, recipe.pruning.rounding).sum())
    pieces = max(1, round(kept * recipe.prompt.pieces * (1 - piece_ratio)))
    return Candidate(f"t{token_ratio:g}-p{piece_ratio:g}", token_ratio, piece_ratio, kept, pieces, pieces)


def _searched(recipe: Recipe, examples: int, group: int, batches: Sequence[Sequence[Candidate]]) -> list[Stage]:
    """The trainings of a search."""
    settings = recipe.search
    plan = schedule_of(recipe, examples, epochs=settings.epochs)
    if settings.chosen() == "halving":
        return _halved(recipe, plan, examples, group, batches)
    groups = [part for batch in batches for part in in_groups(batch, group, recipe.pruning.removal)]
    retrain = _stage("retrain", plan, examples, _sizes(recipe, groups))
    if settings.chosen() != "learned":
        return [retrain]
    # Gates are trained on the whole prompt, one training a price, and leave at most as many tickets.
    gate_plan = schedule_of(recipe, examples, epochs=settings.gate_epochs or settings.epochs)
    prices = len(settings.prices)
    sizes = [(min(group, prices - start), recipe.prompt.tokens) for start in range(0, prices, group)]
    return [_stage("gates", gate_plan, examples, sizes), retrain]


def _halved(
    recipe: Recipe, plan: Schedule, examples: int, group: int, batches: Sequence[Sequence[Candidate]]
) -> list[Stage]:
    """Halving: nobody knows who stays, but how many do."""
    levels = tiers([c for batch in batches for c in batch], recipe.search.tiers)
    stages: list[Stage] = []
    groups: list[list[Candidate]] = []
    before = 0.0
    for rung, (places, share) in enumerate(rungs(recipe.search.entrants, recipe.search.factor), start=1):
        levels = [leaders(level, places) for level in levels]
        staying = [candidate for level in levels for candidate in level]
        if rung == 1:
            groups = list(in_groups(staying, group, recipe.pruning.removal))
        else:  # those who stay train in the groups that they are in
            thinned = [[c for c in part if c in staying] for part in groups]
            groups = [part for part in thinned if part]
        stages.append(_stage(f"rung {rung}", plan, examples, _sizes(recipe, groups), share, before))
        before = share
    return stages


def _groups_are_sure(recipe: Recipe, searched: Sequence[Stage]) -> bool:
    strategy = recipe.search.chosen()
    if strategy == "halving":  # where there is one group, whoever stays is in it
        return len(searched[0].groups) == 1
    return strategy != "learned"


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


def _stage(
    name: str, plan: Schedule, examples: int, groups: Sequence[tuple[int, int]], share: float = 1.0, before: float = 0.0
) -> Stage:
    """A training from one share of its steps to another."""
    (first, seen), (last, all_seen) = (_until(plan, examples, part) for part in (before, share))
    return Stage(name, tuple(groups), last - first, all_seen - seen)


def _until(plan: Schedule, examples: int, share: float) -> tuple[int, int]:
    """Steps and evaluations until training pauses at a share of its steps."""
    if not share:
        return 0, 0
    total = plan.steps(examples)[2]
    _, interval, total, stop = replace(plan, pause_at=math.ceil(exact(share) * total)).steps(examples)
    return stop, stop // interval + (stop == total and total % interval > 0)
