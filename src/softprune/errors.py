"""The one exception a user meets: what was expected, what was found, what to do."""

from __future__ import annotations

from collections.abc import Sequence


class SoftpruneError(Exception):
    """Bad input, told in one message. The command line prints it without a traceback and exits with code 2.

    Args:
        expected: what softprune needed, as a clause ("a ratio between 0 and 1, both excluded").
        found: what was there instead.
        do: the next step that mends it.
    """

    def __init__(self, expected: str, found: str, do: str) -> None:
        self.expected, self.found, self.do = expected, found, do
        super().__init__(f"expected: {expected}\nfound:    {found}\ndo:       {do}")


class ManyErrors(SoftpruneError):
    """Several independent mistakes in one input, shown together so that it is mended in one go."""

    def __init__(self, where: str, errors: Sequence[SoftpruneError]) -> None:
        self.errors = tuple(errors)
        Exception.__init__(self, "\n\n".join([f"{len(errors)} mistakes in {where}", *map(str, errors)]))
        self.expected = f"a valid {where}"
        self.found = f"{len(errors)} mistakes"
        self.do = "mend each of them; see the messages"
