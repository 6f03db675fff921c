"""Rows to be answered: which of a task's layouts they are written in, told by the first of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from softprune.data.definition import Definition, FileSource, Source, named_sources
from softprune.data.row_files import Located, format_of, read_rows
from softprune.data.template import asked_from
from softprune.errors import SoftpruneError


def layout_of(definition: Definition, first: Located) -> Source:
    """The layout that a row reads in; one that also tells its label before others.

    Raises:
        SoftpruneError: where none fits; it names the fields.
    """
    plain = Source(labels={answer: answer for answer in definition.answers}, verified=True)
    layouts = [*named_sources(definition.sources).values(), plain]
    best = max(layouts, key=lambda source: _fit(definition, source, first))  # the first of equals
    if _fit(definition, best, first) == 0:
        list(asked_from(definition, plain, [first]))  # raises
    return best


def _fit(definition: Definition, source: Source, first: Located) -> int:
    """0 where a row doesn't read in a layout, 1 where it does, 2 where it tells its label too."""
    try:
        read = list(asked_from(definition, source, [first]))
    except SoftpruneError:
        return 0
    return 2 if read and all(each.example.gold >= 0 for each in read) else 1


def read_input(definitions: Sequence[Definition], path: Path) -> Iterator[Located]:
    """Rows of a file to be answered, as the tasks' own files are written.

    A CSV whose first line isn't column names (no task could read its rows by them) has the columns that a task states
    for its files (`header`), with or without the label's. A file whose name doesn't tell its format has the one that a
    task states.

    Args:
        definitions: the tasks that rows may be of.
        path: the file.

    Raises:
        SoftpruneError: there is no such file, its format isn't known, or it can't be read.
    """
    tasks = [part for definition in definitions for part in definition.parts or (definition,)]
    stated = [(task, s) for task in tasks for s in named_sources(task.sources).values() if isinstance(s, FileSource)]
    own = [source for task, source in stated if source is task.sources.file]
    kind = format_of(path) or next((source.format for source in own if source.format), None)
    if kind is None or not path.is_file():
        found = f"no file {path}" if kind is not None else str(path)
        raise SoftpruneError("an input file that ends in .jsonl, .csv or .parquet", found, "correct --input")
    headers = _headers(stated) if kind == "csv" else []
    fitting = (header for header in (None, *headers) if any(_reads(task, path, header) for task in tasks))
    return read_rows(path, kind, next(fitting, None) if headers else None)


def _headers(stated: Sequence[tuple[Definition, FileSource]]) -> list[tuple[str, ...]]:
    """The column names that tasks state for files without a header line, whole and without the label's."""
    found: list[tuple[str, ...]] = []
    for task, source in stated:
        if source.header is not None:
            right = task.target or task.gold
            label = source.columns.get(right, right)
            found += [source.header, tuple(name for name in source.header if name != label)]
    return list(dict.fromkeys(found))


def _reads(task: Definition, path: Path, header: Sequence[str] | None) -> bool:
    """Whether the first row of a CSV reads in one of a task's layouts."""
    try:
        first = next(read_rows(path, "csv", header), None)
        return first is not None and layout_of(task, first) is not None
    except SoftpruneError:
        return False
