"""Prompts of some tasks asked on others: who is asked, and what each answered to every example of `report`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from softprune.models.base import Backbone
from softprune.prompts.initialization import from_vocabulary, generator
from softprune.statistics.methods_over_seeds import Scored
from softprune.studies.prompt_scoring import OpenSet
from softprune.studies.run_result import FinishedRun
from softprune.training.initial_prompt import common_words

NONE, INSTRUCTION, WORDS, NORMS = "no prompt", "the instruction", "random words", "random, as long as tuned ones"
BASELINES: Final = (NONE, INSTRUCTION, WORDS, NORMS)
"""What no task's training went into."""
_APART: Final = 7_919
"""Between the seeds of a run and of its random prompts: a run with sampled vocabulary starts from its own seed."""

Answers = Mapping[str, Sequence[Scored]]
"""By name of a prompt, its counts of each seed."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Prompts that are asked on every task.

    Attributes:
        trained: by task, the tuned prompts `[P, H]` of its seeds.
        random: by name of a baseline, one `[P, H]` a seed.
    """

    trained: Mapping[str, Sequence[torch.Tensor]]
    random: Mapping[str, Sequence[torch.Tensor]]


def collect_prompts(runs: Mapping[tuple[str, int], FinishedRun], backbone: Backbone) -> Asked:
    """The tuned prompts of runs, and random prompts for each of their seeds."""
    trained: dict[str, list[torch.Tensor]] = {}
    for (task, _), made in runs.items():
        trained.setdefault(task, []).append(made.prompt("tuned"))
    seeds = sorted({seed for _, seed in runs})
    tuned_NPH = torch.stack([prompt_PH for prompts in trained.values() for prompt_PH in prompts])
    ids, _ = common_words(backbone.tokenizer, backbone.vocabulary)
    words = [from_vocabulary(backbone.vectors_of, ids, tuned_NPH.shape[1], seed + _APART).vectors_PH for seed in seeds]
    norms = [as_long(tuned_NPH, seed + _APART) for seed in seeds]
    return Asked(trained, {WORDS: [prompt_PH.float().cpu() for prompt_PH in words], NORMS: norms})


def as_long(tuned_NPH: torch.Tensor, seed: int) -> torch.Tensor:
    """A random prompt `[P, H]`: directions drawn evenly, each token as long as the tuned prompts' are there on average.

    Args:
        tuned_NPH: N tuned prompts.
        seed: of the draw.
    """
    norms_P = tuned_NPH.norm(dim=-1).mean(0)
    drawn_PH = torch.randn(tuned_NPH.shape[1:], generator=generator(seed))
    scaled_PH: torch.Tensor = drawn_PH / drawn_PH.norm(dim=-1, keepdim=True) * norms_P[:, None]
    return scaled_PH


def score_prompts_on(target: OpenSet, asked: Asked) -> dict[str, Any]:
    """What every prompt answers to the target's examples, as JSON holds it; read by `load_answers`.

    Each prompt is scored alone, so its bits depend on no other.
    """
    found = {NONE: [target.no_prompt()]}
    instruction = target.instruction()
    if instruction is not None:
        found[INSTRUCTION] = [instruction]
    for name, prompts in {**asked.random, **asked.trained}.items():
        found[name] = target.scores(prompts)
    counts = {name: [target.counts(each).tolist() for each in scores] for name, scores in found.items()}
    return {"ids": list(target.ids), "groups": list(target.groups), "counts": counts}


def load_answers(document: Mapping[str, Any]) -> dict[str, list[Scored]]:
    """By prompt, what `score_prompts_on` found for each seed."""
    ids, groups = tuple(document["ids"]), tuple(document["groups"])
    return {
        name: [Scored(np.asarray(counts, np.float64), ids, groups) for counts in seeds]
        for name, seeds in document["counts"].items()
    }
