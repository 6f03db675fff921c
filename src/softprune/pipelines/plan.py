"""What a recipe would do, before anything starts: its steps, and by a measured one, its time and memory.

Counts come from the code that the run itself plans with. Nothing is written; `report` is counted and not read.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from softprune.config import Recipe
from softprune.errors import SoftpruneError
from softprune.models.base import Backbone
from softprune.models.batching import training_batches
from softprune.pipelines.step_counts import Stage, StepCounts, count_steps
from softprune.runs.executors import InProcess
from softprune.runs.record import begin_run
from softprune.runs.run_folder import RunFolder
from softprune.statistics.decision import DISCORDANCE, SEED_SD, detectable, seeds_needed
from softprune.statistics.seeds import MIN_SEEDS
from softprune.training.free_memory import free_bytes, held_bytes
from softprune.training.initial_prompt import settled
from softprune.training.memory import Rehearsal, StepMemory, measure_step
from softprune.training.progress import Silence
from softprune.training.scoring import ROWS_THAT_WRITE, ScoredSet, Scoring, score_prompts
from softprune.training.session import Workspace, prepare

# On a CPU: what an allocator keeps of freed memory, as a factor of a step, and what the comparison's libraries take.
KEPT, LIBRARIES = 1.6, 400_000_000


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds, measured.

    Attributes:
        alone: of a training step of one whole prompt.
        together: of a training step of the largest group.
        scored: of scoring one prompt on one example of `select`.
        reported: the same as on `report`, where texts are written too.
        loading: of data and backbone.
    """

    alone: float
    together: float
    scored: float
    reported: float
    loading: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What is expected of a run.

    Attributes:
        workspace: what the run would share.
        counts: its trainings, and how many prompts it scores.
        step: memory of a training step; None where two candidates don't fit.
        held: bytes that the process holds with the backbone loaded.
        free: bytes free for steps; None where nobody tells.
        pace: measured.
    """

    workspace: Workspace
    counts: StepCounts
    step: StepMemory | None
    held: int
    free: int | None
    pace: Pace

    def seconds(self) -> dict[str, float]:
        """Expected wall time by phase, without early stopping and without the report's page."""
        recipe, sizes, scored = self.workspace.recipe, self.sizes(), self.pace.scored
        parts = {"loading": self.pace.loading}
        for stage in self.counts.stages:
            steps = sum(stage.steps * self._step_seconds(size) for size, _ in stage.groups)
            parts[stage.name] = steps + stage.evaluations * stage.trainings * sizes["select"] * scored
        if self.counts.importances:
            # A pass with gradients is about three without; or one without for each part that is left out.
            passes = 3
            if recipe.pruning.importance == "leave_one_out":
                passes = 1 + recipe.prompt.tokens * (1 + recipe.prompt.pieces)
            parts["importance"] = self.counts.importances * passes * sizes["train"] * scored
            parts["rank"] = self.counts.candidates * sizes["select"] * scored
        parts["report"] = self.counts.reported * sizes["report"] * self.pace.reported
        return parts

    def _step_seconds(self, size: int) -> float:
        """Of a step of `size` candidates, on the line through the two that were measured."""
        largest, _ = self.counts.largest
        if largest == 1:
            return self.pace.alone
        return self.pace.alone + (self.pace.together - self.pace.alone) * (size - 1) / (largest - 1)

    def sizes(self) -> dict[str, int]:
        """Examples of each set."""
        return {name: len(getattr(self.workspace, name)) for name in ("train", "select", "report")}

    def peak_bytes(self) -> int | None:
        """Expected peak: what is held, and a step of the largest group; on a CPU, of the whole process."""
        if self.step is None:
            return None
        step = self.step.of(self.counts.largest[0])
        on_gpu = self.workspace.backbone.device.type == "cuda"
        return self.held + (step if on_gpu else int(KEPT * step) + LIBRARIES)

    def document(self) -> dict[str, Any]:
        """Everything as JSON holds it; bytes and seconds."""
        info, recipe, seconds = self.workspace.backbone.info, self.workspace.recipe, self.seconds()
        step = None if self.step is None else {"base": self.step.base, "each": self.step.each}
        return {
            "kind": recipe.kind,
            "task": self.workspace.task.id,
            "backbone": {
                "name": info.name,
                "family": info.family,
                "parameters": info.parameters,
                "dtype": info.dtype,
                "device": info.device,
            },
            "trainable_parameters": recipe.prompt.tokens * info.hidden,
            "examples": self.sizes(),
            "strategy": recipe.search.chosen() if recipe.kind == "xprompt" else None,
            "candidates": self.counts.candidates,
            "K": self.workspace.group,
            "stages": [_stage_document(stage) for stage in self.counts.stages],
            "steps": sum(stage.steps * len(stage.groups) for stage in self.counts.stages),
            "candidate_steps": sum(stage.steps * stage.trainings for stage in self.counts.stages),
            "exact": self.counts.exact,
            "early_stopping": recipe.tuning.patience is not None,
            "seconds": sum(seconds.values()),
            "seconds_by_phase": seconds,
            "memory": {"held": self.held, "peak": self.peak_bytes(), "free": self.free, "step": step},
            "comparison": self.comparison(),
        }

    def comparison(self) -> dict[str, Any] | None:
        """What the test of winner against control could detect; None where there will be too few fresh seeds for it.

        Nothing is measured yet: the spread over seeds and the share of examples that one side alone answers correctly
        are assumed from other runs.
        """
        recipe, units = self.workspace.recipe, self.workspace.report.units
        if recipe.kind != "xprompt" or recipe.selection.first_seeds < MIN_SEEDS:
            return None
        counts = dict.fromkeys((recipe.selection.first_seeds, recipe.selection.most_seeds))
        examples_error = math.sqrt(DISCORDANCE / units)
        margin = recipe.selection.margin
        return {
            "units": units,
            "grouped": units != len(self.workspace.report),
            "seed_sd": SEED_SD,
            "discordance": DISCORDANCE,
            "detectable": {str(seeds): detectable(seeds, units) for seeds in counts},
            "margin": margin,
            "seeds_for_margin": seeds_needed(margin, seed_sd=SEED_SD, examples_error=examples_error, units=units),
        }


