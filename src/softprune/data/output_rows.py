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

from softprune.data.row_files import Row, file_format
from softprune.errors import SoftpruneError
from softprune.runs.atomic_io import temporary_for

_COMPRESSION: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}


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
        kind = file_format(path)
        if kind is None:
            raise SoftpruneError("an output file that ends in .jsonl, .csv or .parquet", str(path), "rename it")
        if not path.parent.is_dir():
            raise SoftpruneError("a folder for the output file", f"no folder {path.parent}", "make it first")
        self._path, self._kind = path, kind
        self._temporary = temporary_for(path)
        self._sink: _Sink | None = None

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows; the first ones decide the columns of CSV and Parquet.

        Raises:
            SoftpruneError: for rows whose columns or types differ from those of the first, in CSV or Parquet.
        """
        if self._sink is None:
            self._sink = self._open(list(rows[0]))
        self._sink.write(rows)

    def _open(self, columns: Sequence[str]) -> _Sink:
        if self._kind == "parquet":
            return _Parquet(self._temporary)
        # The temporary name has another ending than the file, so how to pack it is taken from the path.
        raw = _COMPRESSION.get(self._path.suffix, open)(self._temporary, "wb")
        text = io.TextIOWrapper(raw, encoding="utf-8", newline="")
        return _Csv(text, columns) if self._kind == "csv" else _JsonLines(text)

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


class _JsonLines:
    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self.close = text.close

    def write(self, rows: Sequence[Row]) -> None:
        self._text.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)


class _Csv:
    def __init__(self, text: io.TextIOWrapper, columns: Sequence[str]) -> None:
        self._columns = columns
        self._writer = csv.DictWriter(text, columns, lineterminator="\n")
        self._writer.writeheader()
        self.close = text.close

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
        self._untyped: set[str] = set()

    def write(self, rows: Sequence[Row]) -> None:
        try:
            if self._writer is None:
                self._open(self._pyarrow.Table.from_pylist(list(rows)).schema)
            typed = [{**row, **self._as_text(row)} for row in rows]
            self._writer.write_table(self._pyarrow.Table.from_pylist(typed, schema=self._writer.schema))
        except (self._pyarrow.ArrowInvalid, self._pyarrow.ArrowTypeError) as error:
            raise SoftpruneError("columns of one type each, for Parquet", str(error), "write .jsonl") from None

    def _open(self, schema: Any) -> None:
        """A column without any value so far is written as text: Parquet wants a type before the first row."""
        self._untyped = {field.name for field in schema if field.type == self._pyarrow.null()}
        text = self._pyarrow.string()
        fields = [field.with_type(text) if field.name in self._untyped else field for field in schema]
        self._writer = self._pyarrow.parquet.ParquetWriter(self._path, self._pyarrow.schema(fields))

    def _as_text(self, row: Row) -> Row:
        return {name: str(_cell(row[name])) for name in self._untyped if row.get(name) is not None}

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _cell(value: Any) -> Any:
    """A value in a CSV cell: nested ones as JSON."""
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict | list) else value
