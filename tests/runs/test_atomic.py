from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from softprune.errors import SoftpruneError
from softprune.runs import atomic_io


def refuse(*_: object) -> None:
    raise OSError("no space left on device")


def test_a_failed_rename_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.json"
    atomic_io.write_bytes(path, b"old")
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no space"):
        atomic_io.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.json"]


def test_only_temporaries_of_ours_are_removed(tmp_path: Path) -> None:
    names = {".run.json.123.tmp": False, "sub/.x.9.tmp": False, "notes.tmp": True, ".keep.tmp": True}
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    atomic_io.remove_temporaries(tmp_path)
    assert {name: (tmp_path / name).exists() for name in names} == names


def test_json_is_strict() -> None:
    text = atomic_io.json_text({"a": [float("nan"), 1.5, (float("inf"),)], "b": {"c": float("-inf")}})
    assert json.loads(text) == {"a": [None, 1.5, [None]], "b": {"c": None}}


def test_tensor_bytes_hold_views_and_are_aligned(tmp_path: Path) -> None:
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    tensors = {"base": base, "column": base[:, 1], "transposed": base.T, "flag": torch.tensor(True)}
    data = atomic_io.tensor_bytes(tensors, {"format": "pt", "é": "ü"})
    assert int.from_bytes(data[:8], "little") % 8 == 0
    (tmp_path / "x.safetensors").write_bytes(data)
    back = load_file(tmp_path / "x.safetensors")
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("metadata", [{}, {"meta": "{}"}])
def test_no_tensors_is_a_file_too(tmp_path: Path, metadata: dict[str, str]) -> None:
    (tmp_path / "x.safetensors").write_bytes(atomic_io.tensor_bytes({}, metadata))
    assert load_file(tmp_path / "x.safetensors") == {}


def test_tensor_bytes_are_the_same_each_time() -> None:
    """safetensors itself writes metadata in the order of a hash map with a seed of its own."""
    tensors = {"b": torch.ones(2), "a": torch.zeros(3)}
    metadata = {letter: letter for letter in "qwertyuiop"}
    assert len({atomic_io.tensor_bytes(tensors, metadata) for _ in range(20)}) == 1
    assert len({save(tensors, metadata) for _ in range(20)}) > 1, "negative control"


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "new" / "folder"
    files = {"a": b"1", "b": b"2"}
    with monkeypatch.context() as patch:

        def killed(source: Path, place: Path) -> None:
            if place.name == "b":
                raise KeyboardInterrupt
            Path(source).rename(place)

        patch.setattr(atomic_io.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            atomic_io.write_folder(target, files)
    assert list(target.parent.iterdir()) == []
    target.mkdir()  # an empty folder is taken
    atomic_io.write_folder(target, files)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == files
    with pytest.raises(SoftpruneError, match="folder holds a"):
        atomic_io.write_folder(target, {"a": b"3"})
    with pytest.raises(SoftpruneError, match="a is a file"):
        atomic_io.write_folder(target / "a", files)
    assert (target / "a").read_bytes() == b"1"


def test_the_folder_that_we_stand_in_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SoftpruneError, match="where this command runs"):
        atomic_io.write_folder(Path(), {"a": b"1"})
    atomic_io.write_folder(Path("new"), {"a": b"1"})
    assert (tmp_path / "new" / "a").read_bytes() == b"1"


def test_folders_of_killed_writers_go_too(tmp_path: Path) -> None:
    left = tmp_path / "run" / ".peft.123.tmp"
    left.mkdir(parents=True)
    (left / "a").touch()
    (left / ".b.123.tmp").touch()
    atomic_io.remove_temporaries(tmp_path)
    assert list((tmp_path / "run").iterdir()) == []
