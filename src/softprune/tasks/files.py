"""Rows out of JSON lines, CSV and Parquet files, one after the other, with the line number in every complaint."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from softprune.errors import SoftpruneError, out_of_memory

Row = dict[str, Any]
Format = Literal["jsonl", "csv", "parquet"]
ENDINGS: dict[str, Format] = {".jsonl": "jsonl", ".json": "jsonl", ".csv": "csv", ".parquet": "parquet"}
PACKED = (".gz", ".xz")
"""What may stand behind such an ending, but for Parquet, which is packed by itself."""
PARQUET_ROWS = 1024
"""Rows of a Parquet file in memory at a time."""


@dataclass(frozen=True, slots=True)
class Located:
    """A row and where it stands, such as `train.jsonl, line 3`."""

    row: Row
    where: str


def find_file(folder: Path, name: str) -> Path | None:
    """The file of that name, plain or with `.gz` or `.xz`."""
    return next((path for end in ("", *PACKED) if (path := folder / f"{name}{end}").is_file()), None)


def format_of(path: Path) -> Format | None:
    """What a file's ending says about its format; None for any other ending."""
    return ENDINGS.get(unpacked(path.name).suffix)


def unpacked(name: str) -> Path:
    """A file's name without `.gz` or `.xz`."""
    path = Path(name)
    return path.with_suffix("") if path.suffix in PACKED else path


def read_rows(path: Path, kind: Format, header: Sequence[str] | None = None) -> Iterator[Located]:
    """Read a file row by row; it is never in memory as a whole.

    Args:
        path: the file; jsonl and csv may be packed (.gz, .xz).
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
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            yield Located(_json_object(line, where), where)


def _json_object(line: str, where: str) -> Row:
    expected = "one JSON object per line"
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode() if "\\ud" in line.lower() else None
    except json.JSONDecodeError as error:
        raise SoftpruneError(expected, f"{error.msg} in {where}, column {error.colno}", "mend that line") from None
    except UnicodeEncodeError:
        raise SoftpruneError("text in UTF-8", f"half of a surrogate pair in {where}", "mend that line") from None
    except (RecursionError, ValueError) as error:
        raise SoftpruneError(expected, f"{error} in {where}", "mend that line") from None
    if not isinstance(row, dict):
        raise SoftpruneError(expected, f"a {type(row).__name__} in {where}", "mend that line")
    return row


def _csv_rows(path: Path, header: Sequence[str] | None) -> Iterator[Located]:
    # Quoted cells may hold line breaks, and every kind of break counts as a line.
    lines = (line for text in _lines(path) for line in io.StringIO(text, newline=""))
    reader = csv.reader(lines, strict=True)
    names = list(header or ())
    try:
        for cells in filter(None, reader):
            where = f"{path}, line {reader.line_num}"
            if not names:
                names = _checked_names(cells, where)
                continue
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


def _checked_names(names: Sequence[str], where: str) -> list[str]:
    """Column names, each of which stands for one column."""
    if any(not name.strip() for name in names):
        found = f"column {next(n for n, name in enumerate(names, start=1) if not name.strip())} without one in {where}"
        do = "name it (pandas writes its index without a name: to_csv(index=False) leaves it out)"
        raise SoftpruneError("a name for every column", found, do)
    twice = list(dict.fromkeys(name for name in names if names.count(name) > 1))
    if twice:
        raise SoftpruneError("column names that differ", f"{', '.join(twice)} twice in {where}", "rename one of them")
    return list(names)


def _parquet_rows(path: Path) -> Iterator[Located]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise SoftpruneError("pyarrow, to read Parquet", "it is not installed", "pip install softprune[hub]") from None
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _checked_names(file.schema_arrow.names, str(path))
            for batch in file.iter_batches(batch_size=PARQUET_ROWS):
                for row in batch.to_pylist():
                    yield Located(row, f"{path}, row {number}")
                    number += 1
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        if out_of_memory(error):
            raise
        found = f"{str(error).strip().partition(chr(10))[0]} at row {number}"
        raise SoftpruneError(f"a Parquet file at {path}", found, "write the file again") from None


def _lines(path: Path) -> Iterator[str]:
    """Lines with their ends; a byte order mark is dropped."""
    number = 0
    try:
        with _opened(path) as file:
            for number, raw in enumerate(file, start=1):
                yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise SoftpruneError(
            "text in UTF-8",
            f"byte 0x{error.object[error.start]:02x} in {path}, line {number}",
            "convert the file (iconv -f latin1 -t utf-8)",
        ) from None
    except (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        kind = "an xz" if path.suffix == ".xz" else "a gzip"
        raise SoftpruneError(f"{kind} archive at {path}", str(error), "fetch the file again") from None
    except OSError as error:
        raise SoftpruneError(f"a readable file at {path}", str(error), "check the path and its rights") from None


def _opened(path: Path) -> BinaryIO | gzip.GzipFile | lzma.LZMAFile:
    if path.suffix == ".xz":
        return lzma.open(path, "rb")
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
