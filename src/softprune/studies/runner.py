"""Conduct a study from beginning to end, from the command line or from Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console, Group

from softprune.config import Study, load_study
from softprune.config.registry import Registry
from softprune.data import load_task
from softprune.errors import ManyErrors, SoftpruneError, gathered
from softprune.runs import atomic_io
from softprune.runs.processes import hold_alone
from softprune.studies.findings import Findings, Table, load_findings, starred
from softprune.studies.folder import complete, read_study, record, study_folder
from softprune.studies.run_cache import safe
from softprune.studies.study_context import StudyContext
from softprune.studies.text_tables import STAR, csv_text, document, markdown, published_tables, rich_table
from softprune.terminal import literal

Experiment = Callable[[StudyContext], Findings]
"""Makes the runs that it needs and tells what they show."""

EXPERIMENTS: Final[Registry[Experiment]] = Registry(
    "experiment",
    {
        "ensembles": "softprune.studies.experiments.ensembles:conduct",
        "importance": "softprune.studies.experiments.importance:conduct",
        "importance-distribution": "softprune.studies.experiments.heatmaps:distribution",
        "importance-maps": "softprune.studies.experiments.heatmaps:maps",
        "maps": "softprune.studies.experiments.projections:conduct",
        "masking": "softprune.studies.experiments.masking:conduct",
        "models": "softprune.studies.experiments.models:conduct",
        "multitask": "softprune.studies.experiments.multitask:conduct",
        "neighbours": "softprune.studies.experiments.neighbours:conduct",
        "out-of-domain": "softprune.studies.experiments.out_of_domain:conduct",
        "reversed": "softprune.studies.experiments.reversed:conduct",
        "sizes": "softprune.studies.experiments.sizes:conduct",
        "start_from_transfer": "softprune.studies.experiments.start_from_transfer:conduct",
        "statistics": "softprune.studies.experiments.statistics:conduct",
        "transfer": "softprune.studies.experiments.transfer:conduct",
        "variants": "softprune.studies.experiments.variants:conduct",
    },
)


def execute(
    config: Study,
    name: str,
    root: Path,
    command: str,
    *,
    console: Console | None = None,
) -> Path:
    """Conduct a study, or take up one that was cut off; a complete one is left as it is.

    Args:
        config: validated settings.
        name: of the study's folder.
        root: the folder of all studies; their runs are shared there.
        command: what the user typed.
        console: where progress is shown; None for silence.

    Returns:
        The study's folder.

    Raises:
        SoftpruneError: for anything that a user can fix. What is done is kept, and the same command goes on.
    """
    hold_alone("to conduct studies")
    conduct = EXPERIMENTS[config.experiment]
    folder = root / name
    study = StudyContext(config, root.absolute(), folder, console)
    _check(study)
    with study_folder(folder, config, command) as info:
        if info is None:
            study.say(f"{folder} is complete: nothing was run; another --name begins a new study")
            return folder
        found = conduct(study)
        info |= {"findings": found.document(), **study.cost()}
        record(folder, info)
        write_texts(folder, config, read_study(folder))
        try:
            _draw(folder, config, info)
        except SoftpruneError as error:  # a study isn't lost because its page can't be drawn
            study.say(f"the study finished, but its page is missing\n{error}\nthen: softprune report {folder}")
        complete(folder, info)
    return folder


def run_study(study: Study | str | Path, root: str | Path, *, console: Console | None = None) -> Path:
    """A study from Python. One that was cut off is taken up; a complete one is left as it is.

    Args:
        study: the name or the file of one, or its settings.
        root: the folder of all studies, which share their runs there.
        console: where progress is shown; None for silence.

    Returns:
        Its folder: `study.json` and the tables lie in it, and where jinja2 and plotly are there, the page.

    Raises:
        SoftpruneError: for anything that a user can fix.
    """
    config = study if isinstance(study, Study) else load_study(study)
    name = Path(study).stem if isinstance(study, str | Path) else "study"
    return execute(config, default_name(config, name), Path(root), "python", console=console)


def default_name(config: Study, name: str) -> str:
    """A study's folder: what it is called, its model, its scale."""
    return "-".join((safe(name), safe(Path(config.size.backbone).name), config.scale))


def _check(study: StudyContext) -> None:
    """What can be told before any work: tasks there are, and recipe keys.

    Raises:
        SoftpruneError: with every mistake.
    """
    errors: list[SoftpruneError] = []
    if not study.tasks:
        errors.append(SoftpruneError("tasks for a study", "none", "name some: --tasks trec,ag_news"))
    for task in study.tasks:
        with gathered(errors):
            load_task(task)
            study.spec(task, study.config.seed)
    if errors:
        raise errors[0] if len(errors) == 1 else ManyErrors("study", errors)


def rewrite(folder: Path) -> Path:
    """Write the tables and the page of a finished study again, from its study.json.

    Returns:
        The page.

    Raises:
        SoftpruneError: it isn't finished, or jinja2 or plotly isn't installed.
    """
    config, info = load_study(folder / "resolved.yaml"), read_study(folder)
    write_texts(folder, config, info)
    return _draw(folder, config, info)


def terminal(folder: Path) -> Group:
    """What a finished study found, for a terminal.

    Raises:
        SoftpruneError: it isn't finished.
    """
    config, info = load_study(folder / "resolved.yaml"), read_study(folder)
    found = load_findings(info["findings"])
    tables = all_tables(config, found)
    said = [*found.sentences, *([STAR] if starred(tables) else [])]
    head = [literal(text) for text in (config.question, config.source) if text]
    return Group(literal(config.title, "bold"), *head, *map(rich_table, tables), *map(literal, said))


def all_tables(config: Study, found: Findings) -> list[Table]:
    """Ours, then the source's."""
    return [*found.tables, *published_tables(config.published)]


def write_texts(folder: Path, config: Study, info: Mapping[str, Any]) -> None:
    """All of it as study.md; the tables as Markdown and CSV, each in a file of its own."""
    found = load_findings(info["findings"])
    whole = document(config, info, all_tables(config, found), found.sentences)
    atomic_io.write_bytes(folder / "study.md", whole.encode("utf-8", errors="replace"))
    for table in all_tables(config, found):
        texts = {"md": markdown(table), "csv": csv_text(table)}
        for ending, text in texts.items():
            atomic_io.write_bytes(folder / f"table-{safe(table.name)}.{ending}", text.encode("utf-8", errors="replace"))


def _draw(folder: Path, config: Study, info: Mapping[str, Any]) -> Path:
    from softprune.studies.page import write_page

    return write_page(folder, config, info)
