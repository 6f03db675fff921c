"""Retraining the winner and its rivals on the run's seed and on fresh ones; prompts of equal length train side by side.

A fresh seed is another order of the training examples and another random mask. Each prompt of a group has the data
order of its own seed, so it ends as it would alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from softprune.config import Recipe
from softprune.prompts.soft_prompts import masked_state
from softprune.pruning.masks import random_mask
from softprune.pruning.search import in_groups
from softprune.pruning.xprompt import Pruned, control_start
from softprune.training.jobs import Fitted, Group, fit_groups
from softprune.training.session import Workspace
from softprune.types import Candidate, PromptState

# A run has at most this many fresh seeds, so that runs with neighbouring seeds share none.
FRESH = 1_000
COMPARED = ("winner", "control", "random")


@dataclass(frozen=True, slots=True)
class _Rival:
    """One of the compared prompts, to be retrained on a fresh seed (by its number) or on the run's own (None)."""

    name: str
    fresh: int | None
    seed: int
    start: PromptState


def seed_of(run_seed: int, fresh: int | None) -> int:
    """The seed behind a run's fresh seed number `fresh` (below 1,000), which no two runs share; None: the run's own."""
    return run_seed if fresh is None else FRESH * (run_seed + 1) + fresh


def retrain_fresh(workspace: Workspace, pruned: Pruned, seeds: Sequence[int]) -> tuple[dict[str, Fitted], ...]:
    """Retrain winner, control and random mask on some fresh seeds (0, 1, ...); more may follow in the same run.

    Returns:
        For each fresh seed, what was retrained on it, by name.
    """
    pairs, own = fresh_pairs(workspace.recipe, seeds), workspace.recipe.seed
    fitted = fit_groups(workspace, rival_groups(workspace, pruned, pairs), "fresh")
    by_seed: dict[int, dict[str, Fitted]] = {number: {} for number in seeds}
    for name, number in pairs:
        by_seed[number][name] = fitted[f"{name}-{seed_of(own, number)}"]
    return tuple(by_seed.values())


def fresh_pairs(recipe: Recipe, seeds: Sequence[int]) -> list[tuple[str, int]]:
    """What is retrained on which fresh seed: winner and control on all, the random mask on as many as it gets."""
    last = recipe.selection.random_seeds
    return [(name, number) for number in seeds for name in COMPARED if name != "random" or number < last]


def rival_groups(workspace: Workspace, pruned: Pruned, pairs: Sequence[tuple[str, int | None]]) -> list[Group]:
    """Some of winner, control and random mask in groups to be retrained, each prompt named such as `winner-1000`.

    A pair is one of the three, and the number of its fresh seed; None in all of them for the run's own seed.
    """
    rivals: dict[str, _Rival] = {}
    shells = []  # `in_groups` looks at nothing but ids and lengths
    for name, fresh in pairs:
        seed, mask = seed_of(workspace.recipe.seed, fresh), pruned.winner.mask
        if name == "control":
            start = control_start(workspace, pruned.tuned)
        else:
            if name == "random":
                mask = random_mask(mask, seed)
            start = masked_state(pruned.tuned.state.vectors_PH, mask)
        rivals[f"{name}-{seed}"] = _Rival(name, fresh, seed, start)
        shells.append(Candidate(f"{name}-{seed}", 0.0, 0.0, start.mask.tokens, start.mask.pieces, 0))
    groups = []
    for members in in_groups(shells, workspace.group, workspace.recipe.pruning.removal):
        groups.append(_group(workspace, {shell.id: rivals[shell.id] for shell in members}))
    return groups


def _group(workspace: Workspace, rivals: dict[str, _Rival]) -> Group:
    numbers: dict[str, list[int]] = {}
    for rival in rivals.values():
        numbers.setdefault(rival.name, [])
        if rival.fresh is not None:
            numbers[rival.name].append(rival.fresh)
    phase = "fresh" if any(numbers.values()) else "control"
    seeds = sorted({rival.seed for rival in rivals.values()})
    return Group(
        work="-".join([phase, *(f"{name}{spans(numbers[name], 'to', '+')}" for name in numbers)]),
        names=tuple(rivals),
        starts=tuple(rival.start for rival in rivals.values()),
        phase=phase,
        title=f"retraining {', '.join(numbers)} (seed{'s' * (len(seeds) > 1)} {spans(seeds)})",
        epochs=workspace.recipe.search.epochs,
        seeds=tuple(rival.seed for rival in rivals.values()),
    )


def spans(numbers: Sequence[int], to: str = " to ", then: str = ", ") -> str:
    """Ascending whole numbers in short, such as `0 to 4, 7`, however many they are."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    texts = [str(first) if first == last else f"{first}{to}{last}" for first, last in runs]
    return then.join(texts)
