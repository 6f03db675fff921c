"""Score prompts on a task's set outside a run, as the run itself would: for transfer, ensembles and ablations.

Every prompt is scored alone, so its bits depend only on the prompt, the recipe and the machine: not on which other
prompts are asked about, nor in which order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch

from softprune.config import BackboneConfig, Recipe
from softprune.data import Metric, Task, load_task
from softprune.data.metrics import Floats
from softprune.errors import SoftpruneError
from softprune.models import describe
from softprune.models.base import Backbone
from softprune.runs.folder_checks import JSON
from softprune.training.hardware import load, settle_machine
from softprune.training.initial_prompt import instruction_prompt, settled
from softprune.training.input_checks import read_data
from softprune.training.recipe_checks import check
from softprune.training.scoring import ScoredSet, Scoring, score_prompts
from softprune.training.session import encoded, room_for, scoring_of
from softprune.types import Scores

Which = Literal["train", "select", "report"]


@dataclass(frozen=True, slots=True)
class OpenSet:
    """One of a task's three sets, ready to score prompts on.

    Attributes:
        backbone: frozen; shared by all sets that were opened with the same backbone settings.
        task: with its metric.
        data: the examples, encoded.
        scoring: how they are scored.
    """

    backbone: Backbone
    task: Task
    data: ScoredSet
    scoring: Scoring

    def __len__(self) -> int:
        return len(self.data)

    @property
    def metric(self) -> Metric:
        """What is reported."""
        return self.task.metric

    @property
    def ids(self) -> tuple[str, ...]:
        """Of the examples."""
        return tuple(example.id for example in self.data.examples)

    @property
    def groups(self) -> tuple[str | None, ...]:
        """Resampling units of intervals, per example; see `Example.group`."""
        return tuple(example.group for example in self.data.examples)

    def scores(self, prompts: Sequence[torch.Tensor]) -> list[Scores]:
        """What the examples say about each prompt.

        Args:
            prompts: each `[Q, H]`, as the model reads it: a pruned one under `drop` without its pruned tokens, under
                `zero` with zeros. Q may be 0 and may differ.

        Raises:
            SoftpruneError: for another embedding size, numbers that are none, or a prompt that leaves inputs no room.
        """
        for prompt in prompts:
            self._check(prompt)
        return [self._score(prompt) for prompt in prompts]

    def no_prompt(self) -> torch.Tensor:
        """The model alone, as a prompt `[0, H]`."""
        return torch.zeros(0, self.backbone.info.hidden)

    def instruction(self) -> torch.Tensor | None:
        """The task's instruction as a prompt; None where it has none, or the model's positions don't allow it."""
        words_QH = instruction_prompt(self.backbone, self.task)
        return words_QH if words_QH is not None and self._fits(len(words_QH)) else None

    def counts(self, scores: Scores) -> Floats:
        """What the metric counts, a row for each example, `[N, C]`; see `softprune.statistics.bootstrap`."""
        return self.metric.counts(scores)

    def value(self, scores: Scores) -> float:
        """The metric over all examples, a fraction."""
        return self.metric.value(scores)

    def losses(self, scores: Scores) -> tuple[float, ...]:
        """The recipe's loss of each example."""
        return scores.losses

    def _score(self, prompt_QH: torch.Tensor) -> Scores:
        read_1QH = prompt_QH.detach().to(self.backbone.device, self.backbone.prompt_dtype)[None]
        return score_prompts(self.backbone, read_1QH, self.data, self.scoring)[0]

    def _fits(self, tokens: int) -> bool:
        generated = self.scoring.max_answer_length if self.scoring.match == "generate" else 0
        longest = max(self.data.lengths)
        return room_for(self.backbone, self.data.examples, tokens, longest, generated) == longest

    def _check(self, prompt_QH: torch.Tensor) -> None:
        hidden = self.backbone.info.hidden
        if prompt_QH.dim() != 2 or prompt_QH.shape[1] != hidden:
            found = f"{list(prompt_QH.shape)}"
            do = "choose a prompt that was trained on a backbone of this embedding size"
            raise SoftpruneError(f"prompts [Q, {hidden}] for {self.backbone.info.name}", found, do)
        if not torch.isfinite(prompt_QH).all():
            raise SoftpruneError("finite numbers in a prompt", "NaN or infinity", "choose another")
        if not self._fits(len(prompt_QH)):
            expected = f"a prompt that leaves room in the {self.backbone.info.positions} positions of the model"
            do = "open the set with a recipe whose prompt.tokens is as large, or set a smaller task.max_length"
            raise SoftpruneError(expected, f"{len(prompt_QH)} prompt tokens", do)


def open_set(recipe: Recipe, which: Which = "report") -> OpenSet:
    """A task's set with its backbone, which is loaded once for all recipes with the same backbone settings.

    `report` is for results: whoever opens it has fixed every choice before.

    Args:
        recipe: names task, data, backbone, and how sets are drawn and scored; inputs are cut for its prompt's length.
        which: train, select or report, as a run of this recipe has them.

    Raises:
        SoftpruneError: where recipe, data and backbone disagree, or one can't be read.
    """
    recipe = settled(recipe)
    task = load_task(recipe.task.id)
    _, sets = read_data(recipe, task)
    settings = recipe.backbone
    check(recipe, describe(settings.name, settings.family, settings.revision, settings.trust_remote_code))
    settle_machine(_Unkept(), settings.device, settings.dtype, settings.threads)
    backbone = _loaded(settings)
    examples = {"train": sets.train, "select": sets.select, "report": sets.report}[which]
    scoring = scoring_of(recipe, task, backbone)
    if which == "report":
        scoring = scoring.reporting(task.definition.is_generation)
    return OpenSet(backbone, task, encoded(recipe, backbone, examples), scoring)


class _Unkept:
    """No run: nothing to go on with, so nothing is kept."""

    def pin(self, key: str, compute: Callable[[], JSON]) -> JSON:
        return compute()


@cache
def _loaded(settings: BackboneConfig) -> Backbone:
    return load(settings, _Unkept(), whole=False)