class UnstartedRun(RunFolder):
    """A run that is only planned: what it would record stays in memory."""

    def __init__(self) -> None:
        self.record = begin_run("xprompt", "", None)
        self.path = Path("a run that isn't begun")

    def _write_record(self) -> None:
        """Nowhere."""


def plan(recipe: Recipe) -> Plan:
    """Load data and backbone as a run would, and measure a step and an evaluation.

    Raises:
        SoftpruneError: for whatever would keep the run from beginning.
    """
    if recipe.kind == "adapt":
        do = "run it on fewer examples (--shots) to see what it takes"
        raise SoftpruneError(
            "a recipe that trains prompts, to be planned", f"kind: adapt ({recipe.adapter.method})", do
        )
    begun = time.perf_counter()
    workspace = prepare(settled(recipe), UnstartedRun(), Silence(), InProcess())
    loading = time.perf_counter() - begun
    counts = count_steps(workspace.recipe, len(workspace.train), workspace.group)
    scoring, backbone = workspace.scoring, workspace.backbone
    rehearsal = Rehearsal(workspace.recipe, backbone, workspace.train, scoring.loss, scoring.score)
    free, held = free_bytes(backbone.device), held_bytes(backbone.device)
    known = workspace.run.record.memory  # measured where the recipe leaves K open
    memory = StepMemory(known.base, known.each) if known else measure_step(rehearsal)
    return Plan(workspace, counts, memory, held, free, _measure_pace(workspace, rehearsal, counts, loading))


def _measure_pace(workspace: Workspace, rehearsal: Rehearsal, counts: StepCounts, loading: float) -> Pace:
    recipe, data = workspace.recipe, workspace.train
    batch = training_batches(data.lengths, recipe.tuning.batch_size, recipe.seed, 0)[0]

    def step_seconds(size: int, tokens: int) -> float:
        rehearsal.step(size, tokens, batch)  # the first of a shape is slower
        return _seconds(lambda: rehearsal.step(size, tokens, batch), workspace.backbone)

    alone, together = step_seconds(1, recipe.prompt.tokens), step_seconds(*counts.largest)
    scored = _seconds_per_example(workspace, workspace.scoring)
    reported = scored
    if workspace.select.is_generation:
        reported = _seconds_per_example(workspace, workspace.reporting)
    return Pace(alone, together, scored, reported, loading)


def _seconds_per_example(workspace: Workspace, scoring: Scoring) -> float:
    """Seconds of one prompt on one example of `select`, by one call."""
    backbone, data = workspace.backbone, workspace.select
    rows = ROWS_THAT_WRITE if scoring.match == "generate" else max(1, scoring.rows // data.weight)
    part = ScoredSet(data.examples[:rows], data.encoded[:rows])
    prompt_PH = backbone.embed_ids([at % backbone.vocabulary for at in range(workspace.recipe.prompt.tokens)])
    prompts_1PH = prompt_PH.to(backbone.device)[None]
    return _seconds(lambda: score_prompts(backbone, prompts_1PH, part, scoring), backbone) / len(part)


def _seconds(work: Callable[[], object], backbone: Backbone) -> float:
    begun = time.perf_counter()
    work()
    if backbone.device.type == "cuda":
        torch.cuda.synchronize(backbone.device)
    return time.perf_counter() - begun


def _stage_document(stage: Stage) -> dict[str, Any]:
    return {
        "name": stage.name,
        "trainings": stage.trainings,
        "groups": [size for size, _ in stage.groups],
        "steps": stage.steps,
        "steps_in_all": stage.steps * len(stage.groups),
        "evaluations": stage.evaluations,
    }
