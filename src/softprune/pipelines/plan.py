"""What a recipe would do, before anything starts: its steps, and by a measured one, its time and memory.

Counts come from the code that the run itself plans with. Nothing is written; `report` is counted and not read.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from softprune.config import Recipe
from softprune.config.criteria import CRITERIA
from softprune.errors import SoftpruneError
from softprune.evaluation.baselines import fresh_pairs
from softprune.models.base import Backbone
from softprune.models.batching import training_batches
from softprune.prompts.initialization import settle_tokens
from softprune.pruning.gradual import ratios_of
from softprune.pruning.importance import name_criterion
from softprune.pruning.masks import token_mask
from softprune.pruning.search import Ratios, first_ratios, in_groups
from softprune.runs.executors import Executor
from softprune.runs.record import begin_run
from softprune.runs.run_folder import RunFolder
from softprune.statistics.decision import DISCORDANCE, SEED_SD, detectable, seeds_needed
from softprune.statistics.seeds import MIN_SEEDS
from softprune.training.jobs import schedule
from softprune.training.loop import Schedule, Watch
from softprune.training.memory import Rehearsal, StepMemory, free_bytes, held_bytes, measure_step
from softprune.training.scoring import ROWS_THAT_WRITE, ScoredSet, Scoring, score_prompts
from softprune.training.session import Workspace, prepare, rehearse

# On a CPU: what an allocator keeps of freed memory, as a factor of a step, and what the comparison's libraries take.
KEPT, LIBRARIES = 1.6, 400_000_000


# --- counts ---


@dataclass(frozen=True, slots=True)
class Stage:
    """Trainings of one kind: tune, gates, retrain, control or fresh."""

    name: str
    groups: tuple[tuple[int, int], ...]  # K of each, and the tokens that the backbone reads of its prompts
    steps: int  # of each group, where nothing stops early
    evaluations: int  # of each candidate

    @property
    def trainings(self) -> int:
        """Candidates over all groups."""
        return sum(size for size, _ in self.groups)


@dataclass(frozen=True, slots=True)
class StepCounts:
    """What a recipe asks for."""

    stages: tuple[Stage, ...]
    candidates: int  # each is scored on `select` once before it is trained
    importances: int  # how often importance is measured on `train`
    reported: int  # prompts that are scored on `report`; the Pareto front is taken for a third of the candidates
    exact: bool  # whether the groups, and with them the steps, are sure; candidate-steps always are

    @property
    def largest(self) -> tuple[int, int]:
        """Candidates of the largest group, and the tokens of their prompts."""
        return max(group for stage in self.stages for group in stage.groups)


def count_steps(recipe: Recipe, examples: int, group: int, unlabelled: int = 0) -> StepCounts:
    """Count the trainings of a run of a recipe (with P settled) on so many examples of `train`, K at once.

    `unlabelled` rows are read by all that a teacher teaches.
    """
    settings, tokens = recipe.search, recipe.prompt.tokens
    rates = len(recipe.tuning.sweep or (1,))
    tuned = _stage("tune", schedule(recipe, examples), examples, [(1, tokens)] * rates)
    if recipe.kind == "tune":
        return StepCounts((tuned,), candidates=0, importances=0, reported=3, exact=True)
    stages = [tuned]
    if "control" in (recipe.pruning.rewind, recipe.pruning.teacher):
        stages.append(_stage("again", schedule(recipe, examples, settings.epochs), examples, [(1, tokens)]))
    if recipe.strategy() == "learned":
        # Gates are trained on the whole prompt, one training a price, and leave at most as many tickets.
        gate_schedule = schedule(recipe, examples, settings.gate_epochs or settings.epochs)
        sizes = _group_sizes(recipe, [tokens] * len(settings.prices), group)
        stages.append(_stage("gates", gate_schedule, examples, sizes))
    pairs: list[Ratios] = []
    lengths: list[int] = []
    groups: list[tuple[int, int]] = []
    for batch in _search_batches(recipe):
        kept_tokens = []
        for token_ratio, _ in batch:
            # Of the right length, whatever its importance; how many pieces it has doesn't count here.
            mask_P = token_mask(torch.arange(tokens), token_ratio, recipe.pruning.rounding)
            kept_tokens.append(int(mask_P.sum()))
        pairs += batch
        lengths += kept_tokens
        groups += _group_sizes(recipe, kept_tokens, group)
    examples += unlabelled
    retrained = schedule(recipe, examples, settings.epochs)
    stages.append(_stage("retrain", retrained, examples, groups))
    fresh = [name for name, _ in fresh_pairs(recipe, range(recipe.selection.first_seeds))]
    for stage, names in (("control", ["control", "random"]), ("fresh", fresh)):
        # The winner's length is assumed to be that of the first candidate.
        rivals = [tokens if name == "control" else lengths[0] for name in names]
        if rivals:
            stages.append(_stage(stage, retrained, examples, _group_sizes(recipe, rivals, group)))
    # Importance is measured on the whole prompt, and again on what each token ratio leaves of it.
    shortened = set()
    for (token_ratio, piece_ratio), kept in zip(pairs, lengths, strict=True):
        if piece_ratio and kept < tokens:
            shortened.add(token_ratio)
    # Under `drop` the winner trains beside the control only where it keeps every token: all could, or none.
    alike = recipe.pruning.removal == "zero" or len({kept == tokens for kept in lengths}) == 1
    return StepCounts(
        tuple(stages),
        candidates=len(pairs),
        importances=1 + len(shortened),
        reported=6 + len(fresh) + math.ceil(len(pairs) / 3),
        exact=alike and recipe.strategy() != "learned",
    )


def _search_batches(recipe: Recipe) -> list[list[Ratios]]:
    """The pairs of ratios that the search tries at once."""
    settings, levels, strategy = recipe.search, recipe.pruning.levels, recipe.strategy()
    if strategy == "learned":
        return [[(0.5, 0.5)] * len(settings.prices)]  # their sizes aren't known yet: half of everything
    if strategy == "gradual":
        return [[ratios_of(levels, keep) for keep in settings.keep]]
    token_ratios, piece_ratios = settings.token_ratios, settings.piece_ratios
    batches = [first_ratios(strategy, levels, token_ratios, piece_ratios, settings.samples, recipe.seed)]
    if strategy == "sequential" and levels == "both":
        middle = token_ratios[len(token_ratios) // 2]  # assumed to do best
        batches.append([(middle, piece_ratio) for piece_ratio in piece_ratios])
    return batches


def _group_sizes(recipe: Recipe, lengths: Sequence[int], group: int) -> list[tuple[int, int]]:
    """K and tokens of each group; under `zero` a pruned token is still read."""
    sizes = []
    for places in in_groups(lengths, group, recipe.pruning.removal):
        tokens = lengths[places[0]]
        if recipe.pruning.removal == "zero":
            tokens = recipe.prompt.tokens
        sizes.append((len(places), tokens))
    return sizes


def _stage(name: str, plan: Schedule, examples: int, groups: Sequence[tuple[int, int]]) -> Stage:
    _, interval, total = plan.steps(examples)
    return Stage(name, tuple(groups), total, math.ceil(total / interval))


# --- time and memory ---


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds, measured."""

    alone: float  # a training step of one whole prompt
    together: float  # a training step of the largest group
    scored: float  # one prompt on one example of `select`
    reported: float  # the same as on `report`, where texts are written too
    loading: float  # data and backbone


