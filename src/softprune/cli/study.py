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

from softprune.cli.output import print_rich, progress_console, say
from softprune.cli.recipes import name_lookups
from softprune.config import load_study, shipped_studies
from softprune.errors import ManyErrors, SoftpruneError, gathered

HELP = "Studies: every experiment of the sources from one command, its table beside the published one."
_ROOT = Path("runs/studies")

_Name = Annotated[str, typer.Argument(metavar="NAME", help="A shipped study's name, or a YAML file.")]
_ALL = "all"
_Names = Annotated[str, typer.Argument(metavar="NAME", help="A shipped study's name, a YAML file, or all.")]
_NAMED = "The study's folder in --out. [default: NAME-MODEL-SCALE]"
_Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Keys of the study, or recipe keys of all its runs.", show_default=False),
]


def _flag(name: str, metavar: str, text: str) -> Any:
    return typer.Option(name, metavar=metavar, help=text, show_default=False)


def list_studies() -> None:
    """List the studies: what each asks, where it comes from, how long it takes."""
    from softprune.terminal import Table

    table = Table(box=None, pad_edge=False, header_style="bold underline")
    for head in ("study", "what", "from", "smoke, hours", "full, hours"):
        table.add_column(head)
    for name in shipped_studies():
        study = load_study(name)
        hours = [_shortly(study.scales[scale].hours) if scale in study.scales else "-" for scale in ("smoke", "full")]
        table.add_row(name, study.title, study.source, *hours)
    print_rich(table)


def _shortly(text: str) -> str:
    """A text up to its first comma, semicolon or full stop."""
    return re.split(r"[,;]|\. ", text, maxsplit=1)[0]


def show(name: _Name) -> None:
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


def run(
    name: _Names,
    overrides: _Overrides = None,
    backbone: Annotated[str | None, _flag("--backbone", "NAME", "The model. [default: the scale's]")] = None,
    scale: Annotated[str | None, _flag("--scale", "smoke|full", "How large it is made. [default: smoke]")] = None,
    tasks: Annotated[str | None, _flag("--tasks", "NAMES", "Ids of the tasks. [default: the scale's]")] = None,
    seeds: Annotated[str | None, _flag("--seeds", "N", "Runs of each sort. [default: the scale's]")] = None,
    data: Annotated[str | None, _flag("--data", "FOLDER", "The tasks' data. [default: from the hub]")] = None,
    executor: Annotated[
        str | None, _flag("--executor", "in-process|ray", "What makes the runs. [default: in-process]")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The folder of all studies and runs.")] = _ROOT,
    called: Annotated[str | None, _flag("--name", "FOLDER", _NAMED)] = None,
) -> None:
    """Conduct a study and show its tables beside the published ones; the same command again continues it."""
    from softprune.studies.runner import default_name, execute

    flags = {"backbone": backbone, "scale": scale, "tasks": tasks, "seeds": seeds, "data": data, "executor": executor}
    given = [f"{key}={value}" for key, value in flags.items() if value is not None]
    names = name_lookups()
    look_up: dict[str, Callable[[str], object]] = {
        "backbone": names["backbone.name"],
        "tasks": partial(_each, names["task.id"]),
    }
    if name == _ALL and called is not None:
        raise SoftpruneError("one study to go with --name", "all of them", "leave --name out: each has its own folder")
    each = shipped_studies() if name == _ALL else (name,)
    studies = [load_study(one, [*given, *(overrides or [])], names=look_up) for one in each]
    command, errors = shlex.join(["softprune", *sys.argv[1:]]), list[SoftpruneError]()
    for one, study in zip(each, studies, strict=True):
        folder = called or default_name(study, Path(one).stem)
        try:
            with gathered(errors):  # of all studies, those that can be made are
                show_study_of(execute(study, folder, out, command, console=progress_console()))
        except KeyboardInterrupt:
            say(f"stopped; {out} keeps what is done: run the same command to continue", err=True)
            raise typer.Exit(130) from None
    if errors:
        raise errors[0] if len(errors) == 1 else ManyErrors("the studies" if name == _ALL else f"study {name}", errors)


def _each(look_up: Callable[[str], object], names: str) -> None:
    """Looks up names between commas; the error lists every unknown one."""
    errors: list[SoftpruneError] = []
    for name in filter(None, map(str.strip, names.split(","))):
        with gathered(errors):
            look_up(name)
    if errors:
        raise ManyErrors("tasks", errors)


def is_study(folder: Path) -> bool:
    """Whether a folder holds a study."""
    return (folder / "study.json").is_file()


def report_study(folder: Path) -> None:
    """Writes a study's tables and page again, and shows the tables."""
    from softprune.studies.runner import rewrite

    rewrite(folder)
    show_study_of(folder)


def show_study_of(folder: Path) -> None:
    """Prints a study's tables, and where the page lies."""
    from softprune.studies.runner import terminal

    print_rich(terminal(folder))
    page = folder / "index.html"
    if page.exists():
        say(f"page: {page}; tables: {folder}/table-*.md, .csv")
