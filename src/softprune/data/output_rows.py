"""Rows into JSON lines, CSV or Parquet as they come; the file appears under its name when it is whole."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from softprune.data.row_files import Format, Row, format_of
from softprune.errors import SoftpruneError
from softprune.runs.atomic_io import temporary_for


class _Sink(Protocol):
    def write(self, rows: Sequence[Row]) -> None: ...

    def close(self) -> None: ...


class RowWriter:
    """A file of rows, written piece by piece under a temporary name; renamed on leaving without an error.

    Args:
        path: its ending tells the format: .jsonl, .csv (both also .gz or .xz) or .parquet.

    Raises:
        SoftpruneError: for another ending, or a folder that isn't there.
    """

    def __init__(self, path: Path) -> None:
        kind = format_of(path)
        if kind is None:
            raise SoftpruneError("an output file that ends in .jsonl, .csv or .parquet", str(path), "rename it")
        if not path.parent.is_dir():
            raise SoftpruneError("a folder for the output file", f"no folder {path.parent}", "make it first")
        self._path, self._kind = path, kind
        self._temporary = temporary_for(path)
        self._sink: _Sink | None = None

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows; the first ones tell the columns of CSV and Parquet."""
        if self._sink is None:
            self._sink = _sink(self._temporary, self._path, self._kind, rows)
        self._sink.write(rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if self._sink is not None:
                self._sink.close()
            if kind is None:
                self._temporary.touch()  # no rows: an empty file
                self._temporary.replace(self._path)
        finally:
            self._temporary.unlink(missing_ok=True)


def _sink(temporary: Path, path: Path, kind: Format, rows: Sequence[Row]) -> _Sink:
    if kind == "parquet":
        return _Parquet(temporary)
    packing: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
    raw = packing.get(path.suffix, open)(temporary, "wb")
    text = io.TextIOWrapper(raw, encoding="utf-8", newline="")
    return _Csv(text, list(rows[0])) if kind == "csv" else _JsonLines(text)


class _JsonLines:
    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text

    def write(self, rows: Sequence[Row]) -> None:
        self._text.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)

    def close(self) -> None:
        self._text.close()


class _Csv:
    def __init__(self, text: io.TextIOWrapper, columns: Sequence[str]) -> None:
        self._text, self._columns = text, columns
        self._writer = csv.DictWriter(text, columns, lineterminator="\n")
        self._writer.writeheader()

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            more = set(row) - set(self._columns)
            if more:
                raise SoftpruneError(
                    f"rows with the columns of the first one ({', '.join(self._columns)})",
                    f"{', '.join(sorted(more))} in a later row",
                    "write .jsonl, whose rows may differ",
                )
            self._writer.writerow({name: _cell(value) for name, value in row.items()})

    def close(self) -> None:
        self._text.close()


class _Parquet:
    def __init__(self, path: Path) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise SoftpruneError(
                "pyarrow, to write Parquet", "it is not installed", "pip install softprune[hub], or write .jsonl"
            ) from None
        self._pyarrow, self._path = pyarrow, path
        self._writer: Any = None
        self._untold: set[str] = set()

    def write(self, rows: Sequence[Row]) -> None:
        try:
            if self._writer is None:
                self._open(self._pyarrow.Table.from_pylist(list(rows)).schema)
            table = self._pyarrow.Table.from_pylist([self._read(row) for row in rows], schema=self._writer.schema)
            self._writer.write_table(table)
        except (self._pyarrow.ArrowInvalid, self._pyarrow.ArrowTypeError) as error:
            raise SoftpruneError("columns of one type each, for Parquet", str(error), "write .jsonl") from None

    def _open(self, found: Any) -> None:
        """A column without any value so far is written as text: Parquet wants a type before the first row."""
        nothing, text = self._pyarrow.null(), self._pyarrow.string()
        self._untold = {field.name for field in found if field.type == nothing}
        schema = self._pyarrow.schema([field.with_type(text) if field.type == nothing else field for field in found])
        self._writer = self._pyarrow.parquet.ParquetWriter(self._path, schema)

    def _read(self, row: Row) -> Row:
        """The row, with text for the values of columns that had none at first."""
        late = {name: str(_cell(row[name])) for name in self._untold if row.get(name) is not None}
        return {**row, **late}

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _cell(value: Any) -> Any:
    """A value in a CSV cell: nested ones as JSON."""
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict | list) else value
