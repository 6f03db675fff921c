"""GGUF files: which one is meant, and what is said where it can't be read. No such file is read here."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from softprune.errors import SoftpruneError
from softprune.models import describe
from softprune.models.description import find_gguf


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.q4_0.gguf"
    path.write_bytes(b"GGUF, but no more of it")
    return path


def test_a_file_and_the_folder_of_one(file: Path) -> None:
    assert find_gguf(str(file)) == find_gguf(str(file.parent)) == file


def test_a_folder_with_a_config_is_a_model_of_safetensors(file: Path) -> None:
    (file.parent / "config.json").write_text("{}")
    assert find_gguf(str(file.parent)) is None
    assert find_gguf(str(file)) == file


def test_several_files_in_a_folder(file: Path) -> None:
    for name in ("b.gguf", "c.gguf", "d.gguf"):
        (file.parent / name).write_bytes(b"GGUF")
    with pytest.raises(SoftpruneError) as caught:
        describe(file.parent)
    assert caught.value.expected == "one GGUF file"
    assert caught.value.found == f"4 in {file.parent} (b.gguf, c.gguf, d.gguf, ...)"
    assert caught.value.do == "name one of them: --backbone FOLDER/FILE.gguf"


def test_two_files_are_both_named(file: Path) -> None:
    (file.parent / "b.gguf").write_bytes(b"GGUF")
    with pytest.raises(SoftpruneError) as caught:
        describe(file.parent)
    assert caught.value.found == f"2 in {file.parent} (b.gguf, {file.name})"


def test_without_the_package(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softprune.models.description.find_spec", lambda _: None)
    with pytest.raises(SoftpruneError) as caught:
        describe(file)
    assert caught.value.expected == "the package gguf, which reads GGUF files"
    assert caught.value.do == "pip install 'softprune[gguf]'"


@pytest.mark.parametrize("family", ["masked", "seq2seq", "sentence"])
def test_other_families_than_causal(file: Path, family: str) -> None:
    with pytest.raises(SoftpruneError, match="--family causal") as caught:
        describe(file, family)
    assert caught.value.found == family


@pytest.mark.skipif(find_spec("gguf") is None, reason="needs the package gguf")
def test_a_damaged_file(file: Path) -> None:
    with pytest.raises(SoftpruneError) as caught:
        describe(file)
    assert "model.q4_0.gguf" in str(caught.value)
