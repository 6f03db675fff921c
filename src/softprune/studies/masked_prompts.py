"""Prompts that no run reported, scored on a set of a run's task: once, and kept as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from softprune.statistics.methods_over_seeds import Floats, Scored
from softprune.studies.prompt_scoring import Which, open_set
from softprune.studies.run_result import FinishedRun
from softprune.studies.study_context import StudyContext


@dataclass(frozen=True, slots=True)
class Masked:
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


def score_masked(
    study: StudyContext, made: FinishedRun, name: str, prompts: Mapping[str, torch.Tensor], which: Which
) -> dict[str, Masked]:
    """Prompts `[Q, H]`, as the backbone reads them, on one of the three sets of a run's recipe; each scored alone.

    Args:
        study: of the study, which keeps the scores.
        made: the run whose recipe names task, backbone and sets.
        name: of this piece of work, unique among those of this run and set.
        prompts: by name; on `report` none of them may have been chosen there.
        which: the set.

    Raises:
        SoftpruneError: as of `analysis.scored.open_set`.
    """

    def compute() -> dict[str, Any]:
        opened = open_set(study.spec(made.task, made.seed).recipe, which)
        scores = dict(zip(prompts, opened.scores(list(prompts.values())), strict=True))
        return {
            "ids": list(opened.ids),
            "groups": list(opened.groups),
            "prompts": {
                name: {"value": opened.value(s), "counts": opened.counts(s).tolist(), "losses": list(s.losses)}
                for name, s in scores.items()
            },
        }

    kept = study.once(f"{name}-{which}-{made.path.name}", compute)
    ids, groups = tuple(kept["ids"]), tuple(kept["groups"])
    return {
        prompt: Masked(
            one["value"], Scored(np.asarray(one["counts"], np.float64), ids, groups), np.asarray(one["losses"])
        )
        for prompt, one in kept["prompts"].items()
    }
