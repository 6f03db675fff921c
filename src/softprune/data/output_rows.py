"""Rows into JSON lines, CSV or Parquet as they come; the file appears under its name when it is whole."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from softprune.data.row_files import OPENERS, Row, file_format
from softprune.errors import SoftpruneError
from softprune.runs.atomic_io import temporary_for


class RowWriter:
    """A file of rows, written piece by piece under a temporary name; renamed on leaving without an error.

    The path's ending decides the format: .jsonl, .csv (both also .gz or .xz) or .parquet.

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
        self._file: _TextFile | _ParquetFile | None = None

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows, one at least; the first ones decide the columns of CSV and Parquet.

        Raises:
            SoftpruneError: for rows whose columns or types differ from those of the first, in CSV or Parquet.
        """
        if self._file is None and self._kind == "parquet":
            self._file = _ParquetFile(self._temporary, rows)
        elif self._file is None:
            # The temporary name has another ending than the file, so how to pack it is taken from the path.
            raw = OPENERS.get(self._path.suffix, open)(self._temporary, "wb")
            self._file = _TextFile(raw, list(rows[0]) if self._kind == "csv" else None)
        self._file.write(rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
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
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            do = "pip install softprune[hub], or write .jsonl"
            raise SoftpruneError("pyarrow, to write Parquet", "it is not installed", do) from None
        self._pyarrow = pyarrow
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
        table = self._table(typed, self._writer.schema)
        self._writer.write_table(table)

    def _table(self, rows: Sequence[Row], schema: Any = None) -> Any:
        try:
            return self._pyarrow.Table.from_pylist(list(rows), schema=schema)
        except (self._pyarrow.ArrowInvalid, self._pyarrow.ArrowTypeError) as error:
            raise SoftpruneError("columns of one type each, for Parquet", str(error), "write .jsonl") from None


def _cell(value: Any) -> Any:
    """A value in a CSV cell: nested ones as JSON."""
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict | list) else value
