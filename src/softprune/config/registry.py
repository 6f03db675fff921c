"""Tables of names: a known name imports its object lazily, an unknown one raises an error with a suggestion."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from softprune.errors import SoftpruneError

T = TypeVar("T")


def unknown(kind: str, name: str, available: Iterable[str]) -> SoftpruneError:
    """The error for an unknown name, with the nearest known one."""
    known = sorted(available)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f'did you mean "{near[0]}"? ' if near else ""
    return SoftpruneError(f"a known {kind}", f'"{name}"', f"{hint}available: {', '.join(known)}")


class Registry(Generic[T]):
    """Names of one kind of object, each with its import string (`module:attribute`).

    An object is imported when it is looked up, so that listing names costs nothing.
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
        """The name itself; a SoftpruneError where it isn't registered."""
        if name not in self._entries:
            raise unknown(self.kind, name, self._entries)
        return name

    def __getitem__(self, name: str) -> T:
        module, _, attribute = self._entries[self.check(name)].partition(":")
        value: T = getattr(importlib.import_module(module), attribute)
        return value
