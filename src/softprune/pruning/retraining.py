"""Retraining candidates from the rewind point (paper, section 4.3): all of them to the end, or the better ones only.

Candidates of a group train side by side. Groups don't depend on each other, so that an executor may spread
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from softprune.prompts.soft_prompts import masked_state
from softprune.pruning.search import in_groups, leaders, rungs, tiers
from softprune.training.distribute import fit_item, fit_to_item, spread
from softprune.training.jobs import Fitted, Paused
from softprune.training.session import Workspace
from softprune.types import Candidate, Mask, WorkItem


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate with its mask and, once it is retrained, its prompt."""

    candidate: Candidate
    mask: Mask
    fitted: Fitted | None = None

    def trained(self, fitted: Fitted, rung: int, status: str) -> Trial:
        """With what a rung of training gave it."""
        found = fitted.evaluation
        candidate = self.candidate.updated(status=status, rung=rung, select=found.score, select_loss=found.loss)
        return Trial(candidate, self.mask, fitted)


def retrain_all(workspace: Workspace, tuned: Fitted, trials: Sequence[Trial]) -> list[Trial]:
    """Rewind the survivors of every candidate to the tuned values and retrain them to the end, K at once."""
    by_id = {trial.candidate.id: trial for trial in trials}
    groups = [[c.id for c in group] for group in _groups(workspace, trials)]
    items = [
        WorkItem(
            f"retrain-{ids[0]}-{len(ids)}",
            {
                "starts": [masked_state(tuned.state.vectors_PH, by_id[name].mask) for name in ids],
                "names": ids,
                "phase": "retrain",
                "title": _title(ids),
                "epochs": workspace.recipe.search.epochs,
            },
        )
        for ids in groups
    ]
    done: dict[str, Fitted] = {}
    for group, fitted in zip(groups, spread(workspace, fit_item, items, "retrain"), strict=True):
        done.update(zip(group, fitted, strict=True))
    return [trial.trained(done[name], 1, "trained") for name, trial in by_id.items()]


def halve(workspace: Workspace, tuned: Fitted, trials: Sequence[Trial]) -> list[Trial]:
    """Rewind and retrain only what promises most: successive halving within each level of compression.

    A level's entrants are those whose masked, unretrained prompt loses least. After each rung the better ones of a
    level go on from where they are. Who leaves has no score in the end: it was not trained to it.

    Args:
        workspace: what the run shares.
        tuned: the rewind point.
        trials: ranked candidates.
    """
    settings = workspace.recipe.search
    found = {trial.candidate.id: trial for trial in trials}
    levels = tiers([trial.candidate for trial in trials], settings.tiers)
    paused: list[Paused] = []
    steps = rungs(settings.entrants, settings.factor)
    for rung, (count, share) in enumerate(steps, start=1):
        levels = [leaders([found[c.id].candidate for c in level], count) for level in levels]
        staying = [found[c.id] for level in levels for c in level]
        names = {trial.candidate.id for trial in staying}
        if paused:
            paused = [part for part in (group.some(names) for group in paused) if part.names]
            groups = [list(group.names) for group in paused]
        else:
            groups = [[c.id for c in group] for group in _groups(workspace, staying)]
        paused = _rung(workspace, tuned, found, groups, paused, rung, share)
        for group in paused:
            for name, fitted in zip(group.names, group.fitted, strict=True):
                before = found[name].fitted
                spent = fitted.seconds + (before.seconds if before is not None else 0.0)
                status = "trained" if rung == len(steps) else "ranked"
                found[name] = found[name].trained(replace(fitted, seconds=spent), rung, status)
    return [trial if trial.candidate.status == "trained" else _left(trial) for trial in found.values()]


def _rung(
    workspace: Workspace,
    tuned: Fitted,
    trials: dict[str, Trial],
    groups: Sequence[list[str]],
    before: Sequence[Paused],
    rung: int,
    share: float,
) -> list[Paused]:
    """Train every group on to a share of its steps; one that ran out of memory comes back as several."""
    earlier = {group.names[0]: group for group in before}
    items = [
        WorkItem(
            f"rung{rung}-{ids[0]}-{len(ids)}",
            {
                "starts": [masked_state(tuned.state.vectors_PH, trials[name].mask) for name in ids],
                "names": ids,
                "share": share,
                "before": earlier.get(ids[0]),
                "phase": "retrain",
                "title": f"rung {rung}: {_title(ids)}",
                "epochs": workspace.recipe.search.epochs,
            },
        )
        for ids in groups
    ]
    return [part for parts in spread(workspace, fit_to_item, items, "retrain") for part in parts]


def _left(trial: Trial) -> Trial:
    status = "eliminated" if trial.candidate.rung else trial.candidate.status
    return Trial(trial.candidate.updated(status=status, select=None, select_loss=None), trial.mask)


def _groups(workspace: Workspace, trials: Sequence[Trial]) -> list[list[Candidate]]:
    return list(in_groups([t.candidate for t in trials], workspace.group, workspace.recipe.pruning.removal))


def _title(ids: Sequence[str]) -> str:
    return f"retraining {', '.join(ids[:2])}{f' and {len(ids) - 2} more' if len(ids) > 2 else ''}"
