"""Rows to be answered: which of a task's layouts they are written in, recognised by the first of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from softprune.data.definition import Definition, FileSource, Source, named_sources
from softprune.data.row_files import Located, file_format, read_rows
from softprune.data.template import unanswered_rows
from softprune.errors import SoftpruneError


def choose_source(definition: Definition, first: Located) -> Source:
    """The layout that a row reads in; one in which its label reads too, before others.

    Raises:
        SoftpruneError: where none fits; it names the fields.
    """
    plain = Source(labels={answer: answer for answer in definition.answers}, verified=True)
    readable = []
    for source in (*named_sources(definition.sources).values(), plain):
        try:
            rows = list(unanswered_rows(definition, source, [first]))
        except SoftpruneError:
            continue
        if rows and all(row.example.gold >= 0 for row in rows):
            return source
        readable.append(source)
    if not readable:
        list(unanswered_rows(definition, plain, [first]))  # raises
    return readable[0]


def read_input(definitions: Sequence[Definition], path: Path) -> Iterator[Located]:
    """Rows of a file to be answered, as the tasks' own files are written.

    A CSV whose first line isn't column names (no task could read its rows by them) has the columns that a task states
    for its files (`header`), with or without the label's. A file whose name doesn't show its format has the one that a
    task states.

    Args:
        definitions: the tasks that rows may be of.
        path: the file.

    Raises:
        SoftpruneError: there is no such file, its format isn't known, or it can't be read.
    """
    tasks = [part for definition in definitions for part in definition.parts or (definition,)]
    kind = file_format(path)
    if kind is None:
        kind = next((own.format for own in (task.sources.file for task in tasks) if own and own.format), None)
    if kind is None or not path.is_file():
        found = f"no file {path}" if kind is not None else str(path)
        raise SoftpruneError("an input file that ends in .jsonl, .csv or .parquet", found, "correct --input")
    headers: list[tuple[str, ...] | None] = []
    for task in tasks if kind == "csv" else ():
        right = task.target or task.gold
        for source in named_sources(task.sources).values():
            if isinstance(source, FileSource) and source.header is not None:
                label = source.columns.get(right, right)
                headers += [source.header, tuple(name for name in source.header if name != label)]
    if headers:
        for header in (None, *dict.fromkeys(headers)):
            if any(_fits_header(task, path, header) for task in tasks):
                return read_rows(path, kind, header)
    return read_rows(path, kind)


def _fits_header(task: Definition, path: Path, header: Sequence[str] | None) -> bool:
    """Whether the first row of a CSV reads in one of a task's layouts, under these column names."""
    try:
        first = next(read_rows(path, "csv", header), None)
        return first is not None and choose_source(task, first) is not None
    except SoftpruneError:
        return False