@dataclass(frozen=True, slots=True)
class Plan:
    """What is expected of a run."""

    workspace: Workspace
    counts: StepCounts
    step: StepMemory | None  # None where two candidates don't fit
    held: int  # bytes of the process with the backbone loaded
    free: int | None  # bytes for steps; None where the system doesn't say
    pace: Pace

    def seconds(self) -> dict[str, float]:
        """Expected wall time by phase, without early stopping and without the report's page."""
        recipe, sizes, scored = self.workspace.recipe, self.sizes(), self.pace.scored
        parts, (largest, _) = {"loading": self.pace.loading}, self.counts.largest
        for stage in self.counts.stages:
            steps = 0.0
            for size, _ in stage.groups:  # on the line through the two sizes that were measured
                more = (self.pace.together - self.pace.alone) * (size - 1) / (largest - 1) if largest > 1 else 0.0
                steps += stage.steps * (self.pace.alone + more)
            parts[stage.name] = steps + stage.evaluations * stage.trainings * sizes["select"] * scored
        if self.counts.importances:
            asked = name_criterion(recipe)
            method = "paper" if asked == "auto" else asked
            passes = CRITERIA[method].passes(recipe.prompt.tokens, recipe.prompt.pieces)
            parts["importance"] = self.counts.importances * passes * sizes["train"] * scored
            parts["rank"] = self.counts.candidates * sizes["select"] * scored
        parts["report"] = self.counts.reported * sizes["report"] * self.pace.reported
        return parts

    def sizes(self) -> dict[str, int]:
        """Examples of each set."""
        return {name: len(getattr(self.workspace, name)) for name in ("train", "select", "report")}

    def document(self) -> dict[str, Any]:
        """Everything as JSON holds it; bytes and seconds."""
        info, recipe, seconds = self.workspace.backbone.info, self.workspace.recipe, self.seconds()
        peak, step = None, None
        if self.step is not None:
            step = asdict(self.step)
            added = self.step.of(self.counts.largest[0])
            if self.workspace.backbone.device.type != "cuda":
                added = int(KEPT * added) + LIBRARIES
            peak = self.held + added
        stages = []
        for stage in self.counts.stages:
            document = {"name": stage.name, "trainings": stage.trainings, "groups": [size for size, _ in stage.groups]}
            counts = {"steps": stage.steps, "steps_in_all": stage.steps * len(stage.groups)}
            stages.append(document | counts | {"evaluations": stage.evaluations})
        return {
            "kind": recipe.kind,
            "task": self.workspace.task.id,
            "backbone": {key: getattr(info, key) for key in ("name", "family", "parameters", "dtype", "device")},
            "trainable_parameters": recipe.prompt.tokens * info.hidden,
            "examples": self.sizes(),
            "strategy": recipe.strategy() if recipe.kind == "xprompt" else None,
            "candidates": self.counts.candidates,
            "K": self.workspace.group,
            "stages": stages,
            "steps": sum(stage.steps * len(stage.groups) for stage in self.counts.stages),
            "candidate_steps": sum(stage.steps * stage.trainings for stage in self.counts.stages),
            "exact": self.counts.exact,
            "early_stopping": recipe.tuning.patience is not None,
            "seconds": sum(seconds.values()),
            "seconds_by_phase": seconds,
            "memory": {"held": self.held, "peak": peak, "free": self.free, "step": step},
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

    def _write_file(self, name: str, data: bytes) -> None: ...


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
    run = UnstartedRun(Path("a run that isn't begun"), None, begin_run("xprompt", "", None))
    workspace = prepare(settle_tokens(recipe), run, Watch(), Executor())
    loading = time.perf_counter() - begun
    unlabelled = len(workspace.lessons) - len(workspace.train)
    counts = count_steps(workspace.recipe, len(workspace.train), workspace.group, unlabelled)
    backbone = workspace.backbone
    rehearsal = rehearse(workspace.recipe, backbone, workspace.train, workspace.scoring)
    free, held = free_bytes(backbone.device), held_bytes(backbone.device)
    known = workspace.run.record.memory  # measured where the recipe leaves K open
    memory = StepMemory(known.base, known.each) if known else measure_step(rehearsal)
    return Plan(workspace, counts, memory, held, free, _measure_pace(workspace, rehearsal, counts, loading))


def _measure_pace(workspace: Workspace, rehearsal: Rehearsal, counts: StepCounts, loading: float) -> Pace:
    recipe, data, backbone = workspace.recipe, workspace.train, workspace.backbone
    batch = training_batches(data.lengths, recipe.tuning.batch_size, recipe.seed, 0)[0]
    prompt_PH = backbone.embed_ids([at % backbone.vocabulary for at in range(recipe.prompt.tokens)])
    prompts_1PH = prompt_PH.to(backbone.device)[None]

    def step_seconds(size: int, tokens: int) -> float:
        rehearsal.step(size, tokens, batch)  # the first of a shape is slower
        return _seconds(lambda: rehearsal.step(size, tokens, batch), backbone)

    def seconds_per_example(scoring: Scoring) -> float:
        select = workspace.select
        rows = ROWS_THAT_WRITE if scoring.match == "generate" else max(1, scoring.rows // select.weight)
        part = ScoredSet(select.examples[:rows], select.encoded[:rows])  # one call
        return _seconds(lambda: score_prompts(backbone, prompts_1PH, part, scoring), backbone) / len(part)

    alone, together = step_seconds(1, recipe.prompt.tokens), step_seconds(*counts.largest)
    scored = reported = seconds_per_example(workspace.scoring)
    if workspace.select.is_generation:
        reported = seconds_per_example(workspace.reporting)
    return Pace(alone, together, scored, reported, loading)


def _seconds(work: Callable[[], object], backbone: Backbone) -> float:
    begun = time.perf_counter()
    work()
    if backbone.device.type == "cuda":
        torch.cuda.synchronize(backbone.device)
    return time.perf_counter() - begun
