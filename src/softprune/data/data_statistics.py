"""What a task's data looks like in numbers: the paper's Table 9, with what a constant answer reaches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from softprune.data.definition import Split
from softprune.data.metrics import ExactMatch, constant_answer, lead, pair_texts
from softprune.data.rouge import is_installed
from softprune.data.sources import SPLITS, find_layout
from softprune.data.splits import Splits
from softprune.data.task import Task
from softprune.errors import SoftpruneError


@dataclass(frozen=True, slots=True)
class TaskStatistics:
    """A row of Table 9, and what it leaves out."""

    # `id`, `kind` and `metric` as the task states them.
    id: str
    kind: str
    metric: str
    sizes: Mapping[Split, int]  # examples of each split that is there
    reported: Split  # the split that the rest describes: validation, or dev where that is absent
    words: float  # mean words of the filled template, by white space
    # Answer, as the task states it, to the fraction of examples that it is right for; none of written texts.
    shares: Mapping[str, float]
    # What the best constant answer scores, a fraction; of written texts that ROUGE scores, what the first sentences of
    # the input score, None where ROUGE isn't installed.
    constant: float | None
    target_words: float | None = None  # mean words of the texts that are to be written; None of answers


def compute_statistics(task: Task, splits: Splits) -> TaskStatistics:
    """The numbers of a task's data; a SoftpruneError without a set to report on."""
    examples = splits.report
    if not examples:
        found = f"none of {task.id} in {splits.source}"
        raise SoftpruneError("a validation or development set", found, "add the file, or leave it out")
    sizes = {split: len(getattr(splits, split)) for split in SPLITS if getattr(splits, split) is not None}
    shares: dict[str, float] = {}
    constant = target_words = None
    if task.definition.is_generation:
        references = [example.answers[0] for example in examples]
        target_words = _mean_words(references)
        if isinstance(task.metric, ExactMatch):
            always = (task.metric.constant_text(references),) * len(examples)
            constant = task.metric.value(pair_texts(always, examples))
        elif is_installed():
            constant = task.metric.value(pair_texts(tuple(map(lead, examples)), examples))
    else:
        gold = [example.gold for example in examples]
        shares = {answer: gold.count(place) / len(gold) for place, answer in enumerate(task.definition.answers)}
        constant = constant_answer(gold, task.n_answers, task.metric).value
    return TaskStatistics(
        id=task.id,
        kind=task.definition.kind,
        metric=task.metric.name,
        sizes=sizes,
        reported=splits.reported,
        words=_mean_words([example.text for example in examples]),
        shares=shares,
        constant=constant,
        target_words=target_words,
    )


def _mean_words(texts: Sequence[str]) -> float:
    return sum(len(text.split()) for text in texts) / len(texts)


def count_repeated(splits: Splits) -> tuple[int, int]:
    """Examples whose input is that of another before them, and all examples; both over every split."""
    inputs = [example.text for split in SPLITS for example in getattr(splits, split) or ()]
    return len(inputs) - len(set(inputs)), len(inputs)


def unseen_points(examples: int) -> int:
    """Percentage points of accuracy below which a difference of two prompts is lost in the noise of a test set.

    The half width of a 95% interval of the difference of two independent proportions at their most uncertain, 1/2;
    answers to the same examples agree in part, so a paired test often sees somewhat less.
    """
    return round(100 * 1.96 * math.sqrt(2 * 0.25 / examples))


@dataclass(frozen=True, slots=True)
class Survey:
    """What a folder holds of some tasks."""

    found: tuple[TaskStatistics, ...]  # the tasks whose data is there
    absent: tuple[str, ...]  # names of those whose data isn't
    errors: tuple[SoftpruneError, ...]  # what is wrong with data that is there


def survey(tasks: Sequence[Task], root: Path) -> Survey:
    """The statistics of every task in a folder that holds one task's or many tasks' data.

    Many tasks' files have the same names. Those that lie in the folder itself belong to the tasks that they read
    as: official files before the hub's, whose labels are mere numbers. A file in a folder of the task's own that
    doesn't read is an error.
    """
    loaded: dict[str, Splits] = {}
    broken: dict[str, SoftpruneError] = {}
    shared: dict[str, str] = {}  # the layout of each task whose files lie in the folder itself
    for task in tasks:
        try:
            layout = find_layout(task.definition, root)
        except SoftpruneError:
            continue
        is_shared = any(path.parent == root for paths in layout.paths.values() for path in paths)
        try:
            loaded[task.id] = task.load(root)
        except SoftpruneError as error:
            if not is_shared:
                broken[task.id] = error
            continue
        if is_shared:
            shared[task.id] = layout.name
    if "official" in shared.values():
        loaded = {name: splits for name, splits in loaded.items() if shared.get(name, "official") == "official"}
    rows = [compute_statistics(task, loaded[task.id]) for task in tasks if task.id in loaded and loaded[task.id].report]
    present = {row.id for row in rows} | broken.keys()
    absent = tuple(task.id for task in tasks if task.id not in present)
    return Survey(tuple(rows), absent, tuple(broken.values()))
