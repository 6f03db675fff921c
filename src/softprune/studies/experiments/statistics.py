"""The data of the tasks: the paper's Table 9, with what a constant answer reaches and what their sizes can show."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from softprune.data import load_task
from softprune.data.data_statistics import compute_statistics, count_repeated, unseen_points
from softprune.studies.findings import Cell, Entry, Findings, Table, bars
from softprune.studies.study_context import StudyContext, task_label

SETS = ("train", "dev", "validation")
CONSTANT = "constant answer, %"


def conduct(study: StudyContext) -> Findings:
    """Counts of every task's data; no run is made."""
    counts, rows = {}, []
    for task in study.tasks:
        counts[task] = each = study.once(f"statistics-{task_label(task)}", partial(count_data, study, task))
        row: dict[str, Entry] = {
            "task": task,
            **{name: Cell(each["sizes"].get(name), unit="count") for name in SETS},
            "metric": each["metric"],
            "reported on": each["reported"],
            CONSTANT: Cell(each["constant"]),
            "words": Cell(each["words"], unit="number"),
            "repeated rows": Cell(each["repeated"], unit="count", note=f"of {each['rows']:,}"),
            "unseen points": Cell(each["unseen"], unit="count"),
        }
        rows.append(row)
    note = (
        "Words: mean of the filled template. Constant answer: the best one, on the set that is reported on. Unseen "
        "points: a difference below that many points is lost in the noise of a set of that size. The file of a split "
        "that isn't in the folder is not measured."
    )
    table = Table.from_records("statistics", study.config.title, rows, note)
    figure = bars(table, "constant", "What the best constant answer reaches", (CONSTANT,), what=CONSTANT)
    return Findings([table], [figure], _sentences(study, counts))


def count_data(study: StudyContext, task: str) -> dict[str, Any]:
    """The numbers of a task's data, as JSON holds them."""
    read = load_task(task)
    splits = read.load(None if study.config.data is None else Path(study.config.data))
    each, (twice, rows) = compute_statistics(read, splits), count_repeated(splits)
    return {
        "sizes": dict(each.sizes),
        "metric": each.metric,
        "reported": each.reported,
        "constant": each.constant,
        "words": each.words,
        "repeated": twice,
        "rows": rows,
        "unseen": unseen_points(each.sizes[each.reported]) if each.shares else None,
    }


def _sentences(study: StudyContext, counts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Where the sizes aren't the source's. The option `sets` names its columns: {Train: train, Dev: validation}."""
    columns: Mapping[str, str] = study.options.get("sets") or {}
    if not study.config.published or not columns:
        return []
    table = study.config.published[0]
    printed = {row[0].casefold(): dict(zip(table.columns[1:], row[1:], strict=True)) for row in table.rows}
    sentences = []
    for task, each in counts.items():
        parts = []
        for column, split in columns.items() if task.casefold() in printed else ():
            size, theirs = each["sizes"].get(split), int(printed[task.casefold()][column])
            here = f"no {split} set" if size is None else f"{size:,} {split}"
            parts.append(f"{here} here, the source has {theirs:,} ({column}){', the same' * (size == theirs)}")
        if parts:
            sentences.append(f"{task}: {'; '.join(parts)}.")
    return sentences
