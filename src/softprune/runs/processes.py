"""Data parallel: processes that run one recipe together, each on its part of every batch.

A launcher (`accelerate launch`, `torchrun`, `mpirun`) starts them with their rank and number in the environment. What
goes between them is small, a prompt's gradient and scores, so it goes through gloo in the memory of the CPU, wherever
the models are. All of them walk through the whole run; the first one alone writes, and its word counts.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import stat
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from softprune.errors import SoftpruneError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

# As torch's and accelerate's launcher, Intel's MPI, OpenMPI and MVAPICH name them.
RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
LOCAL_RANKS = ("LOCAL_RANK", "MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK")

# Until all have come; processes on a busy machine take their time to import torch.
_JOIN = timedelta(minutes=10)
# A process may score, draw and write alone for long. That another one ended shows at once, by its closed connection.
_WAIT = timedelta(days=7)
# Until the first process has told what went wrong in another one.
_TOLD = timedelta(seconds=20)


class Processes:
    """One process on its own: it has everything, shares nothing and pays nothing."""

    rank: int = 0
    size: int = 1

    def part(self, items: Sequence[T]) -> Sequence[T]:
        """This process's share: every `size`-th item."""
        return items

    def sum_(self, *tensors: torch.Tensor) -> None:
        """Replace each tensor by its sum over all processes, the same bits in each."""

    def broadcast(self, value: Any) -> Any:
        """What the first process has."""
        return value

    def gather(self, value: T) -> list[T]:
        """What each process has, in order of ranks."""
        return [value]

    def tell(self, error: Exception) -> None:
        """Hand an error to the first process, which tells the user; returns only to one that must tell it itself."""


ALONE = Processes()


class Group(Processes):
    """Several processes, joined over torch.distributed.

    Args:
        rank: of this one.
        size: how many.
    """

    def __init__(self, rank: int, size: int) -> None:
        import torch.distributed as distributed
        from torch.distributed.rendezvous import rendezvous

        self.rank, self.size = rank, size
        try:
            self._store, _, _ = next(rendezvous("env://", rank, size, timeout=_JOIN))
            self._before = _sockets()
            distributed.init_process_group("gloo", store=self._store, rank=rank, world_size=size, timeout=_WAIT)
        except (ValueError, RuntimeError) as error:
            raise SoftpruneError(
                f"{size} processes that find each other", str(error).splitlines()[0][:200], "see docs/usage.md"
            ) from error
        self._distributed: Any = distributed
        if rank == 0:
            atexit.register(self._over)

    def part(self, items: Sequence[T]) -> Sequence[T]:
        """This process's share: every `size`-th item."""
        return items[self.rank :: self.size]

    def sum_(self, *tensors: torch.Tensor) -> None:
        """Replace each tensor by its sum over all processes, the same bits in each."""
        for tensor in tensors:
            whole = tensor.detach().cpu().contiguous()
            self._do(partial(self._distributed.all_reduce, whole))
            tensor.detach().copy_(whole)

    def broadcast(self, value: Any) -> Any:
        """What the first process has."""
        box = [value if self.rank == 0 else None]
        self._do(partial(self._distributed.broadcast_object_list, box, src=0))
        return box[0]

    def gather(self, value: T) -> list[T]:
        """What each process has, in order of ranks."""
        found: list[Any] = [None] * self.size
        self._do(partial(self._distributed.all_gather_object, found, value))
        return found

    def tell(self, error: Exception) -> None:
        """Hand an error to the first process, which tells the user; returns only to one that must tell it itself."""
        if self.rank == 0:
            return
        named = [getattr(error, part, "") for part in ("expected", "found", "do")]
        parts = named if type(error) is SoftpruneError else ["", f"{type(error).__name__}: {error}", ""]
        with suppress(RuntimeError):  # the first process is gone
            self._store.set("error", json.dumps([self.rank, *parts]))
            _hang_up(_sockets() - self._before)  # what wakes the others
            self._store.wait(["told"], _TOLD)
            sys.exit(2)
        if not self._first_lives():
            sys.exit(2)

    def _do(self, act: Callable[[], object]) -> None:
        try:
            act()
        except RuntimeError as error:  # the connection to another process is closed
            if self.rank:
                with suppress(RuntimeError):
                    self._store.wait(["told"], _JOIN)
                sys.exit(2)  # the first process has told, or is gone
            raise self._lost() from error

    def _lost(self) -> SoftpruneError:
        """What another process said before it ended."""
        with suppress(RuntimeError):
            if self._store.check(["error"]):
                rank, expected, found, do = json.loads(self._store.get("error"))
                if expected:
                    return SoftpruneError(expected, f"{found} (process {rank})", do)
                return SoftpruneError(f"process {rank} to go on to the end", found, "fix that, then the same command")
        found = "one of them ended without a word (killed, perhaps for lack of memory)"
        do = "give the same command again: the run goes on from its last evaluation"
        return SoftpruneError(f"all {self.size} processes to go on to the end", found, do)

    def _first_lives(self) -> bool:
        try:
            self._store.check(["told"])
        except RuntimeError:
            return False
        return True

    def _over(self) -> None:
        with suppress(RuntimeError):
            self._store.set("told", "")
        _hang_up(_sockets() - self._before)  # the launcher may wait for the others in this process


_joined: Group | None = None


def rank() -> int:
    """Which of the launched processes this is; 0 for the first, and for one on its own."""
    return _number(RANKS, 0) if _number(SIZES, 1) > 1 else 0


def launched() -> int:
    """How many processes were launched together; 1 for one on its own."""
    return _number(SIZES, 1)


def hold_alone(what: str) -> None:
    """Several processes share single runs of prompts; anything else is for one process.

    Args:
        what: what it is for, such as "to compare methods".

    Raises:
        SoftpruneError: this process was launched together with others.
    """
    if launched() > 1:
        raise SoftpruneError(f"one process {what}", f"{launched()}, launched together", "leave out the launcher")


def join() -> Processes:
    """The processes that were launched together, met; this one alone where there are no others.

    Raises:
        SoftpruneError: when they don't find each other.
    """
    global _joined
    size = _number(SIZES, 1)
    if size == 1:
        return ALONE
    if _joined is None:
        _take_device()
        _joined = Group(rank(), size)
    return _joined


def _sockets() -> set[int]:
    """The open network connections of this process."""
    with suppress(OSError):
        return {number for path in Path("/dev/fd").iterdir() if _is_socket(number := int(path.name))}
    return set()


def _is_socket(number: int) -> bool:
    with suppress(OSError):
        return stat.S_ISSOCK(os.fstat(number).st_mode)
    return False


def _hang_up(connections: set[int]) -> None:
    """End connections as the end of the process would: gloo keeps them while anything still knows its group."""
    for number in connections:
        with suppress(OSError), socket.socket(fileno=os.dup(number)) as connection:
            if not connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):  # gloo aborts without its listener
                connection.shutdown(socket.SHUT_RDWR)


def _take_device() -> None:
    """Each process of a machine has a GPU of its own, where there are any."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(_number(LOCAL_RANKS, rank()) % torch.cuda.device_count())


def _number(names: Sequence[str], default: int) -> int:
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()), default)
