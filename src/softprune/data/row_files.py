"""Rows out of JSON lines, CSV and Parquet files, with the line number in every complaint, and rows into such files."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import math
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Self

from softprune.errors import SoftpruneError, out_of_memory
from softprune.runs.atomic_io import temporary_for
from softprune.text_encoding import check_narrow, how_to_convert

Row = dict[str, Any]
Format = Literal["jsonl", "csv", "parquet"]
ENDINGS: dict[str, Format] = {".jsonl": "jsonl", ".json": "jsonl", ".csv": "csv", ".parquet": "parquet"}
OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
"""What may follow such an ending, and what opens it; not Parquet's, which is packed by itself."""
PARQUET_ROWS = 1024
"""Rows of a Parquet file in memory at a time."""
LONGEST_CELL = 2**31 - 1
"""Characters of a CSV cell at most; Python's own limit is 131,072."""
_JSON_LINES = "one JSON object per line"
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True, slots=True)
class Located:
    """A row and its place, such as `train.jsonl, line 3`."""

    row: Row
    where: str


def refuse_columns(rows: Iterable[Located], added: Sequence[str]) -> Iterator[Located]:
    """The rows as they come; one that already has a column which is going to be added is refused."""
    for located in rows:
        taken = ", ".join(name for name in added if name in located.row)
        if taken:
            expected = f"rows without a column {taken}, which is added"
            raise SoftpruneError(expected, f"{taken} in {located.where}", "rename it in the input")
        yield located


def plain_row(row: Mapping[Any, Any]) -> Row:
    """A row whose values are those of JSON: see `plain_value`."""
    return {name: plain_value(value) for name, value in row.items()}


def plain_value(value: Any) -> Any:
    """A value as JSON has it, what is nested in it included.

    Missing values (NaN, pandas' NA and NaT) become None, and so do infinities, which JSON lacks; numbers of
    numpy and of `decimal` become Python's. Other types stay.
    """
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return plain_row(value)
    if isinstance(value, list | tuple):
        return [plain_value(item) for item in value]
    if type(value).__module__ == "numpy":
        return plain_value(value.tolist())
    if isinstance(value, Decimal):
        value = float(value) if value.is_finite() else math.nan
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return None if type(value).__name__ in ("NAType", "NaTType") else value


def find_file(folder: Path, name: str) -> Path | None:
    """The file of that name, plain or with `.gz` or `.xz`."""
    return next((path for end in ("", *OPENERS) if (path := folder / f"{name}{end}").is_file()), None)


def file_format(path: Path) -> Format | None:
    """What a file's ending says about its format; None for any other ending."""
    return ENDINGS.get(strip_compression(path.name).suffix)


def strip_compression(name: str) -> Path:
    """A file's name without `.gz` or `.xz`."""
    path = Path(name)
    return path.with_suffix("") if path.suffix in OPENERS else path


def read_rows(path: Path, kind: Format, header: Sequence[str] | None = None) -> Iterator[Located]:
    """Read a file row by row, never as a whole; `header` names the columns of a CSV that has no header line."""
    if kind == "parquet":
        rows = _parquet_rows(path)
    elif kind == "csv":
        rows = _csv_rows(path, header)
    else:
        rows = _jsonl_rows(path)
    yield from (Located(plain_row(located.row), located.where) for located in rows)


def _jsonl_rows(path: Path) -> Iterator[Located]:
    first = True
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        if first:
            # An array, or an object over several lines, shows in its first line.
            kind = {"[": "an array", "{": "an object over several lines"}.get(line.strip())
            if kind is None and re.match(r"\s*\[\s*\{", line):
                kind = "an array"
            if kind is not None:
                do = "write one object per line: jq -c '.[]' FILE for an array, jq -c . FILE for objects"
                raise SoftpruneError(_JSON_LINES, f"{kind} from {where}", f"{do}; pandas: lines=True")
        row = _parse_object(line, where)
        if first and _is_table(row):
            found = f"columns of a whole table in {where}, as pandas' to_json writes them by default"
            raise SoftpruneError(_JSON_LINES, found, 'write it with to_json(FILE, orient="records", lines=True)')
        yield Located(row, where)
        first = False


