"""What a run was begun with, told from what is there now: stored pieces of work must not be mixed with new ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from softprune.config import Recipe
from softprune.data import Selection, Task
from softprune.errors import SoftpruneError
from softprune.models.base import Backbone
from softprune.prompts.prompt_io import load_mask, load_vectors
from softprune.runs.worker_store import Store
from softprune.training.scoring import ScoredSet, Scoring

Inputs = dict[str, str]
"""By the name that a user knows, something that changes when it does."""

# Whatever depends on what was edited: told once, by its cause.
_FOLLOWS = {"task": ("data", "tokens", "metric"), "data": ("tokens",)}
_TOLD = {
    "task": "the task's YAML",
    "data": "the data",
    "tokens": "the tokenizer",
    "metric": "the metric",
    "backbone": "the backbone's weights",
    "prompt": "the prompt file",
    "mask": "the mask file",
}


def data_inputs(task: Task, sets: Selection) -> Inputs:
    """What is known before any weights load: the task's definition, and the examples of the three sets."""
    parts = (sets.train, sets.select, sets.report)
    examples = ((e.id, e.text, e.answers, e.gold) for part in parts for e in part)
    beside = {"title", "instruction", "kind", "sources"} | (set() if task.definition.is_generation else {"target"})
    definition = task.definition.model_dump(mode="json", exclude=beside)
    return {"task": _digest([json.dumps(definition, sort_keys=True)]), "data": _digest(map(repr, examples))}


def model_inputs(
    recipe: Recipe, task: Task, backbone: Backbone, scoring: Scoring, encoded: Iterable[ScoredSet]
) -> Inputs:
    """The rest: weights, token ids of training and select sets, metric, and the files that a prompt begins with."""
    tokens = ((e.input_ids, e.answer_ids) for part in encoded for e in part.encoded)
    found = {
        "backbone": backbone.info.fingerprint,
        "tokens": _digest(map(repr, tokens)),
        "metric": f"{task.metric.name} of {scoring.score} scores",
    }
    if recipe.prompt.file is not None:
        found["prompt"] = _digest(map(repr, load_vectors(Path(recipe.prompt.file)).tolist()))
    if recipe.prompt.mask is not None:
        found["mask"] = _digest([repr(load_mask(Path(recipe.prompt.mask)).piece_PS.tolist())])
    return found


def hold(run: Store, now: Inputs) -> None:
    """Hold a run to what it was begun with; the first time, that is noted.

    Raises:
        SoftpruneError: when something has changed since.
    """
    begun = run.pin("inputs", lambda: now)
    changed = [name for name, value in now.items() if begun.get(name) != value]
    causes = [name for name in changed if not any(name in _FOLLOWS.get(cause, ()) for cause in changed)]
    if causes:
        told = " and ".join(_TOLD[name] for name in causes)
        raise SoftpruneError(
            f"{told} as {run.path} was begun with",
            f"{told} changed since",
            f"bring {'it' if len(causes) == 1 else 'them'} back, or start again with another --out",
        )


def _digest(parts: Iterable[str]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode())
    return found.hexdigest()[:16]
