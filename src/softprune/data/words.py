"""The words of a text in any script, by Unicode's classes of characters."""

from __future__ import annotations

import unicodedata

NO_BLANKS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
"""Scripts that put no blanks between words, as Unicode's character names begin."""


def words(text: str) -> list[str]:
    """Runs of letters, digits and their marks; where a script has no blanks between words, each character is one."""
    return unicodedata.normalize("NFC", text).translate(_APART).split()


class _Apart(dict[int, str]):
    """Maps a character to itself, between blanks if it is a word by itself, or to a blank; filled as texts need it."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if unicodedata.category(character)[0] not in "LMN":
            apart = " "
        elif unicodedata.name(character, "").startswith(NO_BLANKS):
            apart = f" {character} "
        else:
            apart = character
        self[code] = apart
        return apart


_APART = _Apart()
