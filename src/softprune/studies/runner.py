"""Conduct a study from beginning to end, from the command line or from Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console, Group

from softprune.config import Study, load_study
from softprune.config.registry import Registry
from softprune.data import load_task
from softprune.errors import SoftpruneError, gathered, join_errors
from softprune.runs.comparison_record import StudyRecord
from softprune.runs.job_folder import JSON, describe_differences, find_differences, find_free_path, read_resolved
from softprune.runs.processes import hold_alone
from softprune.runs.record import read_record
from softprune.studies.findings import Findings, Table, has_stars, load_findings
from softprune.studies.folder import WORK, StudyFolder, read_finished, safe, write_texts
from softprune.studies.study_context import StudyContext
from softprune.studies.tables import STAR, csv_text, markdown, published_tables, rich_table, study_markdown
from softprune.terminal import literal

Experiment = Callable[[StudyContext], Findings]  # makes the runs that it needs and returns what they show

EXPERIMENTS: Final[Registry[Experiment]] = Registry(
    "experiment",
    {
        "ensembles": "softprune.studies.experiments.ensembles:conduct",
        "importance": "softprune.studies.experiments.importance:conduct",
        "importance-distribution": "softprune.studies.experiments.heatmaps:distribution",
        "importance-maps": "softprune.studies.experiments.heatmaps:maps",
        "maps": "softprune.studies.experiments.projections:conduct",
        "masking": "softprune.studies.experiments.masking:conduct",
        "models": "softprune.studies.experiments.variants:conduct_models",
        "multitask": "softprune.studies.experiments.multitask:conduct",
        "neighbours": "softprune.studies.experiments.neighbours:conduct",
        "out-of-domain": "softprune.studies.experiments.out_of_domain:conduct",
        "reversed": "softprune.studies.experiments.reversed:conduct",
        "sizes": "softprune.studies.experiments.variants:conduct_sizes",
        "start_from_transfer": "softprune.studies.experiments.start_from_transfer:conduct",
        "statistics": "softprune.studies.experiments.statistics:conduct",
        "transfer": "softprune.studies.experiments.transfer:conduct",
        "variants": "softprune.studies.experiments.variants:conduct",
    },
)


def execute(config: Study, name: str, root: Path, command: str, *, console: Console | None = None) -> Path:
    """Conduct a study, or resume one that was interrupted; a complete one is left as it is. Returns its folder.

    Raises:
        SoftpruneError: for anything that a user can fix. What is done is kept, and the same command goes on.
    """
    hold_alone("to conduct studies")
    conduct = EXPERIMENTS[config.experiment]
    path = root / name
    study = StudyContext(config, root.absolute(), path, console)
    _check_tasks(study)
    folder = StudyFolder.open_job(
        path,
        StudyRecord,
        lambda: StudyRecord.begin("study", command),
        recipe_text=None,
        resolved=config.resolved(),
        command=command,
        check=partial(_check_settings, config),
    )
    with folder.hold():
        if folder.is_complete:
            study.say(f"{path} is complete: nothing was run; another --name begins a new study")
            return path
        with folder.editing() as record:  # a study without work may go on with other ones
            record.tasks, record.backbone = list(config.size.tasks), config.size.backbone
        findings = conduct(study)
        with folder.editing() as record:
            record.findings, record.runs, record.work = findings.document(), study.list_runs(), study.list_work()
        try:
            rewrite(path)
        except SoftpruneError as error:  # a study isn't lost because its page can't be drawn
            study.say(f"the study finished, but its page is missing\n{error}\nthen: softprune report {path}")
        folder.complete()
    return path


def _check_tasks(study: StudyContext) -> None:
    """Checks what can be checked before any work, the tasks and the recipe keys; the error has every mistake."""
    errors: list[SoftpruneError] = []
    if not study.tasks:
        errors.append(SoftpruneError("tasks for a study", "none", "name some: --tasks trec,ag_news"))
    for task in study.tasks:
        with gathered(errors):
            load_task(task)
            study.spec(task, study.config.seed)
    if errors:
        raise join_errors("study", errors)


def _check_settings(config: Study, path: Path, resolved: dict[str, Any]) -> dict[str, JSON]:
    """Hold a study to its settings once anything in its folder depends on them; what changes, with old and new values.

    Runs don't count: they are named after their own recipes.
    """
    differ = find_differences(load_study(path / "resolved.yaml").matters, config.matters)
    has_work = read_record(path, StudyRecord).status == "complete" or any((path / WORK).glob("*"))
    if differ and has_work:
        free = find_free_path(path).name
        do = f"choose another name in the same --out, such as --name {free}: finished runs are shared"
        raise SoftpruneError(f"the settings that {path} was begun with", describe_differences(differ), do)
    return {key: list(pair) for key, pair in find_differences(read_resolved(path), resolved).items()}


def run_study(study: Study | str | Path, root: str | Path, *, console: Console | None = None) -> Path:
    """A study from Python. One that was interrupted is resumed; a complete one is left as it is.

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


def rewrite(folder: Path) -> Path:
    """Write the tables and the page of a finished study again, from its study.json; the page's path.

    Raises:
        SoftpruneError: it isn't finished, or jinja2 or plotly isn't installed.
    """
    config, record, tables, sentences = _read_results(folder)
    texts = {"study.md": study_markdown(config, record.command, tables, sentences)}
    for table in tables:
        texts[f"table-{safe(table.name)}.md"] = markdown(table)
        texts[f"table-{safe(table.name)}.csv"] = csv_text(table)
    write_texts(folder, texts)
    from softprune.studies.page import write_page

    return write_page(folder, config, record)


def terminal(folder: Path) -> Group:
    """What a finished study found, for a terminal.

    Raises:
        SoftpruneError: it isn't finished.
    """
    config, _, tables, sentences = _read_results(folder)
    lines = [*sentences, *([STAR] if has_stars(tables) else [])]
    head = [literal(text) for text in (config.question, config.source) if text]
    return Group(literal(config.title, "bold"), *head, *map(rich_table, tables), *map(literal, lines))


def _read_results(folder: Path) -> tuple[Study, StudyRecord, list[Table], Sequence[str]]:
    """A finished study's settings, its record, its tables (ours, then the source's) and its sentences."""
    config, record = load_study(folder / "resolved.yaml"), read_finished(folder, StudyRecord)
    findings = load_findings(record.findings)
    return config, record, [*findings.tables, *published_tables(config.published)], findings.sentences
