"""Score prompts on a task's set outside a run, as the run itself would: for transfer, ensembles and ablations.

Every prompt is scored alone, so its bits don't depend on which other prompts are asked about, nor in which order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from softprune.config import BackboneConfig, Recipe
from softprune.data import Task, load_task
from softprune.errors import SoftpruneError
from softprune.models import describe
from softprune.models.base import Backbone
from softprune.models.description import BackboneDescription
from softprune.prompts.initialization import instruction_prompt, settle_tokens
from softprune.runs.job_folder import JSON
from softprune.statistics.bootstrap import Floats
from softprune.statistics.methods_over_seeds import Outcome, Scored
from softprune.studies.run_cache import Spec
from softprune.studies.run_result import FinishedRun
from softprune.studies.score_rows import Row
from softprune.studies.study_context import StudyContext
from softprune.training.hardware import load, settle_machine
from softprune.training.input_checks import check, read_data
from softprune.training.scoring import ScoredSet, Scoring, score_prompts
from softprune.training.session import encode_examples, room_for, scoring_of
from softprune.types import Scores

Which = Literal["train", "select", "report"]
# By name, prompts `[Q, H]` as the backbone reads them; several of a name are draws or seeds.
Prompts: TypeAlias = "Mapping[str, Sequence[torch.Tensor]]"
PromptScores: TypeAlias = "Mapping[str, Sequence[PromptScore]]"  # by the same names


@dataclass(frozen=True, slots=True)
class OpenSet:
    """One of a task's three sets, ready to score prompts on."""

    backbone: Backbone  # frozen; shared by all sets that were opened with the same backbone settings
    task: Task
    data: ScoredSet
    scoring: Scoring

    def scores(self, prompts: Sequence[torch.Tensor]) -> list[Scores]:
        """What the examples say about each prompt `[Q, H]`, as the model reads it; Q may be 0 and may differ.

        A pruned prompt is given under `drop` without its pruned tokens, under `zero` with zeros.

        Raises:
            SoftpruneError: for another embedding size, numbers that are none, or a prompt that leaves inputs no room.
        """
        info, scores = self.backbone.info, []
        for prompt_QH in prompts:  # all of them before the first is scored
            if prompt_QH.dim() != 2 or prompt_QH.shape[1] != info.hidden:
                do = "choose a prompt that was trained on a backbone of this embedding size"
                raise SoftpruneError(f"prompts [Q, {info.hidden}] for {info.name}", f"{list(prompt_QH.shape)}", do)
            if not torch.isfinite(prompt_QH).all():
                raise SoftpruneError("finite numbers in a prompt", "NaN or infinity", "choose another")
            if not self._fits(len(prompt_QH)):
                expected = f"a prompt that leaves room in the {info.positions} positions of the model"
                do = "open the set with a recipe whose prompt.tokens is as large, or set a smaller task.max_length"
                raise SoftpruneError(expected, f"{len(prompt_QH)} prompt tokens", do)
        for prompt_QH in prompts:
            read_1QH = prompt_QH.detach().to(self.backbone.device, self.backbone.prompt_dtype)[None]
            scores.append(score_prompts(self.backbone, read_1QH, self.data, self.scoring)[0])
        return scores

    def no_prompt(self) -> torch.Tensor:
        """The model alone, as a prompt `[0, H]`."""
        return torch.zeros(0, self.backbone.info.hidden)

    def instruction(self) -> torch.Tensor | None:
        """The task's instruction as a prompt; None where it has none, or the model's positions don't allow it."""
        words_QH = instruction_prompt(self.backbone, self.task)
        return words_QH if words_QH is not None and self._fits(len(words_QH)) else None

    def value(self, scores: Scores) -> float:
        """The metric over all examples, a fraction."""
        return self.task.metric.value(scores)

    def _fits(self, tokens: int) -> bool:
        generated = self.scoring.max_answer_length if self.scoring.match == "generate" else 0
        longest = max(self.data.lengths)
        return room_for(self.backbone, self.data.examples, tokens, longest, generated) == longest


