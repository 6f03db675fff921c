"""Files that are there whole or not at all: a temporary name in the same folder, then a rename."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from softprune.errors import SoftpruneError

if TYPE_CHECKING:
    import torch

_TEMPORARY = re.compile(r"^\..+\.\d+\.tmp$")


def temporary_for(path: Path) -> Path:
    """Where this process writes what will be at `path`; `remove_temporaries` knows the name."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def write_bytes(path: Path, data: bytes) -> None:
    """Puts `data` at `path` in one step; a reader, or a kill, sees the old file or the new one."""
    with _replacing(path) as temporary, temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Puts a folder with these files at `path` in one step.

    Raises:
        SoftpruneError: something else is there. An empty folder is replaced, unless this command runs in it.
    """
    path = path.resolve()
    if path == Path.cwd():  # the user's shell would be left in a folder that no longer exists
        raise SoftpruneError("a new or an empty folder", f"{path}, where this command runs", "choose another --out")
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        found = f"{path} is a file" if path.is_file() else f"{path} holds {min(p.name for p in path.iterdir())}"
        raise SoftpruneError("a new or an empty folder", found, "choose another --out")
    with _replacing(path) as temporary:
        temporary.mkdir()
        for name, data in files.items():
            write_bytes(temporary / name, data)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary path for a file or a folder, which replaces `path` at the end, and is removed if anything fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_for(path)
    try:
        yield temporary
        os.replace(temporary, path)  # noqa: PTH105 - one name for tests to make fail
    except BaseException:
        remove(temporary)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames in `folder` survive a loss of power; on Windows, which opens no folder, nothing happens."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Deletes a file or a folder, as far as it is there and can be deleted."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> None:
    """Deletes what killed writers left in `folder` and below."""
    for path in list(folder.rglob(".*.tmp")):
        if _TEMPORARY.match(path.name):
            remove(path)


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON as every standard reader takes it; NaN and infinities become null, which is all that JSON has for them."""
    return to_json(value, indent=indent, inf_nan_mode="null").decode()


def json_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """One JSON object a line."""
    return "".join(json_text(row) + "\n" for row in rows).encode()


def tensor_bytes(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file whose bytes depend on its content alone.

    safetensors itself writes several metadata entries in an order that differs between processes.
    """
    from safetensors.torch import save

    # Copies, for safetensors takes neither views of one storage nor tensors of a GPU's graph.
    own = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    data: bytes = save(own, dict(metadata) or None)  # an empty mapping makes a broken header
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]
