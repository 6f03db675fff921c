"""Where the rows of a task are, in a folder or on the hub, and in which of its layouts they are written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path
from typing import Any

from softprune.data.definition import (
    Definition,
    FileSource,
    HubSource,
    Source,
    Split,
    definition_for_row,
    named_sources,
)
from softprune.data.row_files import ENDINGS, Located, Row, file_format, find_file, plain_row, read_rows
from softprune.data.template import examples_from, select_rows, unanswered_rows
from softprune.errors import SoftpruneError, out_of_memory
from softprune.types import Example

SPLITS: tuple[Split, ...] = ("train", "dev", "validation")
SplitRows = Mapping[Split, Iterable[Located]]
"""The rows of every split that a source has."""
PARQUET_BRANCH = "refs/convert/parquet"
"""The hub's own conversion of data sets that are still scripts, which `datasets` 4 no longer runs."""
PATIENCE = 3.0
"""Seconds that a command which only looks waits for the hub."""
_NAMES = 8  # files of a folder that a message lists


@dataclass(frozen=True, slots=True)
class FolderLayout:
    """A layout whose files are in a folder."""

    name: str  # file, official or hub
    source: Source  # how its rows read
    paths: Mapping[Split, tuple[Path, ...]]  # the files of each split that is there

    def rows(self, split: Split) -> Iterator[Located]:
        """The split's rows, one file after the other; files without any are refused."""
        source, is_empty = self.source, True
        for path in self.paths[split]:
            kind, header, where = file_format(path) or "jsonl", None, {}  # unless the source states another one
            if isinstance(source, FileSource):
                kind, header, where = source.format or kind, source.header, source.where.get(split, {})
            for located in select_rows(read_rows(path, kind, header), where):
                is_empty = False
                yield located
        if is_empty:
            names = ", ".join(map(str, self.paths[split]))
            raise SoftpruneError(f"at least one example for {split}", f"none in {names}", "fetch the file again")


def find_layout(definition: Definition, data: Path) -> FolderLayout:
    """Recognise a folder by its files; where two layouts share names, by the first row.

    A folder without any layout's files is refused, and one without all of your own.
    """
    if not data.is_dir():
        found = "a file" if data.exists() else "no such folder"
        raise SoftpruneError(f"a folder with the data of {definition.id}", f"{found}: {data}", "pass --data FOLDER")
    sources = named_sources(definition.sources)
    layouts = [FolderLayout(name, source, _find_files(source, data)) for name, source in sources.items()]
    present = [layout for layout in layouts if layout.paths]
    if not present:
        raise _no_files(definition, data)
    # A layout that reads the first row; among several, the one with files for the most splits.
    best = max(present, key=lambda layout: (fits_layout(definition, layout), len(layout.paths)))
    own, absent = definition.sources.file, []
    if own is not None and best.source is own:
        # A benchmark may be published without a set; your own file that isn't there is a mistake.
        absent = [f"{split}: {name}" for split, name in own.files.items() if split not in best.paths]
    if absent:
        do = "correct the names in the task YAML (they are relative to its folder), or pass --data FOLDER"
        raise SoftpruneError("every file under sources.file", f"no {', '.join(absent)} in {data}", do)
    return best


def fits_layout(definition: Definition, layout: FolderLayout) -> bool:
    """Whether the first row reads in this layout."""
    rows = layout.rows(next(iter(layout.paths)))
    try:
        return any(True for _ in examples_from(definition, layout.source, islice(rows, 1)))
    except SoftpruneError:
        return False


def _find_files(source: Source, data: Path) -> dict[Split, tuple[Path, ...]]:
    """The files of each split, in the first folder that has any: the given one, or where a layout puts them below."""
    roots = [data]
    if isinstance(source, FileSource) and source.folder:
        roots += [data / Path(source.folder).name, data / source.folder]
    if isinstance(source, HubSource):
        # Where repositories keep their Parquet files; "plain_text" is the hub's name for a lone configuration.
        roots += [data / "data", data / (source.config or "plain_text")]
    for root in roots:
        paths = {split: _find_split_files(source, split, root) for split in SPLITS}
        if any(paths.values()):
            return {split: files for split, files in paths.items() if files}
    return {}


def _find_split_files(source: Source, split: Split, root: Path) -> tuple[Path, ...]:
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


def _no_files(definition: Definition, data: Path) -> SoftpruneError:
    wanted = []
    for name, source in named_sources(definition.sources).items():
        if isinstance(source, FileSource):
            wanted.append(f"{', '.join(source.files.values())} ({name} files)")
        elif isinstance(source, HubSource):
            names = ", ".join(f"{split}.parquet or {split}.jsonl" for split in source.splits.values())
            wanted.append(f"{names} ({name} layout)")
    present = sorted(path.name for path in data.iterdir())
    shown = ", ".join(present[:_NAMES]) or "nothing"
    if len(present) > _NAMES:
        shown += f" and {len(present) - _NAMES} more"
    expected = f"the files of {definition.id}: " + "; or ".join(wanted)
    return SoftpruneError(expected, f"in {data}: {shown}", "pass --data with the folder that holds them")


def choose_source(definition: Definition, first: Located) -> Source:
    """The layout that a row reads in; one in which its label reads too, before others. A row must fit one."""
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


