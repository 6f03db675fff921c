from __future__ import annotations

from collections.abc import Iterator

import pytest

from softprune.runs.executors import EXECUTORS
from softprune.types import Result, WorkItem


def test_in_process_runs_each_item_when_the_one_before_was_taken() -> None:
    log: list[str] = []

    def items() -> Iterator[WorkItem]:
        for name in "ab":
            log.append(f"given {name}")
            yield WorkItem(name, {"n": len(log)})

    def work(item: WorkItem) -> object:
        log.append(f"done {item.id}")
        return item.payload["n"]

    results = EXECUTORS["in-process"]().map(work, items())
    assert log == []
    assert next(results) == Result("a", 1)
    assert log == ["given a", "done a"]
    assert list(results) == [Result("b", 3)]


def test_two_items_of_one_name_are_refused() -> None:
    results = EXECUTORS["in-process"]().map(lambda item: item.id, [WorkItem("a"), WorkItem("a")])
    next(results)
    with pytest.raises(ValueError, match="two pieces of work"):
        next(results)
