"""One entry a mistake: what a user typed over which files, and what the answer must say.

Every case holds the whole contract: exit code 2, one message (expected, found, do), no traceback, and a working folder
that is byte for byte what it was.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Models = Callable[[str], Path]
Files = Mapping[str, str | bytes]

_TOLD = re.compile(r"expected: (?P<expected>\S.*)\nfound:    (?P<found>\S.*)\ndo:       (?P<do>\S.*)")


@dataclass(frozen=True)
class Told:
    """Words that one message holds."""

    expected: str
    found: str
    do: str


@dataclass(frozen=True)
class Case:
    """A mistake.

    Attributes:
        name: of the test.
        command: what follows `softprune`; `<bert>` stands for the folder of the tiny model of that name.
        told: one a mistake, in their order.
        files: written into the working folder first.
        prepare: what files alone can't say; gets the working folder and the tiny models.
        leaves: names of new files that are justified.
        header: what the message opens with where it tells several mistakes.
    """

    name: str
    command: str
    told: tuple[Told, ...]
    files: Files = field(default_factory=dict)
    prepare: Callable[[Path, Models], object] | None = None
    leaves: tuple[str, ...] = ()
    header: str = ""

    def arguments(self, models: Models) -> list[str]:
        """The command line, with the tiny models' folders put in."""
        return [re.sub(r"<(\w+)>", lambda m: str(models(m[1])), word) for word in shlex.split(self.command)]


def case(name: str, command: str, *told: tuple[str, str, str], **more: object) -> Case:
    """A case, written short."""
    return Case(name, command, tuple(Told(*words) for words in told), **more)  # type: ignore[arg-type]


def write(folder: Path, files: Files) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder with its bytes; None for a folder."""
    found = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in found}


def hold(text: str, told: tuple[Told, ...], header: str = "", before: str = "") -> None:
    """Hold what stands on stderr to be one message that tells these mistakes, and nothing else.

    Args:
        text: stderr.
        told: the mistakes.
        header: the opening of a message of several mistakes.
        before: a pattern of what may stand in front (a progress display).
    """
    assert "Traceback" not in text
    head = re.escape(header) + r"[^\n]*\n\n" if header else ""
    message = rf"(?:{before})?{head}{_TOLD.pattern}(?:\n\n{_TOLD.pattern})*\n"
    plain = re.sub(r"\(\?P<\w+>", "(?:", message)
    assert re.fullmatch(plain, text), text
    found = [match.groupdict() for match in _TOLD.finditer(text)]
    assert len(found) == len(told), text
    for message_found, wanted in zip(found, told, strict=True):
        for part in ("expected", "found", "do"):
            assert getattr(wanted, part) in message_found[part], f"{part}: {message_found[part]}"