def read_input(definitions: Sequence[Definition], path: Path, *, asked_by: str = "--input") -> Iterator[Located]:
    """Rows of a file to be answered, as the files of these tasks are written; `asked_by` is the flag that names it.

    A CSV whose first line isn't column names (no task could read its rows by them) has the columns that a task states
    for its files (`header`), with or without the label's. A file whose name doesn't show its format has the one that a
    task states.

    Raises:
        SoftpruneError: there is no such file, its format isn't known, or it can't be read.
    """
    tasks: list[Definition] = []
    for definition in definitions:
        tasks += definition.parts or (definition,)
    kind = file_format(path)
    for task in tasks:
        if kind is None and task.sources.file is not None:
            kind = task.sources.file.format
    if kind is None or not path.is_file():
        found = f"no file {path}" if kind is not None else str(path)
        raise SoftpruneError("an input file that ends in .jsonl, .csv or .parquet", found, f"correct {asked_by}")
    headers: list[tuple[str, ...] | None] = [None]
    for task in tasks if kind == "csv" else ():
        right = task.target or task.gold
        for source in named_sources(task.sources).values():
            if isinstance(source, FileSource) and source.header is not None:
                label = source.columns.get(right, right)
                headers += [source.header, tuple(name for name in source.header if name != label)]
    for header, task in product(dict.fromkeys(headers) if len(headers) > 1 else (), tasks):
        try:
            first = next(read_rows(path, kind, header), None)
            if first is not None and choose_source(task, first):
                return read_rows(path, kind, header)
        except SoftpruneError:
            continue  # the first row doesn't read under these column names
    return read_rows(path, kind)


def read_unlabelled(definition: Definition, path: Path) -> tuple[Example, ...]:
    """Examples of a file whose labels, if it has any, aren't looked at; errors as `read_input`, and a row's own."""
    examples: list[Example] = []
    sources: dict[str, Source] = {}
    for located in read_input([definition], path, asked_by="task.unlabelled (--unlabelled)"):
        part = definition_for_row(definition, located)
        if part.id not in sources:
            sources[part.id] = choose_source(part, located)
        for row in unanswered_rows(part, sources[part.id], [located]):
            task = part.id if definition.parts else ""
            examples.append(replace(row.example, id=row.where, index=len(examples), gold=-1, task=task))
    return tuple(examples)


def hub_rows(source: HubSource, *, patient: bool = True) -> SplitRows:
    """The rows of every split of a data set of the Hugging Face hub, through `datasets`.

    Where it isn't `patient`, it waits only `PATIENCE` seconds for a hub that doesn't answer (its client would wait half
    a minute or more), and then reads what is in the cache.

    Raises:
        SoftpruneError: when `datasets` isn't installed, the hub can't be reached, or a split isn't there.
    """
    loaded: dict[tuple[str, str | None], Any] = {}
    rows = {}
    for split, name in source.splits.items():
        place = source.elsewhere.get(split, source)
        key = place.repository, place.config
        if key not in loaded:
            loaded[key] = _load_dataset(*key, patient)
        if name not in loaded[key]:
            expected = f"a split {name} of {place.repository}"
            raise SoftpruneError(expected, ", ".join(loaded[key]), "correct `splits` in the task YAML")
        rows[split] = _locate(loaded[key][name], f"{place.repository} {name}")
    return rows


def _locate(rows: Iterable[Row], where: str) -> Iterator[Located]:
    for number, row in enumerate(rows):
        yield Located(plain_row(row), f"{where}, row {number}")


def _load_dataset(repository: str, config: str | None, patient: bool) -> Any:
    silence = None if patient else _check_hub(repository)  # before `datasets` reads that the hub isn't to be asked
    try:
        import datasets
    except ImportError:
        do = "pip install softprune[hub], or pass --data FOLDER"
        raise SoftpruneError("the library datasets, to load from the hub", "it is not installed", do) from None
    try:
        try:
            return datasets.load_dataset(repository, config)
        except RuntimeError as error:
            if "script" not in str(error):
                raise
            return datasets.load_dataset(repository, config, revision=PARQUET_BRANCH)
    except Exception as error:  # the hub's client raises errors of many libraries
        if out_of_memory(error):
            raise
        name = repository if config is None else f"{repository} ({config})"
        lines = str(error).splitlines() or [""]
        found = f"{type(error).__name__}: {lines[0]}"
        if silence is not None:
            found = f"the hub doesn't answer ({silence}), and nothing is in the cache"
        do = "pass --data FOLDER with the task's files, or check the network"
        raise SoftpruneError(f"the data set {name} from the Hugging Face hub", found[:200], do) from None


def _check_hub(repository: str) -> str | None:
    """Why the hub doesn't answer within `PATIENCE`, None where it does; if it doesn't, it isn't asked again."""
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        return None
    try:
        huggingface_hub.HfApi().dataset_info(repository, timeout=PATIENCE)
    except HfHubHTTPError:
        return None  # an answer, if not the one hoped for
    except Exception as error:  # the client's transport raises errors of its own libraries
        huggingface_hub.constants.HF_HUB_OFFLINE = True  # now datasets reads its cache, without waiting again
        return type(error).__name__
    return None
