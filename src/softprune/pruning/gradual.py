"""Parts leave a prompt while it trains, so that a ticket costs one retraining (`search.strategy: gradual`).

Of n stages, stage i first prunes the fraction

    s_i = (1 - keep) * (1 - (1 - i / n)^3),    i = 1, ..., n

(Zhu and Gupta 2017, arXiv 1710.01878, equation 1), and then trains what is left for one pass over the training set; the
last stage trains for all passes that remain, half of them, and its best checkpoint on `select` counts. Where tokens and
pieces are pruned, tokens keep the square root of the share, and pieces what then makes the share of all numbers.
What has left stays out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from softprune.prompts.soft_prompts import masked_state
from softprune.pruning.importance import measure_once, name_criterion
from softprune.pruning.masks import piece_mask, token_mask, whole_tokens
from softprune.pruning.search import MaskedCandidate, Ratios, Trial, in_groups
from softprune.training.jobs import Fitted, Group, fit_groups, schedule
from softprune.training.session import Workspace
from softprune.types import Mask, PromptState

# A stage's data order is that of another seed: the same seed would shuffle every pass alike.
STAGE_SEEDS = 1_000_003


@dataclass(frozen=True, slots=True)
class Chain:
    """A prompt that is pruned in stages: the share of its numbers that it keeps, and its seed."""

    name: str
    keep: float
    seed: int


def prune_gradually(workspace: Workspace, whole: Fitted, teacher: PromptState | None) -> list[Trial]:
    """A ticket for each share of `search.keep`, each from the whole prompt on."""
    recipe = workspace.recipe
    chains = [Chain(f"k{keep:.12g}", keep, recipe.seed) for keep in recipe.search.keep]
    fitted = run_chains(workspace, whole, teacher, chains, "retrain")
    trials = []
    for chain in chains:
        found = fitted[chain.name]
        mask, hidden = found.state.mask, found.state.vectors_PH.shape[1]
        ratios = ratios_of(recipe.pruning.levels, chain.keep)
        candidate = MaskedCandidate.make(chain.name, mask, hidden, *ratios).candidate
        evaluation = found.evaluation
        candidate = replace(candidate, status="trained", select=evaluation.score, select_loss=evaluation.loss)
        trials.append(Trial(candidate, mask, found))
    return trials


def run_chains(
    workspace: Workspace, whole: Fitted, teacher: PromptState | None, chains: Sequence[Chain], phase: str
) -> dict[str, Fitted]:
    """Take chains through all stages; what they end as, by name. Those of equal length train side by side."""
    data = workspace.train if teacher is None else workspace.lessons
    passes = schedule(workspace.recipe, len(data), workspace.recipe.search.epochs).epochs
    stages = passes // 2 + 1
    states, seconds = {chain.name: whole.state for chain in chains}, dict.fromkeys([each.name for each in chains], 0.0)
    ended: dict[str, Fitted] = {}
    for stage in range(1, stages + 1):
        pruned = 1 - (1 - stage / stages) ** 3
        for chain in chains:
            share, work = 1 - (1 - chain.keep) * pruned, f"{chain.name}-stage{stage}"
            drawn = replace(workspace, scoring=replace(workspace.scoring, seed=chain.seed))
            states[chain.name] = _narrow(drawn, states[chain.name], share, work)
        groups = list(_groups(workspace, chains, states, stage, stages))
        epochs = passes - stages + 1 if stage == stages else 1
        groups = [replace(group, phase=phase, epochs=epochs, teacher=teacher) for group in groups]
        fitted = fit_groups(workspace, groups, phase)
        for chain in chains:
            ended[chain.name] = fitted[_name(chain, stage, stages)]
            states[chain.name] = ended[chain.name].state
            seconds[chain.name] += ended[chain.name].seconds
    return {name: replace(found, seconds=seconds[name]) for name, found in ended.items()}


def ratios_of(levels: str, keep: float) -> Ratios:
    """The ratios of tokens and of pieces that together keep a share of the numbers, before tokens are counted."""
    each = 1 - math.sqrt(keep)
    return {"both": (each, each), "token": (1 - keep, 0.0), "piece": (0.0, 1 - keep)}[levels]


def piece_ratio_of(levels: str, keep: float, kept_P: torch.Tensor) -> float:
    """The ratio of pieces that makes a share of all numbers where these tokens `[P]` are kept."""
    if levels == "token":
        return 0.0
    return max(0.0, 1 - keep * len(kept_P) / int(kept_P.sum()))


def _name(chain: Chain, stage: int, stages: int) -> str:
    return chain.name if stage == stages else f"{chain.name}-stage{stage}"


def _groups(
    workspace: Workspace, chains: Sequence[Chain], states: dict[str, PromptState], stage: int, stages: int
) -> Iterator[Group]:
    """Groups of one stage; only the last stage has a best checkpoint."""
    lengths = [states[chain.name].mask.tokens for chain in chains]
    for places in in_groups(lengths, workspace.group, workspace.recipe.pruning.removal):
        part = [chains[place] for place in places]
        names = tuple(_name(chain, stage, stages) for chain in part)
        yield Group(
            work=f"gradual-{names[0]}-{len(names)}",
            names=names,
            starts=tuple(states[chain.name] for chain in part),
            phase="",
            title=f"pruning while training ({', '.join(chain.name for chain in part)}), stage {stage} of {stages}",
            seeds=tuple(chain.seed + STAGE_SEEDS * stage for chain in part),
            to_end=stage < stages,
        )


def _narrow(workspace: Workspace, state: PromptState, share: float, work: str) -> PromptState:
    """The prompt with a share of its numbers, the most important ones of those that are left."""
    settings, pieces = workspace.recipe.pruning, workspace.recipe.prompt.pieces
    token_P, piece_PS = _importance(workspace, state, work)
    kept_P = token_mask(token_P, ratios_of(settings.levels, share)[0], settings.rounding)
    mask = whole_tokens(kept_P, pieces)
    piece_ratio = piece_ratio_of(settings.levels, share, kept_P)
    if piece_ratio:
        mask = Mask(kept_P, piece_mask(piece_PS, kept_P, piece_ratio, settings.scope, settings.rounding))
    # A token that leaves takes all its pieces along: so many may go that the count reaches those that left before.
    return masked_state(state.vectors_PH, Mask(kept_P, mask.piece_PS & state.mask.piece_PS))


def _importance(workspace: Workspace, state: PromptState, work: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores `[P]` and `[P, S]` of what is left of a prompt; what is pruned has the lowest."""
    settings, pieces = workspace.recipe.pruning, workspace.recipe.prompt.pieces
    with workspace.run.phase("importance"):
        read = measure_once(workspace, state, f"importance-{work}", name_criterion(workspace.recipe))
    token_P, piece_PS = read.token_P, read.piece_PS
    if settings.removal == "drop":
        kept_P = state.mask.token_P
        token_P = token_P.new_full(kept_P.shape, float("-inf")).masked_scatter(kept_P, token_P)
        piece_PS = piece_PS.new_full((len(kept_P), pieces), float("-inf")).masked_scatter(kept_P[:, None], piece_PS)
    piece_PS = piece_PS.masked_fill(~state.mask.piece_PS, float("-inf"))
    return token_P.masked_fill(~state.mask.token_P, float("-inf")), piece_PS
