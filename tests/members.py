"""Several processes of a run, played by threads of this one: everything but the network between them."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from softprune.runs.processes import Processes

T = TypeVar("T")


class Member(Processes):
    """One of several threads that stand for processes."""

    def __init__(self, rank: int, size: int, barrier: threading.Barrier, slots: list[Any]) -> None:
        self.rank, self.size = rank, size
        self._barrier, self._slots = barrier, slots

    def part(self, items: Sequence[T]) -> Sequence[T]:
        return items[self.rank :: self.size]

    def sum_(self, *tensors: torch.Tensor) -> None:
        for tensor in tensors:
            parts = self.gather(tensor.detach().clone())
            tensor.detach().copy_(torch.stack(parts).sum(0))

    def broadcast(self, value: Any) -> Any:
        return self.gather(value if self.rank == 0 else None)[0]

    def gather(self, value: T) -> list[T]:
        self._slots[self.rank] = copy.deepcopy(value)
        self._barrier.wait(60)
        found = copy.deepcopy(self._slots)
        self._barrier.wait(60)
        return found


class Unreduced(Member):
    """The control: everyone keeps what its own part gave."""

    def sum_(self, *tensors: torch.Tensor) -> None: ...


def in_parallel(work: Callable[[Processes], T], size: int, kind: type[Member] = Member) -> list[T]:
    """What `work` gives in each of `size` threads; the first error of any ends all."""
    barrier, slots = threading.Barrier(size), [None] * size
    found: list[Any] = [None] * size
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            found[rank] = work(kind(rank, size, barrier, slots))
        except BaseException as error:
            if not isinstance(error, threading.BrokenBarrierError):
                errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return found
