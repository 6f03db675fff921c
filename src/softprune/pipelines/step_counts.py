"""How many trainings, groups and steps a recipe asks for. No weights and no data: counts of examples are enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from softprune.config import Recipe
from softprune.evaluation.fresh_seeds import fresh_pairs
from softprune.pruning.masks import piece_mask, token_mask
from softprune.pruning.search import first_ratios, in_groups
from softprune.training.jobs import schedule_of
from softprune.training.loop import Schedule
from softprune.types import Candidate, Mask


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
class Counted:
    """What a recipe asks for.

    Attributes:
        stages: in their order.
        candidates: that the search makes.
        ranked: prompts that are scored on `select` before training.
        importances: passes over `train` that measure importance.
        reported: prompts that are scored on `report`; of the Pareto front, a third of those trained is assumed.
        tables: files of predictions.
        exact: whether the groups, and with them the steps, are sure. Candidate-steps are always.
    """

    stages: tuple[Stage, ...]
    candidates: int
    ranked: int
    importances: int
    reported: int
    tables: int
    exact: bool

    @property
    def largest(self) -> int:
        """Candidates of the largest group."""
        return max(size for stage in self.stages for size, _ in stage.groups)


Searched = tuple[list[Stage], bool]
"""The trainings of a search, and whether their groups are sure."""


def count(recipe: Recipe, examples: int, group: int) -> Counted:
    """Count a run's trainings.

    Args:
        recipe: with P settled.
        examples: of `train`.
        group: K.
    """
    plan, tokens = schedule_of(recipe, examples), recipe.prompt.tokens
    tuned = _stage("tune", plan, examples, [(1, tokens)] * len(recipe.tuning.sweep or (1,)))
    if recipe.kind == "tune":
        return Counted((tuned,), 0, 0, 0, reported=3, tables=3, exact=True)
    batches = _batches(recipe)
    trained, sure = _STRATEGIES[recipe.search.chosen()](recipe, examples, group, batches)
    candidates = [candidate for batch in batches for candidate in batch]
    kept = {candidate.tokens_kept == tokens for candidate in candidates}
    rivals = _rivals(recipe, examples, group, candidates[0].tokens_kept)
    finished = sum(stage.trainings for stage in trained if stage.name == "retrain")
    pieces = {c.token_ratio for c in candidates if c.piece_ratio and c.tokens_kept < tokens}
    return Counted(
        (tuned, *trained, *rivals),
        candidates=len(candidates),
        ranked=len(candidates),
        importances=1 + len(pieces),
        reported=6 + len(fresh_pairs(recipe, range(recipe.selection.first_seeds))) + math.ceil(finished / 3),
        tables=6,
        exact=sure and (recipe.pruning.removal == "zero" or len(kept) == 1),
    )


def _stage(name: str, plan: Schedule, examples: int, groups: Sequence[tuple[int, int]]) -> Stage:
    _, interval, total = plan.steps(examples)
    return Stage(name, tuple(groups), total, math.ceil(total / interval))


def _batches(recipe: Recipe) -> list[list[Candidate]]:
    """The candidates that the search makes at once."""
    settings, levels = recipe.search, recipe.pruning.levels
    strategy = settings.chosen()
    if strategy == "learned":  # nobody knows their sizes yet: half of everything stands for them
        return [[_candidate(recipe, 0.5, 0.5) for _ in settings.prices]]
    pairs = first_ratios(strategy, levels, settings.token_ratios, settings.piece_ratios, settings.samples, recipe.seed)
    batches = [[_candidate(recipe, *pair) for pair in pairs]]
    if strategy == "sequential" and levels == "both":  # the best token ratio isn't known yet: the middle one stands
        token_ratio = settings.token_ratios[len(settings.token_ratios) // 2]
        batches.append([_candidate(recipe, token_ratio, piece_ratio) for piece_ratio in settings.piece_ratios])
    return batches


def _candidate(recipe: Recipe, token_ratio: float, piece_ratio: float) -> Candidate:
    """A candidate of the right size, its mask made of any importance."""
    settings, prompt = recipe.pruning, recipe.prompt
    token_P = token_mask(torch.arange(prompt.tokens), token_ratio, settings.rounding)
    piece_PS = token_P[:, None].expand(-1, prompt.pieces)
    if piece_ratio:
        importance_PS = torch.arange(prompt.tokens * prompt.pieces).view(prompt.tokens, prompt.pieces)
        piece_PS = piece_mask(importance_PS, token_P, piece_ratio, settings.scope, settings.rounding)
    mask = Mask(token_P, piece_PS)
    name = f"t{token_ratio:g}-p{piece_ratio:g}"
    return Candidate(name, token_ratio, piece_ratio, mask.tokens, mask.pieces, mask.pieces)


def _grouped(recipe: Recipe, candidates: Sequence[Candidate], group: int) -> list[list[Candidate]]:
    return list(in_groups(candidates, group, recipe.pruning.removal))


def _read(recipe: Recipe, groups: Sequence[Sequence[Candidate]]) -> list[tuple[int, int]]:
    """Size and tokens of each group; under `zero` a pruned token is still read."""
    drop = recipe.pruning.removal == "drop"
    return [(len(group), group[0].tokens_kept if drop else recipe.prompt.tokens) for group in groups]


def _to_the_end(recipe: Recipe, examples: int, group: int, batches: Sequence[Sequence[Candidate]]) -> Searched:
    """`grid`, `random` and `sequential`: every candidate is trained to the end."""
    plan = schedule_of(recipe, examples, epochs=recipe.search.epochs)
    groups = [part for batch in batches for part in _grouped(recipe, batch, group)]
    return [_stage("retrain", plan, examples, _read(recipe, groups))], True


def _learned(recipe: Recipe, examples: int, group: int, batches: Sequence[Sequence[Candidate]]) -> Searched:
    """`learned`: gates on the whole prompt, a training a price, and at most as many tickets."""
    settings = recipe.search
    plan = schedule_of(recipe, examples, epochs=settings.gate_epochs or settings.epochs)
    prices = len(settings.prices)
    sizes = [(min(group, prices - start), recipe.prompt.tokens) for start in range(0, prices, group)]
    stages, _ = _to_the_end(recipe, examples, group, batches)
    return [_stage("gates", plan, examples, sizes), *stages], False


# A strategy's counter: a new strategy has a line here.
_STRATEGIES: dict[str, Callable[[Recipe, int, int, Sequence[Sequence[Candidate]]], Searched]] = {
    "grid": _to_the_end,
    "sequential": _to_the_end,
    "random": _to_the_end,
    "learned": _learned,
}


def _rivals(recipe: Recipe, examples: int, group: int, tokens: int) -> list[Stage]:
    """Control and random mask, and with the winner on fresh seeds; the winner has so many tokens."""
    plan = schedule_of(recipe, examples, epochs=recipe.search.epochs)
    sizes = {"winner": tokens, "control": recipe.prompt.tokens, "random": tokens}

    def groups(*names: str) -> list[tuple[int, int]]:
        shells = [Candidate(name, 0.0, 0.0, sizes[name], 0, 0) for name in names]
        return _read(recipe, _grouped(recipe, shells, group))

    fresh = groups(*(name for name, _ in fresh_pairs(recipe, range(recipe.selection.first_seeds))))
    stages = [_stage("control", plan, examples, groups("control", "random"))]
    return stages + ([_stage("fresh", plan, examples, fresh)] if fresh else [])
