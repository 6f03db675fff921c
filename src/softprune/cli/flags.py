"""The flags of commands that run a recipe: each is a recipe key under a shorter name, the same one everywhere."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, cast

import typer
from pydantic import BaseModel

from softprune.cli.output import say
from softprune.config import CompareRecipe, Recipe, RecipeField, TokensRecipe, flat_fields

FLAGS = {
    "--backbone": "backbone.name",
    "--family": "backbone.family",
    "--dtype": "backbone.dtype",
    "--device": "backbone.device",
    "--threads": "backbone.threads",
    "--task": "task.id",
    "--data": "task.data",
    "--shots": "task.shots",
    "--limit-report": "task.limit_report",
    "--tokens": "prompt.tokens",
    "--pieces": "prompt.pieces",
    "--init": "prompt.init",
    "--init-text": "prompt.text",
    "--prompt-file": "prompt.file",
    "--epochs": "tuning.epochs",
    "--batch-size": "tuning.batch_size",
    "--optimiser": "tuning.optimiser",
    "--lr": "tuning.lr",
    "--loss": "tuning.loss",
    "--patience": "tuning.patience",
    "--removal": "pruning.removal",
    "--levels": "pruning.levels",
    "--scope": "pruning.scope",
    "--importance": "pruning.importance",
    "--strategy": "search.strategy",
    "--token-ratios": "search.token_ratios",
    "--piece-ratios": "search.piece_ratios",
    "--group": "search.group",
    "--protocol": "selection.protocol",
    "--objective": "selection.objective",
    "--seeds": "selection.seeds",
    "--seed": "seed",
    "--executor": "executor",
}
# Of one kind of run alone.
_OWN_FLAGS = {
    "adapt": {
        "--method": "adapter.method",
        "--rank": "adapter.rank",
        "--alpha": "adapter.alpha",
        "--dropout": "adapter.dropout",
    },
    "compare": {"--methods": "methods", "--seeds": "seeds", "--sweep": "tuning.sweep"},
    "tokens": {
        "--max-length": "task.max_length",
        "--lambdas": "pruning.lambdas",
        "--soft-epochs": "pruning.soft_epochs",
        "--hard-epochs": "pruning.hard_epochs",
        "--baselines": "pruning.baselines",
    },
}
# Keys that a kind's recipe may hold and that have no flag there: the beginnings of their names.
_PRUNING = ("prompt.pieces", "pruning.", "search.", "selection.objective", "selection.seeds", "executor")
_PROMPTS = ("prompt.init", "prompt.text", "prompt.file", "tuning.optimiser")
_WITHOUT_FLAG = {
    "tune": _PRUNING,
    "adapt": (*_PRUNING, *_PROMPTS),
    "compare": (*_PRUNING, *_PROMPTS, "tuning.lr", "tuning.loss"),
}
_RECIPES: dict[str, type[BaseModel]] = {"tokens": TokensRecipe, "compare": CompareRecipe}
# Old names that still work in this version, with a notice: by kind, the old flag and the new one.
_RENAMED = {"tokens": {"--model": "--backbone"}}


def flags_of(kind: str) -> dict[str, str]:
    """The flags of a kind of run, with their recipe keys."""
    keys = {field.key for field in flat_fields(_RECIPES.get(kind, Recipe))}
    flags = dict(_OWN_FLAGS.get(kind, {}))
    for flag, key in FLAGS.items():
        if key in keys and not key.startswith(_WITHOUT_FLAG.get(kind, ())):
            flags.setdefault(flag, key)
    return flags


def with_flags(command: Callable[..., None], kind: str, others: dict[str, Any]) -> Callable[..., None]:
    """A command that takes the flags of a kind of run, and others by name and annotation."""
    fields = {field.key: field for field in flat_fields(_RECIPES.get(kind, Recipe))}
    annotations = {_parameter_name(flag): _option(flag, fields[key]) for flag, key in flags_of(kind).items()}
    for flag in _RENAMED.get(kind, {}):
        annotations[_parameter_name(flag)] = Annotated[str | None, typer.Option(flag, hidden=True)]
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in (annotations | others).items()
    ]
    cast(Any, command).__signature__ = inspect.Signature(parameters)
    return command


def overrides_of(given: dict[str, Any], kind: str) -> list[str]:
    """What was given to a command with flags, as recipe keys: the flags, then what stands behind them."""
    keys, overrides = flags_of(kind), []
    for flag, new_flag in _RENAMED.get(kind, {}).items():
        if (value := given.get(_parameter_name(flag))) is not None:
            say(f"{flag} is now {new_flag}; the next version won't know the old name", err=True)
            overrides.append(f"{keys[new_flag]}={value}")
    for flag, key in keys.items():
        if (value := given.get(_parameter_name(flag))) is not None:
            overrides.append(f"{key}={value}")
    return overrides + (given["overrides"] or [])


def _parameter_name(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _option(flag: str, field: RecipeField) -> Any:
    """A flag that takes text: the recipe checks all values together and reports all mistakes at once."""
    metavar = field.type.removesuffix(" or none")
    metavar = f"[{metavar.replace(' ', '')}]" if "|" in metavar else metavar.upper()
    help_text = f"{field.description} ({field.key})"
    return Annotated[str | None, typer.Option(flag, metavar=metavar, help=help_text, show_default=False)]
