"""What runs pieces of work. An executor takes a callable and items, and knows nothing of what they do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from softprune.config.registry import Registry
from softprune.types import Result, WorkItem


class Executor(Protocol):
    """Runs a function over items that don't depend on each other.

    Args:
        address: of a cluster, for executors that join one.
        retries: how often an item begins again whose process died.

    Raises:
        SoftpruneError: it can't work here, or not at that address.
    """

    elsewhere: bool  # whether items run in other processes, to which function and items must be sent

    def __init__(self, address: str | None = None, retries: int = 0) -> None: ...

    def map(
        self, function: Callable[[WorkItem], object], items: Iterable[WorkItem], cpus: float = 1, gpus: float = 0
    ) -> Iterator[Result]:
        """Yields each item's result as soon as it is there; items have different names.

        `cpus` and `gpus` are what one item takes, for executors that place them.
        """
        ...

    def close(self) -> None:
        """Lets go of whatever it holds; nothing runs any more."""


def check_names(items: Iterable[WorkItem]) -> Iterator[WorkItem]:
    """Yields the items; raises a ValueError at the second one of a name."""
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise ValueError(f"two pieces of work are called {item.id!r}")
        seen.add(item.id)
        yield item


class InProcess:
    """One item after the other, in this process, each when the one before has been taken."""

    elsewhere = False

    def __init__(self, address: str | None = None, retries: int = 0) -> None:
        pass

    def map(
        self, function: Callable[[WorkItem], object], items: Iterable[WorkItem], cpus: float = 1, gpus: float = 0
    ) -> Iterator[Result]:
        """Yields results in the order of the items; see `Executor.map`."""
        for item in check_names(items):
            yield Result(item.id, function(item))

    def close(self) -> None:
        """Nothing is held."""


EXECUTORS: Registry[type[Executor]] = Registry(
    "executor", {"in-process": "softprune.runs.executors:InProcess", "ray": "softprune.runs.ray_executor:RayCluster"}
)
