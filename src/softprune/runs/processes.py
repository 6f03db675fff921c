"""Data parallel: processes that run one recipe together, each on its part of every batch.

A launcher (`accelerate launch`, `torchrun`, `mpirun`) starts them with their rank and number in the environment. What
goes between them is small, a prompt's gradient and scores, so it goes through gloo in the memory of the CPU,
wherever the models are. All of them walk through the whole run; the first one alone writes, and its word counts.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from softprune.errors import SoftpruneError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

# As torch's and accelerate's launcher, Intel's MPI, OpenMPI and MVAPICH name them.
RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_LOCAL_RANKS = ("LOCAL_RANK", "MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK")

# A process may score, draw and write alone for long. That another one ended shows at once, by its closed connection.
_WAIT = timedelta(days=1)
# Until the first process has reported what went wrong in another one; a launcher would kill it when that one exits.
_REPORT_WAIT = timedelta(seconds=20)


class Processes:
    """One process on its own: it has everything, shares nothing and pays nothing."""

    rank: int = 0
    size: int = 1

    def part(self, items: Sequence[T]) -> Sequence[T]:
        """This process's share: every `size`-th item."""
        return items[self.rank :: self.size]

    def sum_(self, *tensors: torch.Tensor) -> None:
        """Replace each tensor by its sum over all processes, the same bits in each."""

    def broadcast(self, value: Any) -> Any:
        """What the first process has."""
        return value

    def ask_first(self, compute: Callable[[], T]) -> T:
        """What `compute` gives in the first process, which alone calls it."""
        value: T = self.broadcast(None if self.rank else compute())
        return value

    def gather(self, value: T) -> list[T]:
        """What each process has, in order of ranks."""
        return [value]

    def report(self, error: Exception) -> None:
        """Hand an error to the first process, which shows it; returns only where this process must show it itself."""


ALONE = Processes()


class _Group(Processes):
    """Several processes, joined by accelerate, which knows the launchers."""

    def __init__(self, rank: int, size: int) -> None:
        import torch

        # Its functions have the default group as a default argument. Imported later, they would hold this one, and
        # with it the connections, beyond `destroy_process_group`.
        import torch.distributed.nn.functional
        from accelerate import PartialState
        from torch.distributed.distributed_c10d import _get_default_store

        self.rank, self.size, self._dist = rank, size, torch.distributed
        # accelerate would choose a number of threads, and say so; the recipe's is set later.
        os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
        try:
            PartialState(cpu=True, backend="gloo", timeout=_WAIT)
        except (ValueError, RuntimeError) as error:
            raise SoftpruneError(
                f"{size} processes that find each other", str(error).splitlines()[0][:200], "see docs/usage.md"
            ) from error
        # Lives in the first process, and outlasts the connections between the others.
        self._store = _get_default_store()
        if rank == 0:
            atexit.register(self._release_others)  # the others wait until this one has reported their error

    def sum_(self, *tensors: torch.Tensor) -> None:
        for tensor in tensors:
            total = tensor.detach().to("cpu", copy=True).contiguous()
            self._exchange(self._dist.all_reduce, total)
            tensor.detach().copy_(total)

    def broadcast(self, value: Any) -> Any:
        sent = [value if self.rank == 0 else None]
        self._exchange(self._dist.broadcast_object_list, sent)
        return sent[0]

    def gather(self, value: T) -> list[T]:
        gathered: list[Any] = [None] * self.size
        self._exchange(self._dist.all_gather_object, gathered, value)
        return gathered

    def report(self, error: Exception) -> None:
        if self.rank == 0:
            return
        expected, found = f"process {self.rank} to go on to the end", f"{type(error).__name__}: {error}"
        do = "fix that, then the same command"
        if type(error) is SoftpruneError:
            expected, found, do = error.expected, f"{error.found} (process {self.rank})", error.do
        with suppress(RuntimeError):  # the first process is gone, or doesn't answer
            self._store.set("error", json.dumps([expected, found, do]))
            self._close_connections()  # which wakes the others
            self._store.wait(["reported"], _REPORT_WAIT)
            sys.exit(2)
        with suppress(RuntimeError):
            self._store.check(["reported"])
            return  # the first process lives, and is too busy to notice
        sys.exit(2)

    def _exchange(self, exchange: Callable[..., object], *given: object) -> None:
        """Calls it; when another process has ended, all of them end, and the first one says why."""
        try:
            exchange(*given)
        except RuntimeError as error:  # the connection to another process is closed
            if self.rank:
                with suppress(RuntimeError):
                    self._store.wait(["reported"], _REPORT_WAIT)
                sys.exit(2)  # the first process has shown the error, or is gone
            expected = f"all {self.size} processes to go on to the end"
            found = "one of them ended without a word (killed, perhaps for lack of memory)"
            do = "give the same command again: the run goes on from its last evaluation"
            with suppress(RuntimeError):
                if self._store.check(["error"]):
                    expected, found, do = json.loads(self._store.get("error"))
            raise SoftpruneError(expected, found, do) from error

    def _release_others(self) -> None:
        with suppress(RuntimeError):
            self._store.set("reported", "")
        self._close_connections()  # the launcher may wait for the others in this process

    def _close_connections(self) -> None:
        with suppress(RuntimeError, ValueError, AssertionError):  # they are closed
            self._dist.destroy_process_group()


_joined: _Group | None = None


def rank() -> int:
    """Which of the launched processes this is; 0 for the first, and for one on its own."""
    return _read_number(RANKS, 0) if launched() > 1 else 0


def launched() -> int:
    """How many processes were launched together; 1 for one on its own."""
    return _read_number(SIZES, 1)


def _read_number(names: Sequence[str], default: int) -> int:
    for name in names:
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return default


def hold_alone(what: str) -> None:
    """Raises a SoftpruneError where several processes were launched: they share single runs of prompts alone.

    `what` is the other work, such as `to compare methods`.
    """
    if launched() > 1:
        raise SoftpruneError(f"one process {what}", f"{launched()}, launched together", "leave out the launcher")


def join() -> Processes:
    """Connects the processes that were launched together; a SoftpruneError where they don't find each other."""
    global _joined
    if launched() == 1:
        return ALONE
    if _joined is None:
        import torch

        if torch.cuda.is_available():  # each process of a machine has a GPU of its own
            torch.cuda.set_device(_read_number(_LOCAL_RANKS, rank()) % torch.cuda.device_count())
        _joined = _Group(rank(), launched())
    return _joined


@contextmanager
def joined() -> Iterator[Processes]:
    """`join`, with what goes wrong inside shown by the first of the processes alone."""
    processes = join()
    try:
        yield processes
    except Exception as error:
        processes.report(error)
        raise
