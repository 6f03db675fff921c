"""A document: one text, as a cartridge takes its place."""

from __future__ import annotations

from pathlib import Path

from softprune.errors import SoftpruneError
from softprune.text_encoding import check_narrow, how_to_convert


def read_document(path: str | Path) -> str:
    """The text of a document; a SoftpruneError where there is none, or no text in UTF-8."""
    file, do = Path(path), "name a text file in adapter.document (--document)"
    try:
        content = file.read_bytes()
    except OSError as error:
        raise SoftpruneError("a readable document", f"{file}: {error.strerror or error}", do) from error
    check_narrow(content[:4096], file)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SoftpruneError("a document in UTF-8", f"{file}: {error}", how_to_convert(content, file)) from error
    if not text.strip():
        raise SoftpruneError("a document with text in it", f"nothing in {file}", do)
    return text
