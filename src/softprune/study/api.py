"""Conduct a study from beginning to end, from the command line or from Python."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console, Group
from rich.text import Text

from softprune.errors import SoftpruneError
from softprune.recipe import Study, load_study
from softprune.registry import Registry
from softprune.runs import atomic
from softprune.runs.processes import hold_alone
from softprune.study.bench import Bench
from softprune.study.findings import Findings, Table, findings_of, starred
from softprune.study.folder import complete, read_study, record, study_folder
from softprune.study.texts import STAR, csv_text, markdown, published_tables, rich_table

Experiment = Callable[[Bench], Findings]
"""Makes the runs that it needs and tells what they show."""

EXPERIMENTS: Final[Registry[Experiment]] = Registry(
    "experiment",
    {
        "maps": "softprune.study.experiments.maps:conduct",
        "neighbours": "softprune.study.experiments.neighbours:conduct",
        "start_from_transfer": "softprune.study.experiments.start_from_transfer:conduct",
        "transfer": "softprune.study.experiments.transfer:conduct",
        "variants": "softprune.study.experiments.variants:conduct",
    },
)


def execute(
    study: Study, name: str, root: Path, command: str, *, console: Console | None = None, draw: bool = True
) -> Path:
    """Conduct a study, or take up one that was cut off; a complete one is left as it is.

    Args:
        study: validated settings.
        name: of the study, in its folder's name.
        root: the folder of all studies; their runs are shared there.
        command: what the user typed.
        console: where progress is shown; None for silence.
        draw: whether the page is written, which needs the extra `report`.

    Returns:
        The study's folder.

    Raises:
        SoftpruneError: for anything that a user can mend. What is done is kept, and the same command goes on.
    """
    hold_alone("to conduct studies")
    conduct = EXPERIMENTS[study.experiment]
    folder = folder_of(study, name, root)
    bench = Bench(study, root, folder, console)
    if not bench.tasks:
        raise SoftpruneError("tasks for a study", "none", "name some: --tasks trec,ag_news")
    for task in bench.tasks:  # mistakes in recipe keys are told before any work
        bench.spec(task, study.seed)
    with study_folder(folder, study, command) as info:
        if info is None:
            return folder
        begun = time.perf_counter()
        found = conduct(bench)
        info |= {"findings": found.document(), "seconds": info["seconds"] + time.perf_counter() - begun}
        record(folder, info)
        write_texts(folder, study, found)
        if draw:
            _draw(folder, study, info)
        complete(folder, info)
    return folder


def run_study(study: Study | str | Path, root: str | Path, *, console: Console | None = None) -> Path:
    """A study from Python: its name, its file, or its settings; see `execute`.

    Returns:
        Its folder: `study.json` and the tables lie in it, and where jinja2 and plotly are there, the page.
    """
    read = study if isinstance(study, Study) else load_study(study)
    name = Path(study).stem if isinstance(study, str | Path) else "study"
    return execute(read, name, Path(root), "python", console=console)


def folder_of(study: Study, name: str, root: Path) -> Path:
    """Where a study lies: its name, its model, its scale."""
    return root / f"{name}-{Path(study.size.backbone).name}-{study.scale}"


def rewrite(folder: Path) -> Path:
    """Write the tables and the page of a finished study anew, from its study.json.

    Returns:
        The page.

    Raises:
        SoftpruneError: it isn't finished, or jinja2 or plotly isn't installed.
    """
    study, info = load_study(folder / "resolved.yaml"), read_study(folder)
    write_texts(folder, study, findings_of(info["findings"]))
    from softprune.study.page import write_page

    return write_page(folder, study, info)


def terminal(folder: Path) -> Group:
    """What a finished study found, for a terminal.

    Raises:
        SoftpruneError: it isn't finished.
    """
    study, info = load_study(folder / "resolved.yaml"), read_study(folder)
    found = findings_of(info["findings"])
    tables = all_tables(study, found)
    said = [Text(sentence) for sentence in found.sentences] + ([Text(STAR)] if starred(tables) else [])
    return Group(Text(study.title, "bold"), Text(f"{study.question}\n{study.source}"), *map(rich_table, tables), *said)


def all_tables(study: Study, found: Findings) -> list[Table]:
    """Ours, then the source's."""
    return [*found.tables, *published_tables(study.published)]


def write_texts(folder: Path, study: Study, found: Findings) -> None:
    """The tables as Markdown and CSV, each in a file of its own."""
    for table in all_tables(study, found):
        texts = {"md": markdown(table), "csv": csv_text(table)}
        for ending, text in texts.items():
            atomic.write_bytes(folder / f"table-{table.name}.{ending}", text.encode("utf-8", errors="replace"))


def _draw(folder: Path, study: Study, info: Mapping[str, Any]) -> None:
    """The page; a study isn't lost because that can't be drawn."""
    try:
        from softprune.study.page import write_page
    except SoftpruneError:  # jinja2 or plotly isn't installed
        return
    write_page(folder, study, info)
