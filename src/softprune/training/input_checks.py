"""What a run is made from: read and checked together, and held to what it was begun with when it goes on.

Stored pieces of work must not be mixed with new ones that come of other data, weights or files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from softprune.config import Recipe
from softprune.data import Selection, Splits, Task, load_task, select_sets
from softprune.errors import ManyErrors, SoftpruneError, gathered
from softprune.models import describe
from softprune.models.base import Backbone
from softprune.models.description import BackboneDescription
from softprune.models.loading import check_placement, check_quantizer, resolve_device
from softprune.prompts.prompt_io import load_mask, load_vectors
from softprune.runs.run_folder import RunFolder
from softprune.training.recipe_checks import check, task_mistakes, text_mistakes
from softprune.training.scoring import ScoredSet, Scoring

Inputs = dict[str, str]
"""By the name that a user knows, something that changes when it does."""

# What changes along with an input that was edited: only the cause is reported.
_FOLLOWS = {"task": ("data", "tokens", "metric"), "data": ("tokens",)}
_NAMES = {
    "task": "the task's YAML",
    "data": "the data",
    "tokens": "the tokenizer",
    "metric": "the metric",
    "backbone": "the backbone's weights",
    "prompt": "the prompt file",
    "mask": "the mask file",
}


def read_inputs(
    recipe: Recipe, mistakes: Callable[[BackboneDescription], Sequence[SoftpruneError]]
) -> tuple[Task, Splits, Selection, BackboneDescription]:
    """The task's data and the backbone's configuration; what is wrong with either is reported together.

    Raises:
        ManyErrors: with every disagreement, those that `mistakes` finds with the backbone too.
    """
    errors: list[SoftpruneError] = []
    data = described = None
    with gathered(errors):
        task = load_task(recipe.task.id)
        errors += task_mistakes(recipe, task)
        data = (task, *read_data(recipe, task))
    settings = recipe.backbone
    with gathered(errors):
        check_placement(settings.device, settings.device_map, settings.quantization)
        check_quantizer(settings.quantization, resolve_device(settings.device))
    with gathered(errors):
        described = describe(settings.name, settings.family, settings.revision, settings.trust_remote_code)
        errors += mistakes(described)
        check(recipe, described)
    if data is not None and described is not None and data[0].definition.is_generation:
        errors += text_mistakes(recipe, data[0].id, described)
    if data is None or described is None or errors:
        raise errors[0] if len(errors) == 1 else ManyErrors("recipe for this data and backbone", errors)
    return (*data, described)


def read_data(recipe: Recipe, task: Task, *, patient: bool = True) -> tuple[Splits, Selection]:
    """The task's data, and the three sets that the recipe makes of it; `patient` as in `Task.load`."""
    splits = task.load(Path(recipe.task.data) if recipe.task.data else None, patient=patient)
    sets = select_sets(
        splits,
        recipe.selection.protocol,
        recipe.task.shots,
        recipe.selection.fraction,
        seed=recipe.seed,
        limit_report=recipe.task.limit_report,
        report_seed=recipe.task.report_seed,
    )
    return splits, sets


def check_unchanged(recipe: Recipe, run: RunFolder) -> None:
    """Hold a complete run to its task and data, where these can still be read: its results are of no others.

    Raises:
        SoftpruneError: when either has changed since.
    """
    if not run.record.inputs:
        return
    try:
        task = load_task(recipe.task.id)
        _, sets = read_data(recipe, task, patient=False)
    except SoftpruneError:  # gone, or out of reach: nothing contradicts the record
        return
    hold(run, data_inputs(task, sets))


def data_inputs(task: Task, sets: Selection) -> Inputs:
    """What is known before any weights load: the task's definition, and the examples of the three sets."""
    examples = ((e.id, e.text, e.answers, e.gold) for e in (*sets.train, *sets.select, *sets.report))
    irrelevant = {"title", "instruction", "kind", "sources"}
    if not task.definition.is_generation:
        irrelevant.add("target")
    definition = task.definition.model_dump(mode="json", exclude=irrelevant)
    return {"task": _digest([json.dumps(definition, sort_keys=True)]), "data": _digest(map(repr, examples))}


def model_inputs(
    recipe: Recipe, task: Task, backbone: Backbone, scoring: Scoring, encoded: Iterable[ScoredSet]
) -> Inputs:
    """The rest: weights, token ids of training and select sets, metric, and the files that a prompt begins with."""
    tokens = ((e.input_ids, e.answer_ids) for part in encoded for e in part.encoded)
    inputs = {
        "backbone": backbone.info.fingerprint,
        "tokens": _digest(map(repr, tokens)),
        "metric": f"{task.metric.name} of {scoring.score} scores",
    }
    if recipe.prompt.file is not None:
        inputs["prompt"] = _digest(map(repr, load_vectors(Path(recipe.prompt.file)).tolist()))
    if recipe.prompt.mask is not None:
        inputs["mask"] = _digest([repr(load_mask(Path(recipe.prompt.mask)).piece_PS.tolist())])
    return inputs


def hold(run: RunFolder, now: Inputs) -> None:
    """Hold a run to what it was begun with; the first time, that is noted.

    Raises:
        SoftpruneError: when something has changed since.
    """
    begun = run.pin("inputs", lambda: now)
    changed = [name for name, value in now.items() if begun.get(name) != value]
    effects = {effect for cause in changed for effect in _FOLLOWS.get(cause, ())}
    causes = [_NAMES[name] for name in changed if name not in effects]
    if causes:
        names = " and ".join(causes)
        raise SoftpruneError(
            f"{names} as {run.path} was begun with",
            f"{names} changed since",
            f"bring {'it' if len(causes) == 1 else 'them'} back, or start again with another --out",
        )


def _digest(parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode())
    return digest.hexdigest()[:16]
