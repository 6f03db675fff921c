"""The one exception a user meets: what was expected, what was found, what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from softprune.printable import printable


class SoftpruneError(Exception):
    """Bad input, told in one message. The command line prints it without a traceback and exits with code 2.

    Args:
        expected: what softprune needed, as a clause ("a ratio between 0 and 1, both excluded").
        found: what was there instead.
        do: the next step that mends it.
    """

    def __init__(self, expected: str, found: str, do: str) -> None:
        self.expected, self.found, self.do = map(printable, (expected, found, do))
        super().__init__(f"expected: {self.expected}\nfound:    {self.found}\ndo:       {self.do}")

    def __reduce__(self) -> tuple[type[SoftpruneError], tuple[object, ...]]:
        return type(self), (self.expected, self.found, self.do)


class ManyErrors(SoftpruneError):
    """Several independent mistakes in one input, shown together so that it is mended in one go."""

    def __init__(self, where: str, errors: Sequence[SoftpruneError]) -> None:
        self.where, self.errors = printable(where), tuple(errors)
        count = f"{len(errors)} mistake{'s' * (len(errors) != 1)}"
        Exception.__init__(self, "\n\n".join([f"{count} in {self.where}", *map(str, errors)]))
        self.expected = f"a valid {self.where}"
        self.found = count
        self.do = "mend each of them; see the messages"

    def __reduce__(self) -> tuple[type[SoftpruneError], tuple[object, ...]]:
        return type(self), (self.where, self.errors)


@contextmanager
def gathered(errors: list[SoftpruneError]) -> Iterator[None]:
    """Puts a mistake (or several) that the block raises into `errors`, so that others are found beside it."""
    try:
        yield
    except SoftpruneError as error:
        errors += error.errors if isinstance(error, ManyErrors) else [error]
    except OSError as error:
        told = of_the_machine(error)
        if told is None:
            raise
        errors.append(told)


def of_the_machine(error: BaseException) -> SoftpruneError | None:
    """What a full disk, missing rights, an endless path or too little memory mean to a user; None for other errors.

    Args:
        error: as Python, torch or the system raised it.
    """
    if out_of_memory(error):
        return SoftpruneError("enough memory", "out of memory", "choose a smaller model, or close other programs")
    if not isinstance(error, OSError):
        return None
    place = error.filename or "the disk"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        found = f"no space left ({error.strerror}) at {place}"
        return SoftpruneError("room on the disk", found, "free some space and run the same command again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        do = "choose another folder, or mend its permissions"
        return SoftpruneError("files and folders that may be read and written", f"{place}: {error.strerror}", do)
    if error.errno == errno.ENAMETOOLONG:
        return SoftpruneError("a path that the system takes", f"{str(place)[:60]}...: {error.strerror}", "shorten it")
    return None


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's, torch's for a GPU, or that of torch's CPU allocator."""
    # By name and by text: torch isn't imported for this, and its CPU allocator raises a plain RuntimeError.
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
