"""The one exception a user meets: what was expected, what was found, what to do."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from softprune.printable import printable


class SoftpruneError(Exception):
    """Bad input, described in one message. The command line prints it without a traceback and exits with code 2.

    Args:
        expected: what softprune needed, as a clause ("a ratio between 0 and 1, both excluded").
        found: what was there instead.
        do: the next step that fixes it.
    """

    def __init__(self, expected: str, found: str, do: str) -> None:
        self.expected, self.found, self.do = map(printable, (expected, found, do))
        # Further lines of a part are indented: none can look like another part.
        lines = (re.sub(r"\n(?! )", "\n" + " " * 10, part) for part in (self.expected, self.found, self.do))
        super().__init__("expected: {}\nfound:    {}\ndo:       {}".format(*lines))

    def __reduce__(self) -> tuple[type[SoftpruneError], tuple[object, ...]]:
        return type(self), (self.expected, self.found, self.do)


class ManyErrors(SoftpruneError):
    """Several independent mistakes in one input, shown together so that it is fixed in one go."""

    def __init__(self, where: str, errors: Sequence[SoftpruneError]) -> None:
        self.where, self.errors = printable(where), tuple(errors)
        count = f"{len(errors)} mistake{'s' * (len(errors) != 1)}"
        Exception.__init__(self, "\n\n".join([f"{count} in {self.where}", *map(str, errors)]))
        self.expected = f"a valid {self.where}"
        self.found = count
        self.do = "fix each of them; see the messages"

    def __reduce__(self) -> tuple[type[SoftpruneError], tuple[object, ...]]:
        return type(self), (self.where, self.errors)


def join_errors(where: str, errors: Sequence[SoftpruneError]) -> SoftpruneError:
    """A single mistake as it is, and several in one error."""
    return errors[0] if len(errors) == 1 else ManyErrors(where, errors)


@contextmanager
def gathered(errors: list[SoftpruneError]) -> Iterator[None]:
    """Puts a mistake (or several) that the block raises into `errors`, so that others are found beside it."""
    try:
        yield
    except SoftpruneError as error:
        errors += error.errors if isinstance(error, ManyErrors) else [error]
    except OSError as error:
        explained = explain_system_error(error)
        if explained is None:
            raise
        errors.append(explained)


def explain_error(error: Exception) -> Exception:
    """An error in a user's words, or the error itself."""
    return error if isinstance(error, SoftpruneError) else explain_system_error(error) or error


def explain_system_error(error: BaseException) -> SoftpruneError | None:
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
        do = "choose another folder, or fix its permissions"
        return SoftpruneError("files and folders that may be read and written", f"{place}: {error.strerror}", do)
    if error.errno == errno.ENAMETOOLONG:
        return SoftpruneError("a path that the system takes", f"{str(place)[:60]}...: {error.strerror}", "shorten it")
    return None


# What torch's allocators, oneDNN, CUDA's libraries, C++, the C library and Python say when memory ran out, in errors
# that have no type of their own for it.
_NO_MEMORY: Final = re.compile(
    r"can't allocate memory|cannot allocate memory|not enough memory|out of memory|bad_alloc|unable to mmap"
    r"|[A-Z]+_STATUS_\w*ALLOC\w*_FAILED|could not (create|execute) a primitive$|could not create a memory( object)?$"
    r"|can't start new thread|failed to map segment",
    re.IGNORECASE | re.MULTILINE,
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that it was raised from, says that memory ran out.

    By name and by text, since torch isn't imported for this. oneDNN doesn't say why it can't create a primitive: if the
    model itself is at fault, smaller groups fail as well, and the message quotes oneDNN. A thread that can't start has
    no memory for its stack.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or type(cause).__name__ == "OutOfMemoryError":
            return True
        # C++ and Rust libraries, and failed imports of them, say it in their text.
        is_library = isinstance(cause, RuntimeError | ImportError) or type(cause).__name__ == "SafetensorError"
        if isinstance(cause, OSError):
            # A file's or a socket's error counts only by its number: its text may hold a name.
            if cause.errno == errno.ENOMEM or (cause.errno is None and _NO_MEMORY.search(str(cause))):
                return True
        elif is_library and _NO_MEMORY.search(str(cause).strip()):
            return True
        cause = cause.__cause__
    return False


def shorten(error: BaseException) -> str:
    """A library's error on one line of bearable length; its type where it has no text."""
    return " ".join(str(error).split())[:300] or type(error).__name__
