"""The runs of a comparison: which there are, and how each is made once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from softprune.adapters.prefix import prefix_not_defined
from softprune.config import ADAPTERS, BackboneConfig, CompareRecipe, Recipe, resolve
from softprune.config.yaml_io import yaml_text
from softprune.errors import ManyErrors, SoftpruneError, of_the_machine
from softprune.models import describe
from softprune.studies.execution import execute_run, headed
from softprune.studies.folder import CELLS, StudyFolder
from softprune.studies.run_result import FinishedRun

_PREFIXES: Final = ("prefix", "p-tuning-v2")
"""Methods that give every layer keys and values, which some architectures don't take."""


@dataclass(frozen=True, slots=True)
class MethodRun:
    """One run of a comparison: a method on a seed.

    Attributes:
        method: its name.
        recipe: its own.
        text: the keys of it that were named, as YAML.
        path: its folder.
    """

    method: str
    recipe: Recipe
    text: str
    path: Path

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.recipe.seed

    @property
    def finished(self) -> FinishedRun:
        """What it left."""
        return FinishedRun(self.path, self.recipe.task.id, self.seed)


def list_runs(recipe: CompareRecipe, out: Path) -> list[MethodRun]:
    """All runs, every method on a seed before the next seed: what is there of an unfinished one compares."""
    runs = []
    for seed, method in product(range(recipe.seed, recipe.seed + recipe.seeds), recipe.methods):
        values = recipe.cell(method, seed)
        own = resolve(base=values, where=f"recipe of {method}")
        runs.append(MethodRun(method, own, yaml_text(values), out / CELLS / f"{method}-{seed}"))
    return runs


def make_runs(recipe: CompareRecipe, folder: StudyFolder, command: str, console: Console | None) -> list[MethodRun]:
    """Make every run that isn't finished; those that are defined, in order.

    A method is left out where the model has no place for it, or where its first run was refused before any work. Its
    reason goes into compare.json. Where the method has settings of its own, such a refusal may be theirs, and is
    raised.

    Raises:
        SoftpruneError: of a run that fails otherwise; or where no method is left.
    """
    runs, reasons = list_runs(recipe, folder.path), refused_by_model(recipe.backbone, recipe.methods)
    errors: list[SoftpruneError] = []
    done: list[MethodRun] = []
    for number, run in enumerate(runs, start=1):
        if run.method in reasons:
            _note(folder, run, "not defined", reasons[run.method])
            continue
        with headed(console, f"{number} of {len(runs)}: {run.method}, seed {run.seed}"):
            error = _try_run(run, command, console)
        if error is None:
            done.append(run)
            _note(folder, run, "complete")
        elif any(other.method == run.method for other in done):
            raise error
        elif _has_settings(recipe, run.method):
            raise _name_method(run.method, error) from error
        else:
            errors.append(error)
            reasons[run.method] = _reason(error)
            _note(folder, run, "not defined", reasons[run.method])
    if not done:
        raise _no_method_left(recipe, errors, reasons)
    return done


def refused_by_model(settings: BackboneConfig, methods: Iterable[str]) -> dict[str, str]:
    """Why a backbone's architecture has no place for some of the methods, by their names."""
    described = describe(settings.name, settings.family, settings.revision, settings.trust_remote_code)
    prefixes = [method for method in methods if method in _PREFIXES]
    reason = prefix_not_defined(described.config, described.family) if prefixes else None
    return {} if reason is None else dict.fromkeys(prefixes, reason)


def _has_settings(recipe: CompareRecipe, method: str) -> bool:
    """Whether the user named keys for this method: in `settings`, or of all adapters."""
    adapter = recipe.adapter.model_dump(exclude_defaults=True, exclude={"method"}) if method in ADAPTERS else {}
    return bool(adapter or recipe.settings.get(method))


def _name_method(method: str, error: SoftpruneError) -> SoftpruneError:
    """A refusal with the name of the method whose settings may have caused it."""
    if isinstance(error, ManyErrors):
        return ManyErrors(f"the recipe of {method}", error.errors)
    return SoftpruneError(f"{method}: {error.expected}", error.found, f"{error.do}, or leave {method} out of methods")


def _try_run(run: MethodRun, command: str, console: Console | None) -> SoftpruneError | None:
    """Make a run; returns why it was refused, where nothing was begun."""
    try:
        execute_run(run.recipe, run.path, command, run.text, console)
    except SoftpruneError as error:
        is_begun, cause = (run.path / "run.json").exists(), error.__cause__
        if is_begun or (cause is not None and of_the_machine(cause) is not None):
            raise  # a full disk or too little memory says nothing of the method
        return error
    return None


def _note(folder: StudyFolder, run: MethodRun, status: str, reason: str | None = None) -> None:
    cells: dict[str, Any] = folder.info["cells"]
    entry = {"method": run.method, "seed": run.seed, "status": status, "reason": reason}
    if cells.get(run.path.name) != entry:
        folder.record(cells={**cells, run.path.name: entry})


def _reason(error: SoftpruneError) -> str:
    """Why a run was refused, in one line."""
    errors: Sequence[SoftpruneError] = error.errors if isinstance(error, ManyErrors) else [error]
    return "; ".join(f"{each.found} (expected: {each.expected})" for each in errors)


def _no_method_left(recipe: CompareRecipe, errors: Sequence[SoftpruneError], reasons: dict[str, str]) -> SoftpruneError:
    """Where no run could be made: the mistake, if it is the same for all."""
    texts = list(dict.fromkeys(map(str, errors)))
    if len(texts) == 1 and len(errors) == len(recipe.methods):
        return errors[0]
    found = "; ".join(f"{method}: {reason}" for method, reason in reasons.items())
    return SoftpruneError("a method that is defined for this backbone and task", found, "choose other methods")
