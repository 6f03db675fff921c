"""What runs pieces of work: in this process, or as Ray tasks. An executor takes a callable and items, and knows nothing
of what they do.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from softprune.config.registry import Registry
from softprune.errors import SoftpruneError, explain_system_error, out_of_memory
from softprune.types import Result, WorkItem

EXECUTORS: Registry[type[Executor]] = Registry(
    "executor", {"in-process": "softprune.runs.executors:Executor", "ray": "softprune.runs.executors:RayCluster"}
)

# Seconds: an address that doesn't answer by then is reported; while nothing comes back, nodes are looked at so often.
_REACHED, _LOOK = 5.0, 5.0

# Ray: report no usage to its makers, leave a machine's accelerators visible where a task takes none.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


class Executor:
    """Runs a function over items that don't depend on each other: one after the other, in this process.

    Others join a cluster at `address`, and begin an item again, up to `retries` times, whose process died. They raise a
    SoftpruneError where they can't work here, or not at that address.
    """

    elsewhere = False  # whether items run in other processes, to which function and items must be sent

    def __init__(self, address: str | None = None, retries: int = 0) -> None: ...

    def map(
        self, function: Callable[[WorkItem], object], items: Iterable[WorkItem], cpus: float = 1, gpus: float = 0
    ) -> Iterator[Result]:
        """Yields each item's result as soon as it is there; items have different names.

        `cpus` and `gpus` are what one item takes, for executors that place them. Here each item is taken when the
        result before has been.
        """
        for item in check_names(items):
            yield Result(item.id, function(item))

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


class RayCluster(Executor):
    """Items as Ray tasks on this machine or on a cluster, as many at once as there is room for.

    Ray places them and carries function, items and results between its processes (pickled, over its own connections:
    only connect to a cluster that is yours). Retries are counted here, so that a death is reported alike wherever it
    happens.

    A Ray that this process has already started is used, and not shut down at the end; `address` is `host:port` or
    `auto`, and None starts Ray on this machine.
    """

    elsewhere = True

    def __init__(self, address: str | None = None, retries: int = 0) -> None:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        try:
            import ray
        except ImportError as error:
            do = "pip install 'softprune[cluster]', or leave --executor ray out"
            raise SoftpruneError("Ray, for --executor ray", f"not installed ({error})", do) from error
        self._ray: Any = ray
        self._retries = retries
        self._begun = not ray.is_initialized()
        if not self._begun:
            return
        options: dict[str, Any] = {"address": "local", "include_dashboard": False}
        expected, do = "a Ray that starts on this machine", "see what Ray says"
        if address is not None:
            _check_address(address)
            options = {"address": address}
            expected, do = f"a Ray cluster at {address}", "start one (ray start --head) or fix cluster.address"
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            ray.shutdown()
            raise SoftpruneError(expected, _first_line(error), do) from error

    def map(
        self, function: Callable[[WorkItem], object], items: Iterable[WorkItem], cpus: float = 1, gpus: float = 0
    ) -> Iterator[Result]:
        """Yields results as they come back.

        Raises:
            SoftpruneError: no node has room for an item, an item's process died too often, or what the function raised.
            MemoryError: memory ran out on a worker.
        """
        ray = self._ray
        self._check_room(cpus, gpus)
        task = ray.remote(
            num_cpus=cpus,
            num_gpus=gpus,
            max_retries=0,
            max_calls=0,  # Ray would end a process with a GPU after each item, and what it has loaded would go with it
            scheduling_strategy="SPREAD",  # else Ray fills the driver's node first, and then often leaves another idle
        )(_attempt)
        running = {task.remote(function, item): (item, 0) for item in check_names(items)}
        try:
            while running:
                ready, _ = ray.wait(list(running), num_returns=1, timeout=_LOOK)
                if not ready:
                    self._check_room(cpus, gpus)
                    continue
                item, deaths = running.pop(ready[0])
                try:
                    value = ray.get(ready[0])
                except ray.exceptions.RayTaskError as error:
                    raise _explain_task_error(error) from error
                except ray.exceptions.RayError as error:  # the worker or its node died
                    if deaths >= self._retries:
                        raise _explain_deaths(item, deaths + 1, error) from error
                    running[task.remote(function, item)] = (item, deaths + 1)
                    continue
                if isinstance(value, Exception):
                    raise value
                yield Result(item.id, value)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)

    def close(self) -> None:
        """Ends the Ray that was started here, or leaves the cluster."""
        if self._begun:
            self._ray.shutdown()

    def _check_room(self, cpus: float, gpus: float) -> None:
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
            return
        asked = f"{cpus:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
        available = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise SoftpruneError(
            f"a Ray node with {asked}, which is what a piece of work takes",
            available or "no node that is alive",
            "lower cluster.cpus (or --threads in another --out) or cluster.gpus, or add a node, "
            "and run the same command again",
        )


def _attempt(function: Callable[[WorkItem], object], item: WorkItem) -> object:
    """Runs on a worker; errors that a user can fix are returned, since Ray would wrap them in its own."""
    try:
        return function(item)
    except SoftpruneError as error:
        return error
    except Exception as error:
        explained = MemoryError(_first_line(error)) if out_of_memory(error) else explain_system_error(error)
        if explained is None:
            raise
        return explained


def _check_address(address: str) -> None:
    """Asks first: Ray tries for minutes to reach an address where nothing answers, and then ends the process."""
    if address == "auto":
        return
    parts = re.fullmatch(r"\[?([^\[\]/]+?)\]?:(\d{1,5})", address)
    if parts is None or not 0 < int(parts[2]) < 65536:
        do = "write it as in cluster.address=10.0.0.1:6379, or take auto on a machine of the cluster"
        raise SoftpruneError("cluster.address as host:port, or auto", f'"{address}"', do)
    try:
        socket.create_connection((parts[1], int(parts[2])), timeout=_REACHED).close()
    except OSError as error:
        do = "start one there (ray start --head), or fix cluster.address"
        raise SoftpruneError(f"a Ray cluster at {address}", f"no answer ({_first_line(error)})", do) from error


def _explain_task_error(error: Any) -> Exception:
    """A node without softprune is the user's to fix; any other error goes on with the worker's traceback."""
    text = str(error)
    if not re.search("ModuleNotFoundError|failed to import on the worker", text) and not isinstance(error, ImportError):
        wrapped: Exception = error
        return wrapped
    found = (text.strip().splitlines() or [type(error).__name__])[-1][:200]
    if missing := re.search(r"No module named '([^']*)'", text):
        found = f"no module {missing[1]} there"
    do = "install there what is installed here (pip install 'softprune[cluster]')"
    return SoftpruneError("softprune on every node of the cluster", found, do)


def _explain_deaths(item: WorkItem, deaths: int, error: Exception) -> Exception:
    if out_of_memory(error):  # Ray ends the largest process of a node that runs out
        return MemoryError(f"a worker was killed, out of memory: {_first_line(error)}")
    return SoftpruneError(
        f"workers that live until {item.id} is done",
        f"{deaths} of them died with it, one after the other (the last: {_first_line(error)})",
        "look at that node's memory and at Ray's logs; then the same command goes on "
        "(search.group may be smaller, cluster.retries larger)",
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
