"""The tagger's training, in small: self-written sentences, two epochs."""

from __future__ import annotations

import importlib
import json
import lzma
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from softprune.token_pruning.analysis.words import load_tagger

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests" / "fixtures" / "tagged" / "sample.conllu"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("train_tagger")


@pytest.fixture
def treebank(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for part in ("dev", "test"):
        shutil.copy(SAMPLE, folder / f"made-{part}.conllu")
    (folder / "made-train.conllu.xz").write_bytes(lzma.compress(SAMPLE.read_bytes()))
    return folder


def trained(script: ModuleType, monkeypatch: pytest.MonkeyPatch, data: Path, output: Path, *more: str) -> int:
    monkeypatch.setattr(sys, "argv", ["train_tagger", "--data", str(data), "--output", str(output), *more])
    code: int = script.main()
    return code


def test_conllu(script: ModuleType) -> None:
    sentences = script.read_conllu(SAMPLE)
    assert len(sentences) == 20
    fourth = sentences[3]
    assert fourth.words[:4] == ["I", "do", "n't", "know"]
    assert fourth.tags[:4] == ["PRON", "AUX", "PART", "VERB"]
    for sentence in sentences:  # words and spaces give the text back; elided words aren't among them
        made = "".join(w + " " * s for w, s in zip(sentence.words, sentence.spaces, strict=True))
        assert made == sentence.text


def test_a_quick_pipeline_loads_and_knows_its_accuracy(
    script: ModuleType,
    treebank: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "runs" / "tagger"
    assert trained(script, monkeypatch, treebank, output, "--quick") == 0
    said = capsys.readouterr().out
    assert "epoch 2 of 2" in said
    assert "minutes" in said
    performance = json.loads((output / "meta.json").read_text())["performance"]
    tagger = load_tagger(output)
    assert tagger.accuracy == performance["pos_acc"]
    assert performance["test_words"] == sum(len(s.words) for s in script.read_conllu(SAMPLE))
    assert performance["words_f_raw"] > 0.95
    assert [mark.end for mark in next(tagger.marks(["The boat leaks."]))] == [3, 8, 14, 15]
    assert not list(output.parent.glob(".*"))


def test_the_same_seed_gives_the_same_tagger_and_more_epochs_a_better_one(
    script: ModuleType, treebank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def accuracy(name: str, *more: str) -> float:
        assert trained(script, monkeypatch, treebank, tmp_path / name, *more) == 0
        performance = json.loads((tmp_path / name / "meta.json").read_text())["performance"]
        return float(performance["pos_acc"])

    once, again, long = accuracy("a", "--quick"), accuracy("b", "--quick"), accuracy("c", "--epochs", "20")
    assert once == again < long
    weights = [[path.read_bytes() for path in sorted((tmp_path / name).rglob("model"))] for name in "abc"]
    assert weights[0] == weights[1] != weights[2]
    assert long > 0.9  # it learns its own 20 sentences


def test_a_wrong_folder_is_told(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trained(script, monkeypatch, tmp_path, tmp_path / "x") == 2
    assert "--data" in capsys.readouterr().out
