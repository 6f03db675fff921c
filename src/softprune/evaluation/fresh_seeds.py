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
class Rival:
    """A prompt to be retrained.

    Attributes:
        name: winner, control or random.
        fresh: number of its fresh seed; None on the run's own seed.
        seed: of its data order and of its random mask.
        start: its values and mask.
    """

    name: str
    fresh: int | None
    seed: int
    start: PromptState

    @property
    def id(self) -> str:
        """Unique in the run, such as `winner-1000`."""
        return f"{self.name}-{self.seed}"


def seed_of(run_seed: int, fresh: int | None) -> int:
    """The seed behind a run's fresh seed number `fresh` (below 1,000), which no two runs share; None: the run's own."""
    return run_seed if fresh is None else FRESH * (run_seed + 1) + fresh


def retrain_fresh(workspace: Workspace, pruned: Pruned, seeds: Sequence[int]) -> tuple[dict[str, Fitted], ...]:
    """Retrain winner, control and random mask on some fresh seeds; more may follow later in the same run.

    Args:
        workspace: what the run shares.
        pruned: the search's outcome.
        seeds: numbers of the fresh seeds: 0, 1 and so on.

    Returns:
        For each fresh seed, what was retrained on it, by name.
    """
    pairs, own = fresh_pairs(workspace.recipe, seeds), workspace.recipe.seed
    found = fit_groups(workspace, rival_groups(workspace, pruned, pairs), "fresh")
    by_seed: dict[int, dict[str, Fitted]] = {number: {} for number in seeds}
    for name, number in pairs:
        by_seed[number][name] = found[f"{name}-{seed_of(own, number)}"]
    return tuple(by_seed.values())


def fresh_pairs(recipe: Recipe, seeds: Sequence[int]) -> list[tuple[str, int]]:
    """What is retrained on which fresh seed: winner and control on all, the random mask on as many as it gets."""
    last = recipe.selection.random_seeds
    return [(name, number) for number in seeds for name in COMPARED if name != "random" or number < last]


def rival_groups(workspace: Workspace, pruned: Pruned, pairs: Sequence[tuple[str, int | None]]) -> list[Group]:
    """Some of winner, control and random mask in groups to be retrained, each prompt named such as `winner-1000`.

    Args:
        workspace: what the run shares.
        pruned: the search's outcome.
        pairs: one of the three, and the number of its fresh seed; None in all of them for the run's own seed.
    """
    rivals = [_rival(workspace, pruned, name, number) for name, number in pairs]
    by_id = {rival.id: rival for rival in rivals}
    shells = [Candidate(r.id, 0.0, 0.0, r.start.mask.tokens, r.start.mask.pieces, 0) for r in rivals]
    groups = in_groups(shells, workspace.group, workspace.recipe.pruning.removal)
    return [_group(workspace, [by_id[shell.id] for shell in group]) for group in groups]


def _rival(workspace: Workspace, pruned: Pruned, name: str, fresh: int | None) -> Rival:
    tuned, seed = pruned.tuned, seed_of(workspace.recipe.seed, fresh)
    if name == "control":
        return Rival(name, fresh, seed, control_start(workspace, tuned))
    mask = random_mask(pruned.winner.mask, seed) if name == "random" else pruned.winner.mask
    return Rival(name, fresh, seed, masked_state(tuned.state.vectors_PH, mask))


def _group(workspace: Workspace, rivals: Sequence[Rival]) -> Group:
    names = list(dict.fromkeys(rival.name for rival in rivals))
    seeds = sorted({rival.seed for rival in rivals})
    phase = "control" if rivals[0].fresh is None else "fresh"
    numbers = {name: [r.fresh for r in rivals if r.name == name and r.fresh is not None] for name in names}
    return Group(
        work="-".join([phase, *(f"{name}{spans(numbers[name], 'to', '+')}" for name in names)]),
        names=tuple(rival.id for rival in rivals),
        starts=tuple(rival.start for rival in rivals),
        phase=phase,
        title=f"retraining {', '.join(names)} (seed{'s' * (len(seeds) > 1)} {spans(seeds)})",
        epochs=workspace.recipe.search.epochs,
        seeds=tuple(rival.seed for rival in rivals),
    )


def spans(numbers: Sequence[int], to: str = " to ", then: str = ", ") -> str:
    """Ascending whole numbers in short, such as `0 to 4, 7`, however many they are."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return then.join(str(first) if first == last else f"{first}{to}{last}" for first, last in found)
