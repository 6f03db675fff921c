"""Compare methods from beginning to end, from the command line or from Python."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console, Group

from softprune.config import CompareRecipe, load_compare_recipe, resolve_compare
from softprune.data import load_task
from softprune.errors import SoftpruneError, of_the_machine
from softprune.pipelines.xprompt import PLACE_KEYS
from softprune.runs import atomic_io
from softprune.runs.folder_checks import unfinished
from softprune.runs.job import Finish
from softprune.runs.processes import hold_alone
from softprune.runs.record import RunRecord, read_record
from softprune.studies.comparison import tables
from softprune.studies.comparison.cells import Cell, run_cells
from softprune.studies.comparison.folder import CompareFolder, read_comparison
from softprune.studies.comparison.rows import not_defined, reference_of, rows_of
from softprune.training.oom_splitting import MEMORY_KEYS

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
    may_change = (*MEMORY_KEYS, *PLACE_KEYS)
    resolved = recipe.resolved()
    folder = CompareFolder.open(out, recipe_text=recipe_text, resolved=resolved, command=command, may_change=may_change)
    with folder:
        if folder.is_complete:
            return False
        try:
            cells = run_cells(recipe, folder, command, console)
            folder.record(**summary(recipe, cells, folder.info["cells"]))
            _write_texts(out, _finished(out))
            if finish is not None:
                finish(out)
            folder.complete()
        except Exception as error:
            told = error if isinstance(error, SoftpruneError) else of_the_machine(error)
            with suppress(OSError):  # a full disk may not even take the note
                folder.fail(str(told or error))
            if told is None or told is error:
                raise
            raise told from error
    return True


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
    if isinstance(recipe, CompareRecipe):
        read = recipe
    else:
        read = resolve_compare((), recipe) if isinstance(recipe, Mapping) else load_compare_recipe(recipe)

    def draw(folder: Path) -> None:
        with suppress(SoftpruneError):  # matplotlib or jinja2 isn't installed
            rewrite(folder)

    execute(read, Path(out), "python", read.dump(), finish=draw, console=console)
    return Path(out)


def summary(recipe: CompareRecipe, cells: list[Cell], told: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What compare.json holds in the end: every row with its statistics, and what they are of.

    Args:
        recipe: of the comparison.
        cells: the finished runs.
        told: how each run stands, as compare.json has it.
    """
    metric, record = load_task(recipe.task.id).metric, read_record(cells[0].path, RunRecord)
    defined = [method for method in recipe.methods if any(cell.method == method for cell in cells)]
    return {
        "task": record.task.title or record.task.id,
        "backbone": record.backbone.name,
        "family": record.backbone.family,
        "metric": metric.name,
        "n": None if record.task.sizes is None else record.task.sizes.report,
        "seeds": list(range(recipe.seed, recipe.seed + recipe.seeds)),
        "reference": reference_of(defined),
        "rows": rows_of(recipe, cells, metric),
        "not_defined": not_defined(recipe, told),
    }


def rewrite(out: Path) -> Path:
    """Write the tables, figures and the page of a finished comparison again, from its compare.json.

    Returns:
        The page.

    Raises:
        SoftpruneError: it isn't finished, or matplotlib or jinja2 isn't installed.
    """
    found = _finished(out)
    _write_texts(out, found)
    from softprune.studies.comparison.page import write_page

    return write_page(found, out)


def terminal(out: Path) -> Group:
    """The tables of a finished comparison.

    Raises:
        SoftpruneError: it isn't finished.
    """
    return tables.rich_tables(_finished(out))


def _finished(out: Path) -> dict[str, Any]:
    found = read_comparison(out)
    if "rows" not in found:
        raise unfinished(out, found, "comparison")
    return found


def _write_texts(out: Path, found: Mapping[str, Any]) -> None:
    texts = {"csv": tables.csv_text(found), "md": tables.markdown(found), "tex": tables.latex(found)}
    for ending, text in texts.items():
        atomic_io.write_bytes(out / f"table.{ending}", text.encode("utf-8", errors="replace"))
