"""Where the rows of a task are: a folder in one of the layouts, or a generator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from softprune.data.definition import (
    GENERATORS,
    Definition,
    FileSource,
    GeneratedSource,
    HubSource,
    Source,
    Split,
    named_sources,
)
from softprune.data.row_files import ENDINGS, Located, find_file, format_of, read_rows
from softprune.data.template import belonging, examples_from
from softprune.errors import SoftpruneError
from softprune.types import Example

SPLITS: tuple[Split, ...] = ("train", "dev", "validation")


@dataclass(frozen=True, slots=True)
class FoundLayout:
    """A layout whose files are in a folder.

    Attributes:
        name: file, official or hub.
        source: how its rows read.
        paths: the files of each split that is there.
    """

    name: str
    source: Source
    paths: Mapping[Split, tuple[Path, ...]]

    def rows(self, split: Split) -> Iterator[Located]:
        """The split's rows, one file after the other."""
        for path in self.paths[split]:
            if isinstance(self.source, FileSource):
                rows = read_rows(path, self.source.format or format_of(path) or "jsonl", self.source.header)
                yield from belonging(rows, self.source.where.get(split, {}))
            else:
                yield from read_rows(path, format_of(path) or "jsonl")


def find_layout(definition: Definition, data: Path) -> FoundLayout:
    """Recognise a folder by its files; where two layouts share names, by the first row.

    Raises:
        SoftpruneError: when there is no such folder, or no layout's files are in it; or not all of your own.
    """
    if not data.is_dir():
        found = "a file" if data.exists() else "no such folder"
        raise SoftpruneError(f"a folder with the data of {definition.id}", f"{found}: {data}", "pass --data FOLDER")
    layouts = [_located(name, source, data) for name, source in named_sources(definition.sources).items()]
    present = [layout for layout in layouts if layout.paths]
    if not present:
        raise _no_files(definition, data)
    best = max(present, key=lambda layout: (fits(definition, layout), len(layout.paths)))
    if best.source is definition.sources.file:
        _check_all_there(definition.sources.file, best, data)
    return best


def read_layout(definition: Definition, layout: FoundLayout) -> dict[Split, tuple[Example, ...]]:
    """Every split that the folder holds.

    Raises:
        SoftpruneError: for a file without rows, and whatever a row has wrong.
    """
    splits: dict[Split, tuple[Example, ...]] = {}
    for split, paths in layout.paths.items():
        splits[split] = tuple(examples_from(definition, layout.source, layout.rows(split)))
        if not splits[split]:
            names = ", ".join(map(str, paths))
            raise SoftpruneError(f"at least one example for {split}", f"none in {names}", "fetch the file again")
    return splits


def generate(definition: Definition, source: GeneratedSource) -> dict[Split, tuple[Example, ...]]:
    """Every split of a generated task."""
    made: Mapping[Split, Iterable[dict[str, Any]]] = GENERATORS[source.generator]()
    return {
        split: tuple(examples_from(definition, source, (Located(row, source.generator) for row in rows)))
        for split, rows in made.items()
    }


def _located(name: str, source: Source, data: Path) -> FoundLayout:
    """The layout with the files of the first of its folders that has any."""
    best: dict[Split, tuple[Path, ...]] = {}
    for root in _roots(source, data):
        if isinstance(source, FileSource):
            found = {split: find_file(root, source.files[split]) for split in SPLITS if split in source.files}
            best = {split: (path,) for split, path in found.items() if path is not None}
        elif isinstance(source, HubSource):
            shards = {split: _shards(root, source.splits[split]) for split in SPLITS if split in source.splits}
            best = {split: paths for split, paths in shards.items() if paths}
        if best:
            break
    return FoundLayout(name, source, best)


def _roots(source: Source, data: Path) -> list[Path]:
    """The folders to look in: the given one, and where the layout puts its files below it."""
    roots = [data]
    if isinstance(source, FileSource) and source.folder:
        roots += [data / Path(source.folder).name, data / source.folder]
    if isinstance(source, HubSource):
        roots += [data / "data", data / (source.config or "plain_text")]
    return roots


def _shards(root: Path, split: str) -> tuple[Path, ...]:
    """`train.jsonl`, `train.parquet` or `train-00000-of-00002.parquet` and its like, in order."""
    for ending in ENDINGS:
        whole = find_file(root, split + ending)
        if whole is not None:
            return (whole,)
    return tuple(path for path in sorted(root.glob(f"{split}-*")) if format_of(path))


def fits(definition: Definition, layout: FoundLayout) -> bool:
    """Whether the first row reads in this layout."""
    split = next(iter(layout.paths))
    try:
        return any(True for _ in examples_from(definition, layout.source, islice(layout.rows(split), 1)))
    except SoftpruneError:
        return False


def _check_all_there(source: FileSource, layout: FoundLayout, data: Path) -> None:
    """A benchmark may be published without a set; your own file that isn't there is a slip."""
    absent = [f"{split}: {name}" for split, name in source.files.items() if split not in layout.paths]
    if absent:
        raise SoftpruneError(
            "every file under sources.file",
            f"no {', '.join(absent)} in {data}",
            "correct the names in the task YAML (they are relative to its folder), or pass --data FOLDER",
        )


def _no_files(definition: Definition, data: Path) -> SoftpruneError:
    wanted = []
    for name, source in named_sources(definition.sources).items():
        if isinstance(source, FileSource):
            wanted.append(f"{', '.join(source.files.values())} ({name} files)")
        elif isinstance(source, HubSource):
            names = ", ".join(f"{split}.parquet or {split}.jsonl" for split in source.splits.values())
            wanted.append(f"{names} ({name} layout)")
    there = sorted(path.name for path in data.iterdir())
    shown = ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "")
    return SoftpruneError(
        f"the files of {definition.id}: " + "; or ".join(wanted),
        f"in {data}: {shown or 'nothing'}",
        "pass --data with the folder that holds them",
    )
