"""Text of the user's data, as a terminal, a page or a README may show it: nothing in it is obeyed."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from typing import Final

_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of Unicode that command rather than show: controls, formats (bidirectional ones too), separators."""
_MARKS: Final = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
"""Formats that have a shape of their own: number signs of Arabic, Syriac and Kaithi."""
_JOINERS: Final = frozenset("\u200c\u200d")
"""Persian, the scripts of India and emoji can't be written without them; next to ASCII they only hide."""


def printable(text: object) -> str:
    """Text with what can't be seen as an escape (`\\x1b`, `\\u202e`); ends of lines and tabs stay.

    Of a text that went through it, it makes the same text.
    """
    return _escaped(str(text), _python_escape)


def one_line(text: object) -> str:
    """The same, ends of lines and tabs as escapes too: a name can't make a line of its own."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def printable_json(value: object, indent: int | None = None) -> str:
    """A value as JSON, letters of every script as they are; what can't be seen is in JSON's own escapes."""
    return _escaped(json.dumps(value, ensure_ascii=False, default=str, indent=indent), _json_escape)


def markdown_text(text: object) -> str:
    """A text in one line of Markdown that breaks no table and is no markup."""
    plain = " ".join(printable(text).split())
    return "".join(f"\\{sign}" if sign in "\\|*_`<[]#&~$" else sign for sign in plain)


def code_span(text: object) -> str:
    """A text in one line as Markdown's code, in a table too."""
    plain = one_line(text).replace("|", "\\|")
    ticks = _fence(plain, 1)
    room = " " if "`" in plain or not plain.strip() else ""
    return f"{ticks}{room}{plain}{room}{ticks}"


def code_block(text: object, language: str) -> str:
    """Lines as Markdown's code, whatever they hold."""
    plain = printable(text)
    ticks = _fence(plain, 3)
    return f"{ticks}{language}\n{plain}\n{ticks}"


def _fence(text: str, least: int) -> str:
    """A run of backticks that the text doesn't hold."""
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
