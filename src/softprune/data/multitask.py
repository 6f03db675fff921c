"""Several tasks as one, for one prompt that serves them all: `trec+ag_news`.

Every example keeps its own template and answers and says which task it is of. What counts is the accuracy over all.
"""

from __future__ import annotations

from collections.abc import Sequence

from softprune.config.registry import unknown
from softprune.data.definition import Definition, FieldSpec, Sources
from softprune.data.row_files import Located
from softprune.errors import SoftpruneError

TASK = "task"
"""The column of a row that names its task, for a ticket of several."""
METRIC = "accuracy"
"""The one metric of joined tasks: an F1 counts one answer as positive, and ROUGE is of texts."""


def join_definitions(parts: Sequence[Definition]) -> Definition:
    """What several tasks say together: the union of their answers and fields, with each in `parts`.

    Raises:
        SoftpruneError: where they can't be counted alike, or one is there twice.
    """
    ids = [part.id for part in parts]
    twice = [name for name in ids if ids.count(name) > 1]
    if twice:
        raise SoftpruneError("tasks to join, each once", f"{twice[0]} twice", "name it once")
    for part in parts:
        if part.parts:
            raise SoftpruneError("single tasks to join", part.id, "name the tasks one by one")
        if part.is_generation:
            expected, found = "tasks with answers to choose from, to join them", f"{part.id}, whose texts are written"
            raise SoftpruneError(expected, found, "train it a prompt of its own")
        if part.metric != METRIC:
            found = f"{part.id}, which is counted by {part.metric} of one of its answers"
            do = "train it a prompt of its own: there is no such answer in another task"
            raise SoftpruneError("tasks that are counted by accuracy, to join them", found, do)
    if len({part.score for part in parts}) > 1:
        found = ", ".join(f"{part.id} by {part.score}" for part in parts)
        do = "join tasks that agree, or give your copy of a task's YAML another `score`"
        raise SoftpruneError("tasks whose answers are scored alike, to join them", found, do)
    fields: dict[str, FieldSpec] = {}
    for part in parts:
        fields |= part.fields
    # Not validated: an id with "+" and no sources of its own are what no task file may have.
    return Definition.model_construct(
        id="+".join(ids),
        version=max(part.version for part in parts),
        title=" and ".join(part.title for part in parts),
        kind=" and ".join(dict.fromkeys(part.kind for part in parts if part.kind)),
        instruction=" ".join(part.instruction for part in parts if part.instruction),
        fields=fields,
        template="\n".join(f"{part.id}: {part.template}" for part in parts),
        answers=tuple(dict.fromkeys(answer for part in parts for answer in part.answers)),
        metric=METRIC,
        score=parts[0].score,
        targets="answers",
        sources=Sources(),
        parts=tuple(parts),
    )


def definition_for_row(definition: Definition, located: Located) -> Definition:
    """The definition that a row is read by: its own task's, where several are joined.

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
        error = unknown("task", name, known)
        raise SoftpruneError(error.expected, f"{error.found} in {located.where}", error.do)
    return known[name]
