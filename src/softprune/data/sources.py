"""Where the rows of a task are: in a folder in one of its layouts, on the hub, or made by a generator.

Whatever the source, rows come as `SplitRows`, and `read_examples` makes examples of them.
"""

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
from softprune.data.row_files import ENDINGS, Located, file_format, find_file, read_rows
from softprune.data.template import examples_from, select_rows
from softprune.errors import SoftpruneError
from softprune.types import Example

SPLITS: tuple[Split, ...] = ("train", "dev", "validation")
SplitRows = Mapping[Split, Iterable[Located]]
"""The rows of every split that a source has."""


@dataclass(frozen=True, slots=True)
class FolderLayout:
    """A layout whose files are in a folder.

    Attributes:
        name: file, official or hub.
        source: how its rows read.
        paths: the files of each split that is there.
    """

    name: str
    source: Source
    paths: Mapping[Split, tuple[Path, ...]]

    def split_rows(self) -> SplitRows:
        """The rows of every split."""
        return {split: self.rows(split) for split in self.paths}

    def rows(self, split: Split) -> Iterator[Located]:
        """The split's rows, one file after the other.

        Raises:
            SoftpruneError: where the files hold none, and as reading them does.
        """
        is_empty = True
        for path in self.paths[split]:
            kind = file_format(path) or "jsonl"
            if isinstance(self.source, FileSource):
                rows = read_rows(path, self.source.format or kind, self.source.header)
                rows = select_rows(rows, self.source.where.get(split, {}))
            else:
                rows = read_rows(path, kind)
            for located in rows:
                is_empty = False
                yield located
        if is_empty:
            names = ", ".join(map(str, self.paths[split]))
            raise SoftpruneError(f"at least one example for {split}", f"none in {names}", "fetch the file again")


def find_layout(definition: Definition, data: Path) -> FolderLayout:
    """Recognise a folder by its files; where two layouts share names, by the first row.

    Raises:
        SoftpruneError: when there is no such folder, or no layout's files are in it; or not all of your own.
    """
    if not data.is_dir():
        found = "a file" if data.exists() else "no such folder"
        raise SoftpruneError(f"a folder with the data of {definition.id}", f"{found}: {data}", "pass --data FOLDER")
    layouts = [_locate(name, source, data) for name, source in named_sources(definition.sources).items()]
    present = [layout for layout in layouts if layout.paths]
    if not present:
        raise _no_files(definition, data)
    best = max(present, key=lambda layout: (fits_layout(definition, layout), len(layout.paths)))
    if isinstance(best.source, FileSource) and best.source is definition.sources.file:
        _check_own_files(best.source, best, data)
    return best


def fits_layout(definition: Definition, layout: FolderLayout) -> bool:
    """Whether the first row reads in this layout."""
    first_split = next(iter(layout.paths))
    try:
        return any(True for _ in examples_from(definition, layout.source, islice(layout.rows(first_split), 1)))
    except SoftpruneError:
        return False


def generated_rows(source: GeneratedSource) -> SplitRows:
    """The rows of a generated task."""
    splits: Mapping[Split, Iterable[dict[str, Any]]] = GENERATORS[source.generator]()
    return {split: [Located(row, source.generator) for row in rows] for split, rows in splits.items()}


def read_examples(definition: Definition, source: Source, rows: SplitRows) -> dict[Split, tuple[Example, ...]]:
    """The examples of every split.

    Raises:
        SoftpruneError: for whatever a row has wrong.
    """
    return {split: tuple(examples_from(definition, source, located)) for split, located in rows.items()}


def _locate(name: str, source: Source, data: Path) -> FolderLayout:
    """The layout with the files of the first of its folders that has any."""
    paths: dict[Split, tuple[Path, ...]] = {}
    for root in _roots(source, data):
        for split in SPLITS:
            files = _split_files(source, split, root)
            if files:
                paths[split] = files
        if paths:
            break
    return FolderLayout(name, source, paths)


def _roots(source: Source, data: Path) -> list[Path]:
    """The folders to look in: the given one, and where the layout puts its files below it."""
    roots = [data]
    if isinstance(source, FileSource) and source.folder:
        roots += [data / Path(source.folder).name, data / source.folder]
    if isinstance(source, HubSource):
        roots += [data / "data", data / (source.config or "plain_text")]
    return roots


def _split_files(source: Source, split: Split, root: Path) -> tuple[Path, ...]:
    """The files of a split in one folder; none where there are none."""
    if isinstance(source, FileSource) and split in source.files:
        path = find_file(root, source.files[split])
        return () if path is None else (path,)
    if isinstance(source, HubSource) and split in source.splits:
        # `train.jsonl`, `train.parquet` or `train-00000-of-00002.parquet` and its like, in order.
        name = source.splits[split]
        for ending in ENDINGS:
            whole = find_file(root, name + ending)
            if whole is not None:
                return (whole,)
        return tuple(path for path in sorted(root.glob(f"{name}-*")) if file_format(path))
    return ()


def _check_own_files(source: FileSource, layout: FolderLayout, data: Path) -> None:
    """A benchmark may be published without a set; your own file that isn't there is a mistake."""
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
    present = sorted(path.name for path in data.iterdir())
    shown = ", ".join(present[:8])
    if len(present) > 8:
        shown += f" and {len(present) - 8} more"
    return SoftpruneError(
        f"the files of {definition.id}: " + "; or ".join(wanted),
        f"in {data}: {shown or 'nothing'}",
        "pass --data with the folder that holds them",
    )
