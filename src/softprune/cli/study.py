"""`study list`, `study show`, `study run`: the experiments of the sources, each from one command."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from softprune.cli.inspect import show_study
from softprune.cli.options import option, read_overrides, with_flags
from softprune.cli.output import print_rich, progress_console, say
from softprune.cli.train import name_lookups, stop
from softprune.config import list_shipped, load_study
from softprune.errors import ManyErrors, SoftpruneError, gathered, join_errors

HELP = "Studies: every experiment of the sources from one command, its table beside the published one."
_ALL = "all"
_RUN_OPTIONS = {
    "name": Annotated[str, typer.Argument(metavar="NAME", help="A shipped study's name, a YAML file, or all.")],
    "overrides": Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Keys of the study, or recipe keys of all its runs."),
    ],
    "out": Annotated[Path | None, option("--out", "FOLDER", "For all studies and runs. [default: runs/studies]")],
    "folder": Annotated[
        str | None, option("--name", "FOLDER", "The study's folder in --out. [default: NAME-MODEL-SCALE]")
    ],
}


def list_studies() -> None:
    """List the studies: what each asks, where it comes from, how long it takes."""
    from softprune.terminal import Table

    heads = ("study", "what", "from", "smoke, hours", "full, hours")
    table = Table(*heads, box=None, pad_edge=False, header_style="bold underline")
    for name in list_shipped("study"):
        study, hours = load_study(name), []
        for scale in ("smoke", "full"):
            size = study.scales.get(scale)
            hours.append("-" if size is None else re.split(r"[,;]|\. ", size.hours, maxsplit=1)[0])
        table.add_row(name, study.title, study.source, *hours)
    print_rich(table)


def show(name: Annotated[str, typer.Argument(metavar="NAME", help="A shipped study's name, or a YAML file.")]) -> None:
    """Show a study: its question, its scales with hardware and hours, the published tables."""
    from softprune.studies.tables import published_tables, rich_table

    study = load_study(name)
    say("\n".join(filter(None, (study.title, study.question, study.source and f"from: {study.source}"))) + "\n")
    for scale, size in study.scales.items():
        many = f"{size.seeds} {'seed' if size.seeds == 1 else 'seeds'}"
        on = f" on {', '.join(size.tasks)}" if size.tasks else ""
        place = ": ".join(filter(None, (size.hardware, size.takes)))
        say(f"{scale}: {size.backbone}{on}, {many}" + (f"; {place}" if place else ""))
    for table in published_tables(study.published):
        say()
        print_rich(rich_table(table))


@with_flags("study", _RUN_OPTIONS)
def run(**given: Any) -> None:
    """Conduct a study and show its tables beside the published ones; the same command again continues it."""
    from softprune.studies.runner import default_name, execute

    name, out, overrides = given["name"], given["out"] or Path("runs/studies"), read_overrides(given, "study")
    if name == _ALL and given["folder"] is not None:
        raise SoftpruneError("one study to go with --name", "all of them", "leave --name out: each has its own folder")
    lookups = name_lookups()
    names: dict[str, Callable[[str], object]] = {
        "backbone": lookups["backbone.name"],
        "tasks": partial(_look_up_each, lookups["task.id"]),
    }
    chosen = list_shipped("study") if name == _ALL else (name,)
    # All are read before the first begins: a mistake in any ends the command.
    studies = {each: load_study(each, overrides, names=names) for each in chosen}
    command, errors = shlex.join(["softprune", *sys.argv[1:]]), list[SoftpruneError]()
    for each, study in studies.items():
        folder = given["folder"] or default_name(study, Path(each).stem)
        try:
            with gathered(errors):  # one that fails doesn't keep the others from being run
                show_study(execute(study, folder, out, command, console=progress_console()))
        except KeyboardInterrupt:
            raise stop(out) from None
    if errors:
        raise join_errors("the studies" if name == _ALL else f"study {name}", errors)


def _look_up_each(look_up: Callable[[str], object], names: str) -> None:
    """Looks up names between commas; the error lists every unknown one."""
    errors: list[SoftpruneError] = []
    for name in filter(None, map(str.strip, names.split(","))):
        with gathered(errors):
            look_up(name)
    if errors:
        raise ManyErrors("tasks", errors)
