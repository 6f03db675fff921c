"""Several tasks as one, for one prompt that serves them all: `trec+ag_news`.

Every example keeps its own template and answers; it only says which task it is of. The sets are those that each task
has alone, side by side. What counts is the accuracy over all examples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from softprune.config.registry import unknown
from softprune.data.definition import Definition, Sources
from softprune.data.row_files import Located
from softprune.data.task import Splits, Task
from softprune.errors import SoftpruneError
from softprune.types import Example

TASK = "task"
"""The column of a row that names its task, for a ticket of several."""
METRIC = "accuracy"
"""The one metric of joined tasks: an F1 counts one answer as positive, and ROUGE is of texts."""


@dataclass(frozen=True, slots=True)
class JoinedTask(Task):
    """Several tasks that share a prompt.

    Attributes:
        parts: the tasks, each with its own data.
    """

    parts: tuple[Task, ...] = ()

    @property
    def ships(self) -> bool:
        """Never: it was put together by the user."""
        return False

    def load(self, data: str | Path | None = None, *, patient: bool = True) -> Splits:
        """Every split of each task.

        Args:
            data: a folder with the data of all that don't bring their own; else as of one task.
            patient: as of one task.

        Raises:
            SoftpruneError: for whatever is missing or malformed in any of them.
        """
        places = (None if part.definition.sources.brings_its_own else data for part in self.parts)
        read = (part.load(place, patient=patient) for part, place in zip(self.parts, places, strict=True))
        alone = [_named(splits, part.id) for splits, part in zip(read, self.parts, strict=True)]
        noted = zip(self.parts, alone, strict=True)
        notes = dict.fromkeys(f"{task.id}: {note}" for task, splits in noted for note in splits.notes)
        return Splits(
            train=_union([splits.train for splits in alone]),
            dev=_union([splits.dev for splits in alone]),
            validation=_union([splits.validation for splits in alone]),
            source=", ".join(dict.fromkeys(splits.source for splits in alone)),
            layout=", ".join(dict.fromkeys(splits.layout for splits in alone)),
            verified=all(splits.verified for splits in alone),
            notes=tuple(notes),
            parts=tuple(alone),
        )


def join(tasks: Sequence[Task]) -> JoinedTask:
    """One task of several.

    Raises:
        SoftpruneError: where they can't be counted alike, or one is there twice.
    """
    return JoinedTask(joined_definition([task.definition for task in tasks]), Path(), tuple(tasks))


def joined_definition(parts: Sequence[Definition]) -> Definition:
    """What several tasks say together: the union of their answers and fields, with each in `parts`.

    Raises:
        SoftpruneError: where they can't be counted alike, or one is there twice.
    """
    ids = [part.id for part in parts]
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise SoftpruneError("tasks to join, each once", f"{twice[0]} twice", "name it once")
    for part in parts:
        _check(part)
    if len({part.score for part in parts}) > 1:
        found = ", ".join(f"{part.id} by {part.score}" for part in parts)
        do = "join tasks that agree, or give your copy of a task's YAML another `score`"
        raise SoftpruneError("tasks whose answers are scored alike, to join them", found, do)
    # Not validated: an id with "+" and no sources of its own are what no task file may have.
    return Definition.model_construct(
        id="+".join(ids),
        version=max(part.version for part in parts),
        title=" and ".join(part.title for part in parts),
        kind=" and ".join(dict.fromkeys(part.kind for part in parts if part.kind)),
        instruction=" ".join(part.instruction for part in parts if part.instruction),
        fields={name: spec for part in parts for name, spec in part.fields.items()},
        template="\n".join(f"{part.id}: {part.template}" for part in parts),
        answers=tuple(dict.fromkeys(answer for part in parts for answer in part.answers)),
        metric=METRIC,
        score=parts[0].score,
        targets="answers",
        sources=Sources(),
        parts=tuple(parts),
    )


def part_of(definition: Definition, located: Located) -> Definition:
    """The definition that a row is read by: its task's, where several are joined.

    Raises:
        SoftpruneError: for a row that names none of them.
    """
    if not definition.parts:
        return definition
    known = {part.id: part for part in definition.parts}
    if TASK not in located.row:
        found = f"{located.where} has {', '.join(map(str, located.row))}"
        do = "add the column: this prompt serves several tasks"
        raise SoftpruneError(f'a column "{TASK}" that names each row\'s task ({", ".join(known)})', found, do)
    name = str(located.row[TASK])
    if name not in known:
        told = unknown("task", name, known)
        raise SoftpruneError(told.expected, f"{told.found} in {located.where}", told.do)
    return known[name]


def _check(part: Definition) -> None:
    """Refuse what has another metric or another kind of target.

    Raises:
        SoftpruneError: says which.
    """
    if part.parts:
        raise SoftpruneError("single tasks to join", part.id, "name the tasks one by one")
    if part.writes:
        found = f"{part.id}, whose texts are written"
        raise SoftpruneError("tasks with answers to choose from, to join them", found, "train it a prompt of its own")
    if part.metric != METRIC:
        found = f"{part.id}, which is counted by {part.metric} of one of its answers"
        do = "train it a prompt of its own: there is no such answer in another task"
        raise SoftpruneError("tasks that are counted by accuracy, to join them", found, do)


def _named(splits: Splits, task: str) -> Splits:
    """The same, where every example says which task it is of, also in its id and its group."""

    def named(examples: tuple[Example, ...] | None) -> tuple[Example, ...] | None:
        return None if examples is None else tuple(map(renamed, examples))

    def renamed(example: Example) -> Example:
        group = None if example.group is None else f"{task}:{example.group}"
        return replace(example, id=f"{task}:{example.id}", group=group, task=task)

    return replace(splits, train=named(splits.train), dev=named(splits.dev), validation=named(splits.validation))


def _union(parts: Sequence[tuple[Example, ...] | None]) -> tuple[Example, ...] | None:
    """Examples of all; None where a task has none."""
    whole: list[Example] = []
    for part in parts:
        if part is None:
            return None
        whole += part
    return tuple(whole)