def _parse_object(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
        if "\\ud" in line.lower():  # an escape of half a character, which no UTF-8 file could hold
            json.dumps(row, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise SoftpruneError(_JSON_LINES, f"{error.msg} in {where}, column {error.colno}", "fix that line") from None
    except UnicodeEncodeError:
        raise SoftpruneError("text in UTF-8", f"half of a surrogate pair in {where}", "fix that line") from None
    except (RecursionError, ValueError) as error:  # ValueError: an integer of over 4,300 digits
        raise SoftpruneError(_JSON_LINES, f"{error} in {where}", "fix that line") from None
    if not isinstance(row, dict):
        raise SoftpruneError(_JSON_LINES, f"a {type(row).__name__} in {where}", "fix that line")
    return row


def _is_table(row: Row) -> bool:
    """Whether an object is all rows of a pandas table: columns of {index: value}, or its `split` or `table` form."""
    values = list(row.values())
    if set(row) == {"columns", "index", "data"}:
        return all(isinstance(value, list) for value in values)
    if set(row) == {"schema", "data"}:
        return isinstance(row["schema"], dict) and isinstance(row["data"], list)
    if not values or not all(isinstance(value, dict) and value for value in values):
        return False
    same = all(list(value) == list(values[0]) for value in values)
    return same and any(all(name.isdecimal() for name in names) for names in (row, values[0]))


def _csv_rows(path: Path, header: Sequence[str] | None) -> Iterator[Located]:
    # Quoted cells may hold line breaks, and every kind of break counts as a line.
    lines: Iterator[str] = (line for text in _lines(path) for line in io.StringIO(text, newline=""))
    csv.field_size_limit(LONGEST_CELL)
    if header is None:
        first = next(lines, "")
        bare = re.sub(r'"[^"]*"', "", first)  # signs within quotes are no separators
        used = [name for sign, name in _SEPARATORS.items() if sign in bare]
        if used and "," not in bare:
            do = "write the file again with commas (pandas: to_csv without sep)"
            raise SoftpruneError("columns with commas between them", f"{used[0]} in {path}, line 1", do)
        lines = chain([first], lines)
    reader = csv.reader(lines, strict=True)  # else an open quote would swallow the rest of the file
    names = list(header or ())
    try:
        for cells in filter(None, reader):
            where = f"{path}, line {reader.line_num}"
            if not names:
                _check_names(cells, where)
                names = cells
                continue
            if len(cells) != len(names):
                expected, found = f"{len(names)} values ({', '.join(names)})", f"{len(cells)} values in {where}"
                do = "fix that line; texts with commas or line breaks go in double quotes"
                raise SoftpruneError(expected, found, do)
            yield Located(dict(zip(names, cells, strict=True)), where)
    except csv.Error as error:
        found = f"{error} in {path}, line {reader.line_num}"
        raise SoftpruneError("comma-separated values", found, "fix that line") from None


def _check_names(names: Sequence[str], where: str) -> None:
    """Column names must differ, and none may be empty."""
    for number, name in enumerate(names, start=1):
        if not name.strip():
            do = "name it (pandas writes its index without a name: to_csv(index=False) leaves it out)"
            raise SoftpruneError("a name for every column", f"column {number} without one in {where}", do)
    twice = list(dict.fromkeys(name for name in names if names.count(name) > 1))
    if twice:
        raise SoftpruneError("column names that differ", f"{', '.join(twice)} twice in {where}", "rename one of them")


def _parquet_rows(path: Path) -> Iterator[Located]:
    pyarrow = _import_pyarrow()
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_names(file.schema_arrow.names, str(path))
            for batch in file.iter_batches(batch_size=PARQUET_ROWS):
                for row in batch.to_pylist():
                    yield Located(row, f"{path}, row {number}")
                    number += 1
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        if out_of_memory(error):
            raise
        found = f"{str(error).strip().partition(chr(10))[0]} at row {number}"
        raise SoftpruneError(f"a Parquet file at {path}", found, "write the file again") from None


def _import_pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        do = "pip install softprune[hub], or use .jsonl"
        raise SoftpruneError("pyarrow, to read or write Parquet", "it is not installed", do) from None
    return pyarrow


def _lines(path: Path) -> Iterator[str]:
    """Lines with their ends; a byte order mark is dropped."""
    number = 0
    try:
        with OPENERS.get(path.suffix, open)(path, "rb") as file:
            for number, raw in enumerate(file, start=1):
                if number == 1:
                    check_narrow(raw, path)
                yield raw.decode("utf-8-sig" if number == 1 else "utf-8")  # the mark is only at the start
    except UnicodeDecodeError as error:
        found = f"byte 0x{error.object[error.start]:02x} in {path}, line {number}"
        raise SoftpruneError("text in UTF-8", found, how_to_convert(error.object, path)) from None
    except (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        kind = "an xz" if path.suffix == ".xz" else "a gzip"
        raise SoftpruneError(f"{kind} archive at {path}", str(error), "fetch the file again") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL or half a surrogate pair
        raise SoftpruneError(f"a readable file at {path}", str(error), "check the path and its rights") from None


class RowWriter:
    """A file of rows, written piece by piece under a temporary name; renamed on leaving without an error.

    The path's ending decides the format: .jsonl, .csv (both also .gz or .xz) or .parquet.
    """

    def __init__(self, path: Path) -> None:
        kind = file_format(path)
        if kind is None:
            raise SoftpruneError("an output file that ends in .jsonl, .csv or .parquet", str(path), "rename it")
        if not path.parent.is_dir():
            raise SoftpruneError("a folder for the output file", f"no folder {path.parent}", "make it first")
        self._path, self._kind = path, kind
        self._temporary = temporary_for(path)
        self._file: _TextFile | _ParquetFile | None = None

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows, one at least; the first ones decide the columns of CSV and Parquet, and others are refused."""
        if self._file is None and self._kind == "parquet":
            self._file = _ParquetFile(self._temporary, rows)
        elif self._file is None:
            # The temporary name has another ending than the file, so how to pack it is taken from the path.
            raw = OPENERS.get(self._path.suffix, open)(self._temporary, "wb")
            self._file = _TextFile(raw, list(rows[0]) if self._kind == "csv" else None)
        self._file.write(rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if self._file is not None:
                self._file.close()
            if kind is None:
                self._temporary.touch()  # without any rows nothing was opened: an empty file
                self._temporary.replace(self._path)
        finally:
            self._temporary.unlink(missing_ok=True)


class _TextFile:
    """CSV with the given columns, or JSON lines where there are none given."""

    def __init__(self, raw: Any, columns: Sequence[str] | None) -> None:
        text = io.TextIOWrapper(raw, encoding="utf-8", newline="")
        self._text, self._columns = text, columns
        self._csv = csv.DictWriter(text, columns or (), lineterminator="\n")
        if columns is not None:
            self._csv.writeheader()
        self.close = text.close

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if self._columns is None:
                self._text.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
                continue
            more = set(row) - set(self._columns)
            if more:
                expected = f"rows with the columns of the first one ({', '.join(self._columns)})"
                found = f"{', '.join(sorted(more))} in a later row"
                raise SoftpruneError(expected, found, "write .jsonl, whose rows may differ")
            self._csv.writerow({name: _cell(value) for name, value in row.items()})


class _ParquetFile:
    def __init__(self, path: Path, first_rows: Sequence[Row]) -> None:
        self._pyarrow = pyarrow = _import_pyarrow()
        schema = self._table(first_rows).schema
        # Parquet wants a type before the first row: a column without any value so far is written as text.
        self._untyped = {field.name for field in schema if field.type == pyarrow.null()}
        text = pyarrow.string()
        fields = [field.with_type(text) if field.name in self._untyped else field for field in schema]
        self._writer = pyarrow.parquet.ParquetWriter(path, pyarrow.schema(fields))
        self.close = self._writer.close

    def write(self, rows: Sequence[Row]) -> None:
        typed = []
        for row in rows:
            as_text = {name: str(_cell(row[name])) for name in self._untyped if row.get(name) is not None}
            typed.append({**row, **as_text})
        self._writer.write_table(self._table(typed, self._writer.schema))

    def _table(self, rows: Sequence[Row], schema: Any = None) -> Any:
        try:
            return self._pyarrow.Table.from_pylist(list(rows), schema=schema)
        except (self._pyarrow.ArrowInvalid, self._pyarrow.ArrowTypeError) as error:
            raise SoftpruneError("columns of one type each, for Parquet", str(error), "write .jsonl") from None


def _cell(value: Any) -> Any:
    """A value in a CSV cell: nested ones as JSON."""
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict | list) else value
