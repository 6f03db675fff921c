"""The settings that a method has of its own accord, and what is wrong with a recipe for it."""

from __future__ import annotations

from importlib.util import find_spec

from softprune.adapters.base import AdapterPlan
from softprune.adapters.registry import Method, method_named, not_defined
from softprune.config import LearningRate, Recipe
from softprune.errors import SoftpruneError
from softprune.models.description import BackboneDescription

WEIGHT_DECAY = 0.01
"""Of weights that are fine-tuned; what a method adds to a model has none."""


def method_of(recipe: Recipe) -> Method:
    """The method that a recipe of kind adapt names."""
    return method_named(recipe.adapter.method)


def settled(recipe: Recipe) -> Recipe:
    """The recipe with the method's own learning rate, AdamW, and all epochs, where it names no others."""
    method = method_of(recipe)
    own = {
        "optimiser": "adamw",
        "lr": method.lr,
        "weight_decay": WEIGHT_DECAY if method.whole else 0.0,
        "patience": None,  # the step size falls to the end, so the end is worth waiting for
    }
    changed = {key: value for key, value in own.items() if key not in recipe.tuning.model_fields_set}
    return recipe.model_copy(update={"tuning": recipe.tuning.model_copy(update=changed)})


def plan_of(recipe: Recipe) -> AdapterPlan:
    """The method's setup as plain values."""
    adapter = recipe.adapter
    return AdapterPlan(
        method=adapter.method,
        tokens=recipe.virtual_tokens,
        rank=adapter.rank,
        alpha=adapter.alpha,
        dropout=adapter.dropout,
        targets=adapter.targets,
        layers=adapter.layers,
        hidden=adapter.hidden,
        untie_head=adapter.untie_head,
    )


def mistakes(recipe: Recipe, described: BackboneDescription) -> list[SoftpruneError]:
    """What keeps a recipe's method from this backbone; from its configuration alone."""
    from softprune.adapters.prefix import prefix_not_defined

    method, found = method_of(recipe), []
    reason = not_defined(method.name, described.family)
    if not method.whole and find_spec("peft") is None:
        found.append(SoftpruneError(f"peft, for {method.name}", "not installed", "pip install 'softprune[methods]'"))
    if reason is None and method.name in ("prefix", "p-tuning-v2"):
        reason = prefix_not_defined(described.config, described.family)
    if reason is not None:
        expected = f"a method that is defined for {described.name} ({described.family})"
        found.append(SoftpruneError(expected, f"{method.name}: {reason}", "choose another adapter.method"))
    if recipe.tuning.optimiser != "adamw":
        found.append(
            SoftpruneError(
                "tuning.optimiser=adamw for kind: adapt", recipe.tuning.optimiser, "leave tuning.optimiser out"
            )
        )
    if isinstance(recipe.tuning.lr, LearningRate):
        do = f"write a number, such as tuning.lr={method.lr:g}"
        found.append(SoftpruneError(f"an absolute tuning.lr for {method.name}", "one relative to the embeddings", do))
    if method.whole:
        found += _weight_mistakes(recipe, method)
    return found


def _weight_mistakes(recipe: Recipe, method: Method) -> list[SoftpruneError]:
    """What keeps weights from being trained."""
    backbone = recipe.backbone
    given = {
        "backbone.quantization": (backbone.quantization, "none"),
        "backbone.device_map": (backbone.device_map, "none"),
    }
    found = [
        SoftpruneError(f"{key}={plain} for {method.name}, which trains the weights", value, f"leave {key} out")
        for key, (value, plain) in given.items()
        if value != plain
    ]
    if backbone.dtype == "float16":
        do = "set backbone.dtype to bfloat16 or float32"
        found.append(SoftpruneError(f"a dtype that {method.name} can train in", "float16", do))
    return found
