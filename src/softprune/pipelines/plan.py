"""What a recipe would do, before anything starts: its steps, and by a few that are measured, its time and memory.

Counts come from the code that the run itself plans with, on masks of the right size. Nothing is written; `report` is
counted and not read.
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
from softprune.data import answered
from softprune.data.metrics import Accuracy
from softprune.errors import SoftpruneError
from softprune.models.base import Backbone
from softprune.models.batching import training_batches
from softprune.pipelines.step_counts import Counted, Stage, count
from softprune.runs.executors import InProcess
from softprune.runs.record import begin_run
from softprune.runs.run_folder import RunFolder
from softprune.statistics.bootstrap import bootstrap_interval
from softprune.statistics.decision import DISCORDANCE, SEED_SD, detectable, seeds_needed
from softprune.statistics.seeds import MIN_SEEDS
from softprune.training.free_memory import free_bytes, held_bytes
from softprune.training.initial_prompt import settled
from softprune.training.memory import Rehearsal, StepMemory, measure_step
from softprune.training.progress import Silence
from softprune.training.scoring import ROWS_THAT_WRITE, ScoredSet, score_prompts
from softprune.training.session import Workspace, prepare

# Batches that are timed, and scoring calls.
STEPS, CALLS = 3, 2

# A checkpoint holds a prompt's values, its best ones and the optimiser's moments of them (two under AdamW).
COPIES = 4

# On a CPU: what an allocator keeps of freed memory, as a factor of a step, and what the comparison's libraries take.
KEPT, LIBRARIES = 1.6, 400_000_000

# The report's page with its figures, which plots take whatever the run; seen at the bundled task.
PAGE_BYTES = 2_000_000
# A token's entry in neighbours.json.
NEIGHBOUR_BYTES = 7_000


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds, measured.

    Attributes:
        call: of a training step, whatever its size.
        token: of a training step, for each candidate and each token of prompt and input.
        inputs: mean input tokens.
        scored: of scoring one prompt on one example.
        interval: of one row's bootstrap interval on `report`.
        loading: of data and backbone.
        written: of writing one text with one prompt; 0 where answers are chosen.
    """

    call: float
    token: float
    inputs: float
    scored: float
    interval: float
    loading: float
    written: float = 0.0

    def step(self, candidates: int, tokens: int) -> float:
        """Of a step of K prompts of so many tokens."""
        return self.call + self.token * candidates * (tokens + self.inputs)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is expected of a run.

    Attributes:
        workspace: what the run would share.
        counted: its trainings, and how many prompts it scores.
        step: memory of a training step; None where two candidates don't fit.
        held: bytes that the process holds with the backbone loaded.
        free: bytes free for steps; None where nobody tells.
        pace: measured.
    """

    workspace: Workspace
    counted: Counted
    step: StepMemory | None
    held: int
    free: int | None
    pace: Pace

    def seconds(self) -> dict[str, float]:
        """Expected wall time by phase, without early stopping and without the report's page."""
        parts = {"loading": self.pace.loading}
        for stage in self.counted.stages:
            parts[stage.name] = parts.get(stage.name, 0.0) + self._trained(stage)
        sizes, scored = self.sizes(), self.pace.scored
        if self.counted.importances:
            parts["importance"] = self.counted.importances * self._measured()
            parts["rank"] = self.counted.ranked * sizes["select"] * scored
        parts["report"] = self.counted.reported * (sizes["report"] * (scored + self.pace.written) + self.pace.interval)
        return parts

    def _trained(self, stage: Stage) -> float:
        steps = sum(stage.steps * self.pace.step(size, tokens) for size, tokens in stage.groups)
        return steps + stage.evaluations * stage.trainings * self.sizes()["select"] * self.pace.scored

    def _measured(self) -> float:
        """One measurement of importance: a pass with gradients over `train`, or one without for each part left out."""
        recipe, examples = self.workspace.recipe, self.sizes()["train"]
        prompt = recipe.prompt
        if recipe.pruning.importance == "leave_one_out":
            return (1 + prompt.tokens * (1 + prompt.pieces)) * examples * self.pace.scored
        return examples * self.pace.token * (prompt.tokens + self.pace.inputs) / recipe.tuning.batch_size

    def sizes(self) -> dict[str, int]:
        """Examples of each set."""
        return {name: len(getattr(self.workspace, name)) for name in ("train", "select", "report")}

    def peak_bytes(self) -> int | None:
        """Expected peak: what is held, and a step of the largest group; on a CPU, of the whole process."""
        if self.step is None:
            return None
        step = self.step.of(self.counted.largest)
        on_gpu = self.workspace.backbone.device.type == "cuda"
        return self.held + (step if on_gpu else int(KEPT * step) + LIBRARIES)

    def disk_bytes(self) -> int:
        """Expected size of the run folder at its largest: state of trainings, predictions, neighbours, the page."""
        prompt = self.workspace.recipe.prompt.tokens * self.workspace.backbone.info.hidden * 4
        text = sum(len(e.text) + 200 for e in self.workspace.select.examples) / len(self.workspace.select)
        states = sum(stage.trainings for stage in self.counted.stages) + COPIES * self.counted.largest
        neighbours = 2 * self.workspace.recipe.prompt.tokens * NEIGHBOUR_BYTES  # tuned and, at most, the winner
        return int(states * prompt + self.counted.tables * self.sizes()["report"] * text) + neighbours + PAGE_BYTES

    def document(self) -> dict[str, Any]:
        """Everything as JSON holds it; bytes and seconds."""
        info, recipe, seconds = self.workspace.backbone.info, self.workspace.recipe, self.seconds()
        stages = [
            {
                "name": stage.name,
                "trainings": stage.trainings,
                "groups": [size for size, _ in stage.groups],
                "steps": stage.steps,
                "steps_in_all": stage.steps * len(stage.groups),
                "evaluations": stage.evaluations,
            }
            for stage in self.counted.stages
        ]
        return {
            "kind": recipe.kind,
            "task": self.workspace.task.id,
            "backbone": {"name": info.name, "family": info.family, "parameters": info.parameters}
            | {"dtype": info.dtype, "device": info.device},
            "trainable_parameters": recipe.prompt.tokens * info.hidden,
            "examples": self.sizes(),
            "strategy": recipe.search.chosen() if recipe.kind == "xprompt" else None,
            "candidates": self.counted.candidates,
            "K": self.workspace.group,
            "stages": stages,
            "steps": sum(stage["steps_in_all"] for stage in stages),
            "candidate_steps": sum(stage.steps * stage.trainings for stage in self.counted.stages),
            "exact": self.counted.exact,
            "early_stopping": recipe.tuning.patience is not None,
            "seconds": sum(seconds.values()),
            "seconds_by_phase": seconds,
            "memory": {"held": self.held, "peak": self.peak_bytes(), "free": self.free}
            | {"step": None if self.step is None else {"base": self.step.base, "each": self.step.each}},
            "disk": self.disk_bytes(),
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


class Unbegun(RunFolder):
    """A run that is only thought of: what it would record stays in memory."""

    def __init__(self) -> None:
        self.record = begin_run("xprompt", "", None)
        self.path = Path("a run that isn't begun")

    def _write_record(self) -> None:
        """Nowhere."""


def plan(recipe: Recipe) -> Plan:
    """Load data and backbone as a run would, and measure a few steps.

    Raises:
        SoftpruneError: for whatever would keep the run from beginning.
    """
    if recipe.kind == "adapt":
        do = "run it on fewer examples (--shots) to see what it takes"
        raise SoftpruneError(
            "a recipe that trains prompts, to be planned", f"kind: adapt ({recipe.adapter.method})", do
        )
    begun = time.perf_counter()
    workspace = prepare(settled(recipe), Unbegun(), Silence(), InProcess())
    loading = time.perf_counter() - begun
    counted = count(workspace.recipe, len(workspace.train), workspace.group)
    scoring, backbone = workspace.scoring, workspace.backbone
    rehearsal = Rehearsal(workspace.recipe, backbone, workspace.train, scoring.loss, scoring.score)
    free, held = free_bytes(backbone.device), held_bytes(backbone.device)
    known = workspace.run.record.memory
    step = StepMemory(known.base, known.each) if known else measure_step(rehearsal)
    return Plan(workspace, counted, step, held, free, _pace(workspace, rehearsal, counted, loading))


def _pace(workspace: Workspace, rehearsal: Rehearsal, counted: Counted, loading: float) -> Pace:
    recipe, lengths = workspace.recipe, workspace.train.lengths
    batches = training_batches(lengths, recipe.tuning.batch_size, recipe.seed, 0)[:STEPS]
    inputs = sum(lengths) / len(lengths)
    size, tokens = max(((size, tokens) for stage in counted.stages for size, tokens in stage.groups))
    prompt = recipe.prompt.tokens

    def steps(candidates: int, length: int) -> float:
        def some() -> None:
            for batch in batches:
                rehearsal.step(candidates, length, batch)

        rehearsal.step(candidates, length, batches[0])  # the first of a shape is slower
        return _seconds(some, workspace.backbone) / len(batches)

    alone, rows = steps(1, prompt), prompt + inputs
    if size == 1:
        call, token = 0.0, alone / rows
    else:
        many, wide = steps(size, tokens), size * (tokens + inputs)
        slope = (many - alone) / (wide - rows) if wide > rows else many / wide
        token = max(slope, many / wide / 4)  # noise may turn the slope of tiny steps
        call = max(0.0, alone - token * rows)
    interval, written = _interval(workspace), _written(workspace)
    return Pace(call, token, inputs, _scored(workspace, size), interval, loading, written)


def _scored(workspace: Workspace, candidates: int) -> float:
    """Seconds of one prompt on one example of `select`: those of some calls, over all that they score."""
    backbone, scoring, data = workspace.backbone, workspace.scoring, workspace.select
    answers = data.weight if backbone.family != "sentence" else 1
    wanted = min(len(data), max(1, CALLS * scoring.rows // (candidates * answers)))
    order = sorted(range(len(data)), key=lambda i: data.lengths[i])
    some = [order[at * len(data) // wanted] for at in range(wanted)]
    part = ScoredSet([data.examples[i] for i in some], [data.encoded[i] for i in some])
    prompt_PH = backbone.vectors_of([at % backbone.vocabulary for at in range(workspace.recipe.prompt.tokens)])
    prompt_PH = prompt_PH.to(backbone.device)
    prompts_KPH = prompt_PH.expand(candidates, *prompt_PH.shape)

    def score() -> None:
        score_prompts(backbone, prompts_KPH, part, scoring)

    score()
    return _seconds(score, backbone) / (candidates * wanted)


def _written(workspace: Workspace) -> float:
    """Seconds of a text that one prompt writes, of a call of as many rows as write together; texts may end early."""
    backbone, data, scoring = workspace.backbone, workspace.select, workspace.reporting
    if not data.writes:
        return 0.0
    rows = range(min(len(data), scoring.rows, ROWS_THAT_WRITE))
    prompt_PH = backbone.vectors_of([at % backbone.vocabulary for at in range(workspace.recipe.prompt.tokens)])
    batch = data.batch(backbone, rows)
    prompt_PH = prompt_PH.to(backbone.device)
    return _seconds(lambda: backbone.generate(prompt_PH, batch, scoring.max_answer_length), backbone) / len(rows)


def _interval(workspace: Workspace) -> float:
    """Seconds of an interval over as many examples as `report` has, of made-up predictions."""
    made_up = [at % 2 for at in range(len(workspace.report))]
    metric, resamples = Accuracy(), workspace.recipe.selection.resamples
    counts = metric.counts(answered(made_up, [0] * len(made_up)))
    bootstrap_interval(counts, metric.score, None, seed=0, resamples=2)  # imports take longer than the work
    return _seconds(
        lambda: bootstrap_interval(counts, metric.score, None, seed=0, resamples=resamples), workspace.backbone
    )


def _seconds(work: Callable[[], object], backbone: Backbone) -> float:
    begun = time.perf_counter()
    work()
    if backbone.device.type == "cuda":
        torch.cuda.synchronize(backbone.device)
    return time.perf_counter() - begun
