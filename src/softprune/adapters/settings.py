"""The settings that a method has of its own accord, and what is wrong with a recipe for it."""

from __future__ import annotations

from importlib.util import find_spec

from softprune.adapters.base import AdapterPlan
from softprune.adapters.registry import METHODS
from softprune.config import LearningRate, Recipe
from softprune.errors import SoftpruneError
from softprune.models.description import BackboneDescription

WEIGHT_DECAY = 0.01
"""Of weights that are fine-tuned; what a method adds to a model has none."""


def settle_recipe(recipe: Recipe) -> Recipe:
    """The recipe with the method's own learning rate, AdamW, and all epochs, where it names no others."""
    method = METHODS[recipe.adapter.method]
    own = {
        "optimiser": "adamw",
        "lr": method.lr,
        "weight_decay": WEIGHT_DECAY if method.whole else 0.0,
        "patience": None,  # the step size falls to the end, so the end is worth waiting for
    }
    changed = {key: value for key, value in own.items() if key not in recipe.tuning.model_fields_set}
    return recipe.model_copy(update={"tuning": recipe.tuning.model_copy(update=changed)})


def make_plan(recipe: Recipe) -> AdapterPlan:
    """The method's setup as plain values."""
    training_keys = {"warmup", "decay", "clip_norm"}
    return AdapterPlan(tokens=recipe.virtual_tokens, **recipe.adapter.model_dump(exclude=training_keys))


def find_mistakes(recipe: Recipe, described: BackboneDescription) -> list[SoftpruneError]:
    """What keeps a recipe's method from this backbone; from its configuration alone."""
    from softprune.adapters.prefix import prefix_not_defined

    method, found = METHODS[recipe.adapter.method], []
    if not method.whole and find_spec("peft") is None:
        found.append(SoftpruneError(f"peft, for {method.name}", "not installed", "pip install 'softprune[methods]'"))
    if method.name in ("prefix", "p-tuning-v2"):
        reason = prefix_not_defined(described.config, described.family)
        if reason is not None:
            expected = f"a method that is defined for {described.name} ({described.family})"
            found.append(SoftpruneError(expected, f"{method.name}: {reason}", "choose another adapter.method"))
    if recipe.tuning.optimiser != "adamw":
        do = "leave tuning.optimiser out"
        found.append(SoftpruneError("tuning.optimiser=adamw for kind: adapt", recipe.tuning.optimiser, do))
    if isinstance(recipe.tuning.lr, LearningRate):
        do = f"write a number, such as tuning.lr={method.lr:g}"
        found.append(SoftpruneError(f"an absolute tuning.lr for {method.name}", "one relative to the embeddings", do))
    if not method.whole:
        return found
    for key in ("quantization", "device_map"):  # under either, weights can't be trained
        value = getattr(recipe.backbone, key)
        if value != "none":
            expected = f"backbone.{key}=none for {method.name}, which trains the weights"
            found.append(SoftpruneError(expected, value, f"leave backbone.{key} out"))
    if recipe.backbone.dtype == "float16":  # whose gradients would need to be scaled
        do = "set backbone.dtype to bfloat16 or float32"
        found.append(SoftpruneError(f"a dtype that {method.name} can train in", "float16", do))
    return found
