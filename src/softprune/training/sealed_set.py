"""The examples that a run reports on, kept closed until every choice is made."""

from __future__ import annotations

from collections.abc import Sequence

from softprune.statistics.bootstrap import sampled_units
from softprune.types import Example


class SealedSet:
    """The `report` examples. They open once, after every choice is fixed.

    Args:
        examples: what is reported on; not even tokenised before.
    """

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = tuple(examples)
        self._choices: str | None = None
        self._opened = False

    def __len__(self) -> int:
        return len(self._examples)

    @property
    def units(self) -> int:
        """How many examples, or groups of them that share text, a score is an average over."""
        return len(set(sampled_units([example.group for example in self._examples])))

    def fix(self, choices: str) -> None:
        """Declare that all choices are made, and which."""
        self._choices = choices

    def open(self) -> tuple[Example, ...]:
        """The examples.

        Raises:
            RuntimeError: before `fix`, or a second time. A bug in softprune, never a user's mistake.
        """
        if self._choices is None:
            raise RuntimeError("`report` was asked for before every choice was fixed")
        if self._opened:
            raise RuntimeError("`report` was asked for twice")
        self._opened = True
        return self._examples
