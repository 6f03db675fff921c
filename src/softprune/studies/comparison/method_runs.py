"""The runs of a comparison: which there are, and how each is made once."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Final

from rich.console import Console

from softprune.adapters.prefix import prefix_not_defined
from softprune.config import ADAPTERS, BackboneConfig, CompareRecipe, resolve
from softprune.errors import ManyErrors, SoftpruneError, explain_system_error
from softprune.models import describe
from softprune.runs.comparison_record import CellRecord
from softprune.studies.folder import CELLS, ComparisonFolder
from softprune.studies.run_cache import Spec, execute_run, under_heading
from softprune.studies.run_result import FinishedRun

# Methods that give every layer keys and values, which some architectures don't take.
_PREFIXES: Final = ("prefix", "p-tuning-v2")


def make_runs(
    recipe: CompareRecipe, folder: ComparisonFolder, command: str, console: Console | None
) -> dict[str, list[FinishedRun]]:
    """Make every run that isn't finished; by method, those of its seeds.

    A method is left out where the model has no place for it, or where its first run was refused before any work. Its
    reason goes into compare.json. Where the method has settings of its own, such a refusal may be theirs, and is
    raised.
    """
    specs = []
    # Every method on a seed before the next seed: what is there of an unfinished one compares.
    for seed, method in product(range(recipe.seed, recipe.seed + recipe.seeds), recipe.methods):
        values = recipe.cell(method, seed)
        own = resolve(base=values, where=f"recipe of {method}")
        specs.append((method, Spec(own.task.id, seed, f"{method}-{seed}", values, own)))
    reasons = refused_by_model(recipe.backbone, recipe.methods)
    errors: list[SoftpruneError] = []
    done: dict[str, list[FinishedRun]] = {}
    for number, (method, spec) in enumerate(specs, start=1):
        path = folder.path / CELLS / spec.folder
        if method not in reasons:
            try:
                with under_heading(console, f"{number} of {len(specs)}: {method}, seed {spec.seed}"):
                    execute_run(spec, path, command, console)
                done.setdefault(method, []).append(FinishedRun(path, spec.task, spec.seed))
            except SoftpruneError as error:
                if method in done:
                    raise
                _raise_unless_refused(recipe, method, path, error)
                errors.append(error)
                each = error.errors if isinstance(error, ManyErrors) else [error]
                reasons[method] = "; ".join(f"{one.found} (expected: {one.expected})" for one in each)
        status = "not defined" if method in reasons else "complete"
        cell = CellRecord(method=method, seed=spec.seed, status=status, reason=reasons.get(method))
        if folder.record.cells.get(spec.folder) != cell:
            with folder.editing() as record:
                record.cells[spec.folder] = cell
    if done:
        return done
    if len(errors) == len(recipe.methods) and len(set(map(str, errors))) == 1:
        raise errors[0]  # one mistake for all
    found = "; ".join(f"{method}: {reason}" for method, reason in reasons.items())
    raise SoftpruneError("a method that is defined for this backbone and task", found, "choose other methods")


def refused_by_model(settings: BackboneConfig, methods: Iterable[str]) -> dict[str, str]:
    """Why a backbone's architecture has no place for some of the methods, by their names."""
    described = describe(settings.name, settings.family, settings.revision, settings.trust_remote_code)
    prefixes = [method for method in methods if method in _PREFIXES]
    reason = prefix_not_defined(described.config, described.family) if prefixes else None
    return {} if reason is None else dict.fromkeys(prefixes, reason)


def _raise_unless_refused(recipe: CompareRecipe, method: str, path: Path, error: SoftpruneError) -> None:
    """An error of a method's first run, unless it says that the method isn't defined for this model and task."""
    is_begun, cause = (path / "run.json").exists(), error.__cause__
    if is_begun or (cause is not None and explain_system_error(cause) is not None):
        raise error  # a full disk or too little memory says nothing of the method
    adapter = recipe.adapter.model_dump(exclude_defaults=True, exclude={"method"}) if method in ADAPTERS else {}
    if not (adapter or recipe.settings.get(method)):
        return
    if isinstance(error, ManyErrors):
        raise ManyErrors(f"the recipe of {method}", error.errors) from error
    do = f"{error.do}, or leave {method} out of methods"
    raise SoftpruneError(f"{method}: {error.expected}", error.found, do) from error
