"""Vocabulary items as a person reads them: whole words plain, pieces that continue a word behind "…".

Three ways to write a vocabulary: bytes in GPT-2's alphabet ("Ġ" for a blank), SentencePiece ("▁"), WordPiece ("##").
Text of any script is intact; bytes that are no whole character are shown as `<E4 B8>`, and characters that a terminal
or a page would obey by their code point (`<U+202E>`).
"""

from __future__ import annotations

import unicodedata
from typing import Any

from softprune.data.rouge import NO_BLANKS
from softprune.prompts.initialization import PLACEHOLDER

CONTINUES = "…"
BLANK = "␣"
_MARKS = {"bytes": "Ġ", "pieces": "▁", "wordpiece": "##"}
# A vocabulary that marks words marks far more of them; fewer are chance.
_LEAST_SHARE = 0.005


class Vocabulary:
    """A Hugging Face tokenizer's items; those beyond `size`, the rows of the model's input embeddings, are none."""

    def __init__(self, tokenizer: Any, size: int) -> None:
        # As the vocabulary writes them; None where an id has none.
        self.tokens: list[str | None] = tokenizer.convert_ids_to_tokens(range(min(size, len(tokenizer))))
        self._ids: dict[str, int] = {}
        special, pool = set(tokenizer.all_special_ids), []
        counts = dict.fromkeys(_MARKS, 0)
        for i, token in enumerate(self.tokens):
            if token is not None:
                self._ids.setdefault(token, i)  # of equal texts the first counts
            if token and i not in special and not PLACEHOLDER.fullmatch(token):
                pool.append(i)
            for style, mark in _MARKS.items():
                counts[style] += bool(token and token.startswith(mark))
        self.pool = tuple(pool)  # ids of words, pieces of words and signs, ascending
        self.style = max(counts, key=lambda name: counts[name])
        if counts[self.style] <= _LEAST_SHARE * sum(map(bool, self.tokens)):
            self.style = "plain"

    def shown(self, token_id: int) -> str:
        """An item for a reader; "" for an id without an item."""
        token = self.tokens[token_id] if 0 <= token_id < len(self.tokens) else None
        return "" if token is None else shown(token, self.style)

    def shown_token(self, token: str) -> str:
        """An item as the vocabulary writes it, for a reader; any other text with its control characters visible."""
        return self.shown(self._ids[token]) if token in self._ids else visible(token)


def shown(token: str, style: str) -> str:
    """An item for a reader, from how the vocabulary writes it; `style` as of `Vocabulary`."""
    if style == "wordpiece":
        whole, text = not token.startswith("##"), visible(token.removeprefix("##") or token)
        return text if whole or not text[0].isalnum() else CONTINUES + text
    if style == "plain":
        return visible(token)
    text = _of_bytes(token) if style == "bytes" else visible(token.replace("▁", " "))
    bare = text.lstrip(" ")
    if not bare:
        return BLANK * len(text)
    # Without a blank in front of it a letter is the inside of a word, but in scripts that write none.
    is_inside = bare == text and bare[0].isalnum() and not unicodedata.name(bare[0], "").startswith(NO_BLANKS)
    return CONTINUES + bare if is_inside else bare


def key(word: str) -> str:
    """What two readable items are the same by: their letters, whatever their case; pieces are no words."""
    return word.casefold()


def visible(text: str) -> str:
    """Text with everything that isn't printable as its code point."""
    return "".join(c if c.isprintable() else f"<U+{ord(c):04X}>" for c in text)


# GPT-2's characters for bytes: printable ones are themselves, the others are from U+0100 on, in order.
_PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_BYTES = {chr(byte): byte for byte in _PRINTABLE}
_BYTES |= {chr(256 + n): byte for n, byte in enumerate(sorted(set(range(256)) - set(_PRINTABLE)))}


def _of_bytes(token: str) -> str:
    if any(c not in _BYTES for c in token):  # an added token, in letters of its own
        return visible(token)
    data, text = bytes(_BYTES[c] for c in token), ""
    while data:
        try:
            return text + visible(data.decode("utf-8"))
        except UnicodeDecodeError as error:
            good, bad = data[: error.start].decode("utf-8"), data[error.start : error.end]
            text += f"{visible(good)}<{bad.hex(' ').upper()}>"
            data = data[error.end :]
    return text
