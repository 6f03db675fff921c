"""Prompts that are asked on other tasks than their own, and baselines that no task's training went into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch

from softprune.prompts.initialization import from_vocabulary, generator
from softprune.studies.prompt_scoring import OpenSet
from softprune.studies.run_result import FinishedRun
from softprune.training.initial_prompt import common_words

NONE, INSTRUCTION, WORDS, NORMS = "no prompt", "the instruction", "random words", "random, as long as tuned ones"
BASELINES: Final = (NONE, INSTRUCTION, WORDS, NORMS)
"""What no task's training went into."""
# Between the seeds of a run and of its random prompts: a run with sampled vocabulary starts from its own seed.
_APART: Final = 7_919


def prompts_to_ask(target: OpenSet, runs: Mapping[tuple[str, int], FinishedRun]) -> dict[str, list[torch.Tensor]]:
    """By name, the prompts that are asked on a task: tuned ones `[P, H]` of every task's seeds, and the baselines."""
    trained: dict[str, list[torch.Tensor]] = {}
    for (task, _), run in runs.items():
        trained.setdefault(task, []).append(run.prompt("tuned"))
    tuned_NPH = torch.stack([prompt_PH for prompts in trained.values() for prompt_PH in prompts])
    backbone, tokens = target.backbone, tuned_NPH.shape[1]
    ids, _ = common_words(backbone.tokenizer, backbone.vocabulary)
    seeds = [seed + _APART for seed in sorted({seed for _, seed in runs})]
    words = [from_vocabulary(backbone.embed_ids, ids, tokens, seed).vectors_PH.float().cpu() for seed in seeds]
    instruction = target.instruction()
    return {
        NONE: [target.no_prompt()],
        **({} if instruction is None else {INSTRUCTION: [instruction]}),
        WORDS: words,
        NORMS: [as_long(tuned_NPH, seed) for seed in seeds],
        **trained,
    }


def as_long(tuned_NPH: torch.Tensor, seed: int) -> torch.Tensor:
    """A random prompt `[P, H]`: even directions, each token as long as the N tuned prompts' on average."""
    norms_P = tuned_NPH.norm(dim=-1).mean(0)
    drawn_PH = torch.randn(tuned_NPH.shape[1:], generator=generator(seed))
    scaled_PH: torch.Tensor = drawn_PH / drawn_PH.norm(dim=-1, keepdim=True) * norms_P[:, None]
    return scaled_PH
