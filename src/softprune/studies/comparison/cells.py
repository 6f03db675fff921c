"""The runs of a comparison: which there are, and how each is made once."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from rich.console import Console

from softprune.adapters.prefix import prefix_not_defined
from softprune.adapters.registry import not_defined
from softprune.config import ADAPTERS, BackboneConfig, CompareRecipe, Recipe, resolve
from softprune.config.registry import Registry
from softprune.config.yaml_io import yaml_text
from softprune.errors import ManyErrors, SoftpruneError, of_the_machine
from softprune.models import describe
from softprune.studies.comparison.folder import CELLS, CompareFolder
from softprune.studies.comparison.heading import headed
from softprune.training.free_memory import give_back

Execute = Callable[..., bool]

EXECUTE: Final[Registry[Execute]] = Registry(
    "kind of run",
    {
        "tune": "softprune.pipelines.xprompt:execute",
        "xprompt": "softprune.pipelines.xprompt:execute",
        "adapt": "softprune.pipelines.adapt:execute",
    },
)

_PREFIXES: Final = ("prefix", "p-tuning-v2")
"""Methods that give every layer keys and values, which some architectures don't take."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a comparison.

    Attributes:
        method: its name.
        seed: of the run.
        recipe: its own.
        text: the keys of it that were named, as YAML.
        path: its folder.
    """

    method: str
    seed: int
    recipe: Recipe
    text: str
    path: Path

    @property
    def name(self) -> str:
        """As the folder has it."""
        return self.path.name


def cells_of(recipe: CompareRecipe, out: Path) -> list[Cell]:
    """All runs, every method on a seed before the next seed: what is there of an unfinished one compares."""
    return [
        Cell(
            method=method,
            seed=seed,
            recipe=resolve(base=recipe.cell(method, seed), where=f"recipe of {method}"),
            text=yaml_text(recipe.cell(method, seed)),
            path=out / CELLS / f"{method}-{seed}",
        )
        for seed in range(recipe.seed, recipe.seed + recipe.seeds)
        for method in recipe.methods
    ]


def run_cells(recipe: CompareRecipe, folder: CompareFolder, command: str, console: Console | None) -> list[Cell]:
    """Make every run that isn't finished; those that are defined, in order.

    A method is left out where the model has no place for it, or where its first run was refused before any work. Its
    reason goes into compare.json. Where the method has settings of its own, such a refusal may be theirs, and is told.

    Raises:
        SoftpruneError: of a run that fails otherwise; or where no method is left.
    """
    cells, refused = cells_of(recipe, folder.path), refused_by_model(recipe.backbone, recipe.methods)
    errors: list[SoftpruneError] = []
    done: list[Cell] = []
    for number, cell in enumerate(cells, start=1):
        if cell.method in refused:
            _note(folder, cell, "not defined", refused[cell.method])
            continue
        with headed(console, f"{number} of {len(cells)}: {cell.method}, seed {cell.seed}"):
            error = _run(cell, command, console)
        if error is None:
            done.append(cell)
            _note(folder, cell, "complete")
        elif any(other.method == cell.method for other in done):
            raise error
        elif _has_settings(recipe, cell.method):
            raise _of_settings(cell.method, error) from error
        else:
            errors.append(error)
            refused[cell.method] = _reason(error)
            _note(folder, cell, "not defined", refused[cell.method])
    if not done:
        raise _nothing(recipe, errors, refused)
    return done


def refused_by_model(settings: BackboneConfig, methods: Iterable[str]) -> dict[str, str]:
    """Why a backbone's family or architecture has no place for some of the methods, by their names."""
    described = describe(settings.name, settings.family, settings.revision, settings.trust_remote_code)
    reasons = {method: not_defined(method, described.family) for method in methods}
    if not set(_PREFIXES).isdisjoint(reasons):
        reason = prefix_not_defined(described.config, described.family)
        reasons |= {method: reasons[method] or reason for method in _PREFIXES if method in reasons}
    return {method: reason for method, reason in reasons.items() if reason is not None}


def _has_settings(recipe: CompareRecipe, method: str) -> bool:
    """Whether the user named keys for this method: in `settings`, or of all adapters."""
    adapter = recipe.adapter.model_dump(exclude_defaults=True, exclude={"method"}) if method in ADAPTERS else {}
    return bool(adapter or recipe.settings.get(method))


def _of_settings(method: str, error: SoftpruneError) -> SoftpruneError:
    """A refusal, with the name of the method whose settings it may be of."""
    if isinstance(error, ManyErrors):
        return ManyErrors(f"the recipe of {method}", error.errors)
    return SoftpruneError(f"{method}: {error.expected}", error.found, f"{error.do}, or leave {method} out of methods")


def _run(cell: Cell, command: str, console: Console | None) -> SoftpruneError | None:
    """Make a run, or leave it as it is where it is complete; why it was refused, where nothing was begun."""
    forget()
    execute = EXECUTE[cell.recipe.kind]
    try:
        execute(cell.recipe, cell.path, command, cell.text, finish=None, console=console)
    except SoftpruneError as error:
        cause = error.__cause__
        if _begun(cell) or (cause is not None and of_the_machine(cause) is not None):
            raise  # a full disk or too little memory says nothing of the method
        return error
    return None


def _begun(cell: Cell) -> bool:
    return (cell.path / "run.json").exists()


def forget() -> None:
    """What an earlier run held must not count as memory of the next."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    give_back()


def _note(folder: CompareFolder, cell: Cell, status: str, reason: str | None = None) -> None:
    cells: dict[str, Any] = folder.info["cells"]
    told = {"method": cell.method, "seed": cell.seed, "status": status, "reason": reason}
    if cells.get(cell.name) != told:
        folder.record(cells={**cells, cell.name: told})


def _reason(error: SoftpruneError) -> str:
    """Why a run was refused, in one line."""
    errors: Sequence[SoftpruneError] = error.errors if isinstance(error, ManyErrors) else [error]
    return "; ".join(f"{each.found} (expected: {each.expected})" for each in errors)


def _nothing(recipe: CompareRecipe, errors: Sequence[SoftpruneError], refused: dict[str, str]) -> SoftpruneError:
    """Where no run could be made: the mistake, if it is the same for all."""
    texts = list(dict.fromkeys(map(str, errors)))
    if len(texts) == 1 and len(errors) == len(recipe.methods):
        return errors[0]
    found = "; ".join(f"{method}: {reason}" for method, reason in refused.items())
    return SoftpruneError("a method that is defined for this backbone and task", found, "choose other methods")
