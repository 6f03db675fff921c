"""Compare methods from beginning to end, from the command line or from Python."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from rich.console import Console, Group

from softprune.config import CompareRecipe, load_config
from softprune.config.comparison_schema import keys_of
from softprune.config.schema import MEMORY_KEYS
from softprune.data import load_task
from softprune.errors import SoftpruneError
from softprune.pipelines.xprompt import PLACE_KEYS
from softprune.runs import atomic_io
from softprune.runs.environment import hardware, versions
from softprune.runs.folder_checks import SCHEMA, changed_keys, write_recipe, write_resolved
from softprune.runs.job import Finish
from softprune.runs.processes import hold_alone
from softprune.studies.comparison import texts
from softprune.studies.comparison.method_runs import MethodRun, make_runs
from softprune.studies.comparison.rows import build_rows, not_defined, reference_method
from softprune.studies.folder import CELLS, COMPARISON, StudyFolder, hold_folder, now, read_record

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
    """Run a comparison into a folder, or take up one that was cut off there; a complete one is left as it is.

    Args:
        recipe: validated settings.
        out: the folder.
        command: what the user typed.
        recipe_text: the recipe as it was given.
        finish: called with the folder before the comparison is marked complete (the command line draws the page).
        console: where progress is shown; None for silence.

    Returns:
        Whether anything was left to do.

    Raises:
        SoftpruneError: for anything that a user can fix. Finished runs are kept, and the same command goes on.
    """
    hold_alone("to compare methods")

    def begin(folder: StudyFolder) -> None:
        _begin_attempt(folder, recipe, command, recipe_text)

    def has_results() -> bool:
        return any((out / CELLS).glob("*/run.json"))

    with hold_folder(out, COMPARISON, begin, has_results) as folder:
        if folder.is_complete:
            return False
        runs = make_runs(recipe, folder, command, console)
        folder.record(**summary(recipe, runs, folder.info["cells"]))
        _write_texts(out, folder.info)
        if finish is not None:
            finish(out)
        folder.complete()
    return True


def _begin_attempt(folder: StudyFolder, recipe: CompareRecipe, command: str, recipe_text: str) -> None:
    """Begin a comparison, or go on with one that was begun with the same settings.

    Settings of a method that nothing was run with yet may be other ones: so they are fixed after a refusal.

    Raises:
        SoftpruneError: it was begun with another recipe.
    """
    path, resolved = folder.path, json.loads(json.dumps(recipe.resolved()))
    attempt: dict[str, Any] = {"started": now(), "command": command, "versions": versions()}
    if not folder.info:
        write_recipe(path, recipe_text, resolved)
        folder.record(
            schema=SCHEMA,
            kind="compare",
            status="running",
            error=None,
            command=command,
            started=attempt["started"],
            finished=None,
            attempts=[attempt],
            versions=attempt["versions"],
            hardware=hardware(),
            cells={},
        )
        return
    fixable = _fixable_keys(path, resolved)
    changed = changed_keys(path, resolved, {*MEMORY_KEYS, *PLACE_KEYS, *fixable})
    if folder.is_complete:
        return
    attempts = [*folder.info["attempts"], attempt | ({"changed": changed} if changed else {})]
    folder.record(status="running", error=None, finished=None, attempts=attempts)
    if changed or fixable:  # a key that is left out is no change to another value
        write_resolved(path, resolved)


def _fixable_keys(path: Path, resolved: Mapping[str, Any]) -> set[str]:
    """The keys in which `settings` differ of methods that nothing was run with yet; none of a complete comparison."""
    try:
        stored = yaml.safe_load((path / "resolved.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):  # changed_keys says so
        return set()
    before: dict[str, Any] = (stored.get("settings") if isinstance(stored, dict) else None) or {}
    after: dict[str, Any] = resolved.get("settings") or {}
    if before == after or (path / "COMPLETE").exists():
        return set()
    keys = set()
    for name in {**before, **after}:
        if not any((path / CELLS).glob(f"{name}-[0-9]*/run.json")):
            keys |= {"settings", f"settings.{name}"}
            for settings in (before, after):
                keys |= set(keys_of(settings[name], f"settings.{name}.")) if name in settings else set()
    return keys


def compare_methods(recipe: AnyRecipe, out: str | Path, *, console: Console | None = None) -> Path:
    """The comparison from Python. One that was cut off is taken up; a complete one is left as it is.

    Args:
        recipe: a `CompareRecipe`, the name or file of one, or its keys as a nested mapping.
        out: the folder.
        console: where progress is shown; None for silence.

    Returns:
        The folder: `compare.json` and the tables lie in it, and where matplotlib and jinja2 are there, the page.

    Raises:
        SoftpruneError: for anything that a user can fix.
    """
    read = recipe if isinstance(recipe, CompareRecipe) else load_config(CompareRecipe, recipe)

    def draw(folder: Path) -> None:
        with suppress(SoftpruneError):  # matplotlib or jinja2 isn't installed
            rewrite(folder)

    execute(read, Path(out), "python", read.dump(), finish=draw, console=console)
    return Path(out)


def summary(recipe: CompareRecipe, runs: Sequence[MethodRun], cells: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What compare.json holds in the end: every row with its statistics, and what they are of.

    Args:
        recipe: of the comparison.
        runs: the finished ones.
        cells: how each run ended, as compare.json has it.
    """
    metric, info = load_task(recipe.task.id).metric, runs[0].finished.info
    defined = [method for method in recipe.methods if any(run.method == method for run in runs)]
    return {
        "task": info["task"].get("title") or info["task"].get("id"),
        "backbone": info["backbone"]["name"],
        "family": info["backbone"]["family"],
        "metric": metric.name,
        "n": (info["task"].get("sizes") or {}).get("report"),
        "seeds": list(range(recipe.seed, recipe.seed + recipe.seeds)),
        "reference": reference_method(defined),
        "rows": build_rows(recipe, runs, metric),
        "not_defined": not_defined(recipe, cells),
    }


def rewrite(out: Path) -> Path:
    """Write the tables, figures and the page of a finished comparison again, from its compare.json.

    Returns:
        The page.

    Raises:
        SoftpruneError: it isn't finished, or matplotlib or jinja2 isn't installed.
    """
    found = read_record(out, COMPARISON)
    _write_texts(out, found)
    from softprune.studies.comparison.page import write_page

    return write_page(found, out)


def terminal(out: Path) -> Group:
    """The tables of a finished comparison.

    Raises:
        SoftpruneError: it isn't finished.
    """
    return texts.rich_text(read_record(out, COMPARISON))


def _write_texts(out: Path, found: Mapping[str, Any]) -> None:
    forms = {"csv": texts.csv_text, "md": texts.markdown, "tex": texts.latex_tables}
    for ending, form in forms.items():
        atomic_io.write_bytes(out / f"table.{ending}", form(found).encode("utf-8", errors="replace"))
