"""Prompts that no run reported, scored on a set of a task: once, and stored as JSON with the study."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

from softprune.statistics.methods_over_seeds import Floats, Outcome, Scored
from softprune.studies.prompt_scoring import OpenSet, Which, open_set
from softprune.studies.run_cache import Spec
from softprune.studies.run_result import FinishedRun
from softprune.studies.score_rows import Row
from softprune.studies.study_context import StudyContext

Prompts: TypeAlias = "Mapping[str, Sequence[torch.Tensor]]"
"""By name, prompts `[Q, H]` as the backbone reads them; several of a name are draws or seeds."""
PromptScores: TypeAlias = "Mapping[str, Sequence[PromptScore]]"
"""By the same names."""


@dataclass(frozen=True, slots=True)
class PromptScore:
    """What a set said of one prompt.

    Attributes:
        value: the metric, a fraction.
        scored: the metric's counts of each example.
        losses: the run's loss of each example, `[N]`.
    """

    value: float
    scored: Scored
    losses: Floats

    @property
    def loss(self) -> float:
        """Mean over the examples."""
        return float(self.losses.mean())


def score_on(
    study: StudyContext, work: str, spec: Spec, which: Which, prompts: Callable[[OpenSet], Prompts]
) -> dict[str, list[PromptScore]]:
    """Prompts on one of the three sets of a run's recipe; each scored alone, so that its bits depend on no other.

    Args:
        study: which stores the scores.
        work: the name of this piece of work, unique in the study.
        spec: the run whose recipe names task, backbone and sets.
        which: the set.
        prompts: makes them, where they weren't scored before; on `report` none of them may have been chosen there.

    Raises:
        SoftpruneError: as of `open_set`.
    """

    def compute() -> dict[str, Any]:
        opened = open_set(spec.recipe, which)
        documents: dict[str, list[dict[str, Any]]] = {}
        for name, several in prompts(opened).items():
            documents[name] = [_document(opened, prompt_QH) for prompt_QH in several]
        return {"ids": list(opened.ids), "groups": list(opened.groups), "prompts": documents}

    stored = study.once(work, compute)
    ids, groups = tuple(stored["ids"]), tuple(stored["groups"])
    scores: dict[str, list[PromptScore]] = {}
    for name, documents in stored["prompts"].items():
        scores[name] = []
        for each in documents:
            counts = Scored(np.asarray(each["counts"], np.float64), ids, groups)
            scores[name].append(PromptScore(each["value"], counts, np.asarray(each["losses"])))
    return scores


def _document(opened: OpenSet, prompt_QH: torch.Tensor) -> dict[str, Any]:
    (scores,) = opened.scores([prompt_QH])
    counts = opened.counts(scores).tolist()
    return {"value": opened.value(scores), "counts": counts, "losses": list(opened.losses(scores))}


def score_run(study: StudyContext, run: FinishedRun, name: str, prompts: Prompts, which: Which) -> PromptScores:
    """The same with the recipe of a finished run; `name` is unique among the work on this run and set."""
    spec = study.spec(run.task, run.seed)
    return score_on(study, f"{name}-{which}-{run.path.name}", spec, which, lambda _: prompts)


def scored_row(
    study: StudyContext,
    scores: Mapping[tuple[str, int], PromptScores],
    name: str,
    at_chance: Mapping[str, bool],
) -> Row:
    """One name by task, over the seeds and their draws."""
    outcomes = {}
    for task in study.tasks:
        outcomes[task] = prompt_outcome([scores[task, seed][name] for seed in study.seeds])
    return Row(outcomes, at_chance)


def prompt_outcome(by_seed: Sequence[Sequence[PromptScore]]) -> Outcome:
    """The scores of each seed's draws as what a setting reached."""
    each = [score for draws in by_seed for score in draws]
    return Outcome(tuple(one.value for one in each), tuple(one.scored for one in each), draws=len(by_seed[0]))
