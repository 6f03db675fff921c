"""One name table: a name leads to a lazily imported object, an unknown name to a suggestion."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from softprune.errors import SoftpruneError

T = TypeVar("T")


def unknown(kind: str, name: str, available: Iterable[str]) -> SoftpruneError:
    """The error for a name that is in no table, with the nearest known name."""
    known = sorted(available)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f'did you mean "{near[0]}"? ' if near else ""
    return SoftpruneError(f"a known {kind}", f'"{name}"', f"{hint}available: {', '.join(known)}")


class Registry(Generic[T]):
    """Names of one kind of thing, each with the import string (`module:attribute`) of what it means.

    Nothing is imported before it is asked for, so that listing names costs nothing.
    """

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def names(self) -> tuple[str, ...]:
        """All names, in the order of registration."""
        return tuple(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def check(self, name: str) -> str:
        """The name itself.

        Raises:
            SoftpruneError: when it isn't registered.
        """
        if name not in self._entries:
            raise unknown(self.kind, name, self._entries)
        return name

    def __getitem__(self, name: str) -> T:
        module, _, attribute = self._entries[self.check(name)].partition(":")
        value: T = getattr(importlib.import_module(module), attribute)
        return value
