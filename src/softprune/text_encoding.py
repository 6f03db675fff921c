"""Files that aren't UTF-8: what they are, and the command that converts them."""

from __future__ import annotations

import re
from pathlib import Path

from softprune.errors import SoftpruneError

_MARKS = (
    (b"\xff\xfe\0\0", "utf-32"),  # before UTF-16, whose mark it begins with
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
# Without a mark: zeros beside the first letters, or beside a separator where the letters aren't Latin ones.
_ZEROS = {
    "utf-32le": re.compile(rb"[^\0].\0\0", re.DOTALL),
    "utf-32be": re.compile(rb"\0\0.[^\0]", re.DOTALL),
    "utf-16le": re.compile(rb"[^\0]\0[^\0]\0|(?:..)*?[,:;\t\"{]\0", re.DOTALL),
    "utf-16be": re.compile(rb"\0[^\0]\0[^\0]|(?:..)*?\0[,:;\t\"{]", re.DOTALL),
}


def check_narrow(start: bytes, path: Path) -> None:
    """Refuse UTF-16 and UTF-32 by how a file begins: without a mark, much of them would pass for UTF-8."""
    encoding, sign = _wide(start)
    if encoding:
        raise SoftpruneError("text in UTF-8", f"{sign} {encoding.upper()} in {path}", _conversion(encoding, path))


def how_to_convert(start: bytes, path: Path) -> str:
    """The command that converts a file to UTF-8, chosen by the bytes that it begins with."""
    encoding, _ = _wide(start)
    if encoding:
        return _conversion(encoding, path)
    return f"{_conversion('windows-1252', path)}, if it is Western text of Windows (find its encoding out first)"


def _wide(start: bytes) -> tuple[str, str]:
    """UTF-16 or UTF-32 as iconv calls it, and the sign of it; "" for anything else."""
    marked = next((name for mark, name in _MARKS if start.startswith(mark)), "")
    if marked:
        return marked, "the byte-order mark of"
    return next((name for name, zeros in _ZEROS.items() if zeros.match(start)), ""), "zero bytes as in"


def _conversion(encoding: str, path: Path) -> str:
    """The command that converts a file, which is unpacked first where it is packed."""
    unpacking = {".gz": "gzip -dc FILE | ", ".xz": "xz -dc FILE | "}.get(path.suffix, "")
    source = "" if unpacking else " FILE"
    return f"convert it: {unpacking}iconv -f {encoding} -t utf-8{source} > NEW"
