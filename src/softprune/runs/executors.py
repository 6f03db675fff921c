"""What runs pieces of work. An executor takes a callable and items, and knows nothing of what they do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from softprune.registry import Registry
from softprune.types import Result, WorkItem


class Executor(Protocol):
    """Runs a function over items that don't depend on each other."""

    def map(self, function: Callable[[WorkItem], object], items: Iterable[WorkItem]) -> Iterator[Result]:
        """Yields what `function` gives for each item, under the item's name, as soon as it is there."""
        ...


class InProcess:
    """One item after the other, in this process, each when the one before has been taken."""

    def map(self, function: Callable[[WorkItem], object], items: Iterable[WorkItem]) -> Iterator[Result]:
        """Yields results in the order of the items."""
        seen: set[str] = set()
        for item in items:
            if item.id in seen:
                raise ValueError(f"two pieces of work are called {item.id!r}")
            seen.add(item.id)
            yield Result(item.id, function(item))


EXECUTORS: Registry[type[Executor]] = Registry("executor", {"in-process": "softprune.runs.executors:InProcess"})
