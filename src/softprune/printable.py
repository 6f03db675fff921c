"""The user's text made safe to show in a terminal, on a page or in a README: nothing in it is markup or a command."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from typing import Final

_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of invisible characters: controls, formats (bidirectional ones too), line separators."""
_MARKS: Final = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
"""Format characters that are visible: number signs of Arabic, Syriac and Kaithi."""
_JOINERS: Final = frozenset("\u200c\u200d")
"""Persian, the scripts of India and emoji can't be written without them; next to ASCII they only hide."""


def printable(text: object) -> str:
    """Text with invisible characters as escapes (`\\x1b`, `\\u202e`); line ends and tabs stay.

    Applied twice, it changes nothing more.
    """
    return _escaped(str(text), _python_escape)


def one_line(text: object) -> str:
    """The same on one line: line ends and tabs become escapes too, so a name can't add a line."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def printable_json(value: object, indent: int | None = None) -> str:
    """A value as JSON: letters of every script as they are, invisible characters in JSON's own escapes."""
    return _escaped(json.dumps(value, ensure_ascii=False, default=str, indent=indent), _json_escape)


def markdown_text(text: object) -> str:
    """A text as one line of Markdown, escaped so that it is no markup and breaks no table."""
    plain = " ".join(printable(text).split())
    return "".join(f"\\{sign}" if sign in "\\|*_`<[]#&~$" else sign for sign in plain)


def code_span(text: object) -> str:
    """A text as code in one line of Markdown, also within a table."""
    plain = one_line(text).replace("|", "\\|")
    ticks = _fence(plain, 1)
    room = " " if "`" in plain or not plain.strip() else ""
    return f"{ticks}{room}{plain}{room}{ticks}"


def code_block(text: object, language: str) -> str:
    """Lines as a block of code in Markdown, whatever they hold."""
    plain = printable(text)
    ticks = _fence(plain, 3)
    return f"{ticks}{language}\n{plain}\n{ticks}"


def _fence(text: str, least: int) -> str:
    """A run of at least so many backticks that the text doesn't contain."""
    ticks = "`" * least
    while ticks in text:
        ticks += "`"
    return ticks


def _escaped(text: str, escape: Callable[[str], str]) -> str:
    if text.isprintable():
        return text
    return "".join(escape(char) if _is_hidden(text, at) else char for at, char in enumerate(text))


def _is_hidden(text: str, at: int) -> bool:
    char = text[at]
    if char in _JOINERS:
        around = text[max(at - 1, 0) : at] + text[at + 1 : at + 2]
        return len(around) < 2 or any(other.isascii() for other in around)
    return char not in "\n\t" and char not in _MARKS and unicodedata.category(char) in _HIDDEN


def _python_escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _json_escape(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else json.dumps(char)[1:-1]
