"""`compare` and `methods`: ways to adapt a model, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from softprune.cli.options import option_like
from softprune.cli.output import print_rich, say
from softprune.cli.recipes import read_recipe, run_job
from softprune.config import DEFAULT_RELATIVE_LR, CompareRecipe
from softprune.errors import SoftpruneError

if TYPE_CHECKING:
    from softprune.terminal import Table

HELP = "Adapt a model to a task in several ways, on several seeds, and compare what each gives and costs."
_Backbone = Annotated[str | None, option_like("--backbone", "none: without asking a model")]


def methods(backbone: _Backbone = None) -> None:
    """List the methods: what each trains, where it comes from, its learning rate, and where it is defined."""
    refused = None if backbone is None else _find_refused(backbone)
    print_rich(_list(refused))
    for method, reason in (refused or {}).items():
        say(f"{method}: not defined: {reason}")


def launch_compare(recipe_name: str | None, overrides: Sequence[str], out: Path | None) -> None:
    """Read a comparison's recipe, run it, and show what came of it."""
    from softprune.studies.comparison.runner import execute

    recipe, text = read_recipe(CompareRecipe, recipe_name, overrides)
    run_job(execute, recipe, out, text, finish=_finish, show=show_comparison_of)


def is_comparison(folder: Path) -> bool:
    """Whether a folder holds a comparison."""
    return (folder / "compare.json").is_file()


def report_comparison(folder: Path) -> None:
    """Writes a comparison's tables and page again, and shows the tables."""
    from softprune.studies.comparison.runner import rewrite

    rewrite(folder)
    show_comparison_of(folder)


def show_comparison_of(folder: Path) -> None:
    """Prints a comparison's tables, and where the page lies."""
    from softprune.studies.comparison.runner import terminal

    print_rich(terminal(folder))
    page = folder / "index.html"
    if page.exists():
        say(f"page: {page}; tables: {folder}/table.md, .csv, .tex")


def _finish(out: Path) -> None:
    """Draws the page; a comparison isn't lost because that can't be done."""
    from softprune.studies.comparison.runner import rewrite

    try:
        rewrite(out)
    except SoftpruneError as error:
        say("the comparison finished, but its page could not be written", err=True)
        say(f"{error}\nthen: softprune report {out}", err=True)


def _find_refused(backbone: str) -> dict[str, str]:
    """Why a backbone has no place for some of the methods, by their names."""
    from softprune.adapters.registry import METHODS
    from softprune.config.schema import BackboneConfig
    from softprune.studies.comparison.method_runs import refused_by_model

    return refused_by_model(BackboneConfig(name=backbone), METHODS)


def _list(refused: dict[str, str] | None) -> Table:
    from softprune.adapters.registry import METHODS
    from softprune.terminal import Table

    table = Table(box=None, pad_edge=False, header_style="bold underline")
    heads = ("method", "trains", "from", "learning rate", "kind", *(["here"] if refused is not None else []))
    for head in heads:
        table.add_column(head)
    for method in METHODS.values():
        rate = f"{DEFAULT_RELATIVE_LR} × RMS of embeddings" if method.lr is None else f"{method.lr:g}"
        here = [] if refused is None else ["not defined" if method.name in refused else "yes"]
        table.add_row(method.name, method.trains, method.source, rate, method.kind, *here)
    return table