def open_set(recipe: Recipe, which: Which = "report") -> OpenSet:
    """A task's set as a run of this recipe has it; its backbone is loaded once for all with the same settings.

    `report` is for results: whoever opens it has fixed every choice before. Inputs are cut for the recipe's prompt.

    Raises:
        SoftpruneError: where recipe, data and backbone disagree, or one can't be read.
    """
    recipe = settle_tokens(recipe)
    task = load_task(recipe.task.id)
    _, sets = read_data(recipe, task)
    settings = recipe.backbone
    check(recipe, _describe_backbone(settings))
    settle_machine(_NoRun(), settings.device, settings.dtype, settings.threads)
    backbone = _load_backbone(settings)
    examples = {"train": sets.train, "select": sets.select, "report": sets.report}[which]
    scoring = scoring_of(recipe, task, backbone)
    if which == "report":
        scoring = scoring.reporting(task.definition.is_generation)
    return OpenSet(backbone, task, encode_examples(recipe, backbone, examples), scoring)


class _NoRun:
    """Stands in for a run's folder, where there is nothing to resume and so nothing to pin."""

    def pin(self, key: str, compute: Callable[[], JSON]) -> JSON:
        return compute()


@cache
def _describe_backbone(settings: BackboneConfig) -> BackboneDescription:
    return describe(settings.name, settings.family, settings.revision, settings.trust_remote_code)


@cache
def _load_backbone(settings: BackboneConfig) -> Backbone:
    return load(settings, _describe_backbone(settings), _NoRun(), whole=False)


def draw_random_prompt(norms_P: torch.Tensor, hidden: int, seed: int) -> torch.Tensor:
    """A random prompt `[P, H]`: vectors of these lengths in even directions."""
    drawn_PH = torch.randn((len(norms_P), hidden), generator=torch.Generator().manual_seed(seed))
    scaled_PH: torch.Tensor = drawn_PH / drawn_PH.norm(dim=-1, keepdim=True) * norms_P[:, None]
    return scaled_PH


@dataclass(frozen=True, slots=True)
class PromptScore:
    """What a set says of one prompt."""

    value: float  # the metric, a fraction
    scored: Scored  # the metric's counts of each example
    losses: Floats  # the recipe's loss of each example, [N]

    @property
    def loss(self) -> float:
        """Mean over the examples."""
        return float(self.losses.mean())


def score_on(
    study: StudyContext, work: str, spec: Spec, which: Which, prompts: Callable[[OpenSet], Prompts]
) -> dict[str, list[PromptScore]]:
    """Scores of prompts, by name, on one of the three sets of a run's recipe; as the study's piece of work `work`.

    On `report`, none of the prompts may have been chosen there. `prompts` makes them where they weren't scored before.
    """

    def compute() -> dict[str, Any]:
        opened = open_set(spec.recipe, which)
        documents: dict[str, list[dict[str, Any]]] = {}
        for name, several in prompts(opened).items():
            documents[name] = []
            for scores in opened.scores(several):
                counts = opened.task.metric.counts(scores).tolist()
                documents[name].append({"value": opened.value(scores), "counts": counts, "losses": list(scores.losses)})
        examples = opened.data.examples
        ids, groups = [example.id for example in examples], [example.group for example in examples]
        return {"ids": ids, "groups": groups, "prompts": documents}

    stored = study.once(work, compute)
    ids, groups = tuple(stored["ids"]), tuple(stored["groups"])
    scores: dict[str, list[PromptScore]] = {name: [] for name in stored["prompts"]}
    for name, documents in stored["prompts"].items():
        for each in documents:
            counts = Scored(np.asarray(each["counts"], np.float64), ids, groups)
            scores[name].append(PromptScore(each["value"], counts, np.asarray(each["losses"])))
    return scores


def score_run(study: StudyContext, run: FinishedRun, name: str, prompts: Prompts, which: Which) -> PromptScores:
    """The same with the recipe of a finished run; `name` is unique among the work on this run and set."""
    spec = study.spec(run.task, run.seed)
    return score_on(study, f"{name}-{which}-{run.path.name}", spec, which, lambda _: prompts)


def scored_row(
    study: StudyContext, scores: Mapping[tuple[str, int], PromptScores], name: str, at_chance: Mapping[str, bool]
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
