"""Compare methods from beginning to end, from the command line or from Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console, Group

from softprune.adapters.registry import why_not_defined
from softprune.config import ADAPTERS, BackboneConfig, CompareRecipe, load_config, resolve
from softprune.config.schema import MEMORY_KEYS
from softprune.data import load_task
from softprune.errors import ManyErrors, SoftpruneError, explain_system_error
from softprune.models import describe
from softprune.pipelines.xprompt import PLACE_KEYS
from softprune.runs.comparison_record import CellRecord, ComparisonRecord
from softprune.runs.job import Finish
from softprune.runs.job_folder import JSON, changed_keys, find_differences, read_resolved
from softprune.runs.processes import hold_alone
from softprune.runs.record import read_record
from softprune.studies.comparison import texts
from softprune.studies.comparison.rows import build_rows, gather, reference_method
from softprune.studies.folder import CELLS, ComparisonFolder, read_finished, write_texts
from softprune.studies.run_cache import Spec, execute_run, under_heading
from softprune.studies.run_result import FinishedRun

AnyRecipe: TypeAlias = CompareRecipe | Mapping[str, Any] | str | Path


def execute(
    recipe: CompareRecipe,
    out: Path,
    command: str,
    recipe_text: str,
    *,
    finish: Finish | None = None,
    console: Console | None = None,
) -> bool:
    """Run a comparison into a folder; arguments, result and errors as of `pipelines.xprompt.execute`."""
    hold_alone("to compare methods")
    folder = ComparisonFolder.open_job(
        out,
        ComparisonRecord,
        lambda: ComparisonRecord.begin("compare", command, cells={}),
        recipe_text=recipe_text,
        resolved=recipe.resolved(),
        command=command,
        check=_check_recipe,
    )
    with folder.hold():
        if folder.is_complete:
            return False
        runs = _make_runs(recipe, folder, command, console)
        rows = gather(runs)
        metric, first = load_task(recipe.task.id).metric, rows[0].runs[0].record
        cells = folder.record.cells.values()
        reasons = {cell.method: str(cell.reason) for cell in cells if cell.status == "not defined"}
        with folder.editing() as record:
            record.task = first.task.title or first.task.id
            record.backbone, record.family = first.backbone.name, first.backbone.family
            record.metric = metric.name
            record.n = None if first.task.sizes is None else first.task.sizes.report
            record.seeds = list(range(recipe.seed, recipe.seed + recipe.seeds))
            record.reference = reference_method(rows)
            record.rows = build_rows(rows, metric, seed=recipe.seed, resamples=recipe.selection.resamples)
            record.not_defined = {method: reasons[method] for method in recipe.methods if method in reasons}
        _write_tables(out)
        if finish is not None:
            finish(out)
        folder.complete()
    return True


def _make_runs(
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
    reasons = {name: why_not_defined(name, described) for name in methods}
    return {name: reason for name, reason in reasons.items() if reason is not None}


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


def _check_recipe(path: Path, resolved: dict[str, Any]) -> dict[str, JSON]:
    """Hold a comparison to the recipe that it was begun with; what may change and does, as of `changed_keys`.

    Settings of a method that nothing was run with yet may be other ones: so they are fixed after a refusal.
    """
    differ = find_differences(read_resolved(path), resolved)
    fixable: set[str] = set()
    if read_record(path, ComparisonRecord).status != "complete":
        begun = {file.parent.name.rpartition("-")[0] for file in (path / CELLS).glob("*/run.json")}
        for key in differ:
            section, _, rest = key.partition(".")  # `settings` alone is a mapping without any method
            if section == "settings" and rest.partition(".")[0] not in begun:
                fixable.add(key)
    changed = changed_keys(path, resolved, {*MEMORY_KEYS, *PLACE_KEYS, *fixable})
    # A setting that was left out asks for no other value, but resolved.yaml has to lose it.
    return changed | {key: [differ[key][0], None] for key in fixable if key not in changed}


def compare_methods(recipe: AnyRecipe, out: str | Path, *, console: Console | None = None) -> Path:
    """The comparison from Python. One that was interrupted is resumed; a complete one is left as it is.

    Args:
        recipe: a `CompareRecipe`, the name or file of one, or its keys as a nested mapping.
        out: the folder.
        console: where progress is shown; None for silence.

    Returns:
        The folder: `compare.json` and the tables lie in it, and where matplotlib and jinja2 are there, the page.

    Raises:
        SoftpruneError: for anything that a user can fix.
    """
    settings = recipe if isinstance(recipe, CompareRecipe) else load_config(CompareRecipe, recipe)

    def draw(folder: Path) -> None:
        with suppress(SoftpruneError):  # matplotlib or jinja2 isn't installed
            rewrite(folder)

    execute(settings, Path(out), "python", settings.dump(), finish=draw, console=console)
    return Path(out)


def rewrite(out: Path) -> Path:
    """Write the tables, figures and the page of a finished comparison again, from its compare.json; the page's path.

    Raises:
        SoftpruneError: it isn't finished, or matplotlib or jinja2 isn't installed.
    """
    record = _write_tables(out)
    from softprune.studies.comparison.page import write_page

    return write_page(record, out)


def terminal(out: Path) -> Group:
    """The tables of a finished comparison.

    Raises:
        SoftpruneError: it isn't finished.
    """
    return texts.rich_text(read_finished(out, ComparisonRecord))


def _write_tables(out: Path) -> ComparisonRecord:
    """The record is read back, so that tables of a new comparison and of an old one are the same bytes."""
    record = read_finished(out, ComparisonRecord)
    csv, markdown, latex = texts.csv_text(record), texts.markdown(record), texts.latex_tables(record)
    write_texts(out, {"table.csv": csv, "table.md": markdown, "table.tex": latex})
    return record
