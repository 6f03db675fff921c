"""Rows out of JSON lines, CSV and Parquet files, with the line number in every complaint."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from softprune.errors import SoftpruneError

Row = dict[str, Any]
Format = Literal["jsonl", "csv", "parquet"]
ENDINGS: dict[str, Format] = {".jsonl": "jsonl", ".json": "jsonl", ".csv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True, slots=True)
class Located:
    """A row and where it stands, such as `train.jsonl, line 3`."""

    row: Row
    where: str


def find_file(folder: Path, name: str) -> Path | None:
    """The file of that name, plain or with `.gz`."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def format_of(path: Path) -> Format | None:
    """What a file's ending says about its format; None for any other ending."""
    return ENDINGS.get(Path(path.name.removesuffix(".gz")).suffix)


def read_rows(path: Path, kind: Format, header: Sequence[str] | None = None) -> Iterator[Located]:
    """Read a file row by row.

    Args:
        path: the file; jsonl and csv may be gzipped.
        kind: its format.
        header: column names of a CSV that has no header line.

    Raises:
        SoftpruneError: for what isn't UTF-8, a malformed line, or a broken archive.
    """
    if kind == "parquet":
        yield from _parquet_rows(path)
    elif kind == "csv":
        yield from _csv_rows(path, header)
    else:
        yield from _jsonl_rows(path)


def _jsonl_rows(path: Path) -> Iterator[Located]:
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise SoftpruneError(
                "one JSON object per line", f"{error.msg} in {where}, column {error.colno}", "mend that line"
            ) from None
        if not isinstance(row, dict):
            raise SoftpruneError("one JSON object per line", f"a {type(row).__name__} in {where}", "mend that line")
        yield Located(row, where)


def _csv_rows(path: Path, header: Sequence[str] | None) -> Iterator[Located]:
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    names = list(header or ())
    try:
        for cells in reader:
            if not cells:
                continue
            if not names:
                names = cells
                continue
            where = f"{path}, line {reader.line_num}"
            if len(cells) != len(names):
                raise SoftpruneError(
                    f"{len(names)} values ({', '.join(names)})",
                    f"{len(cells)} values in {where}",
                    "mend that line; texts with commas or line breaks stand in double quotes",
                )
            yield Located(dict(zip(names, cells, strict=True)), where)
    except csv.Error as error:
        raise SoftpruneError(
            "comma-separated values", f"{error} in {path}, line {reader.line_num}", "mend that line"
        ) from None


def _parquet_rows(path: Path) -> Iterator[Located]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise SoftpruneError("pyarrow, to read Parquet", "it is not installed", "pip install softprune[hub]") from None
    try:
        rows: list[Row] = parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        found = str(error).splitlines()[0]
        raise SoftpruneError(f"a Parquet file at {path}", found, "write the file again") from None
    for number, row in enumerate(rows):
        yield Located(row, f"{path}, row {number}")


def _text(path: Path) -> str:
    raw = _bytes(path)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SoftpruneError(
            "text in UTF-8",
            f"byte 0x{raw[error.start]:02x} in {path}, line {line}",
            "convert the file (iconv -f latin1 -t utf-8)",
        ) from None


def _bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise SoftpruneError(f"a gzip archive at {path}", str(error), "fetch the file again") from None
    except OSError as error:
        raise SoftpruneError(f"a readable file at {path}", str(error), "check the path and its rights") from None
