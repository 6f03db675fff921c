from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from fakes import make_trace

from softprune.token_pruning.analysis.page import HEADER, write_csv
from softprune.token_pruning.analysis.words import Tagger, Word, word_table
from softprune.token_pruning.model import TokenTrace

LABELS = ("bad", "good, really")
TEXTS = ['the "cat" runs,', "green\nsea , =1+1", "tree 日本"]


@pytest.fixture
def rows(tagger: Tagger) -> list[tuple[TokenTrace, tuple[Word, ...]]]:
    traces = [
        make_trace(TEXTS[0], [("the", 1), ("cat", 3), ("runs", 2), (",", 3)], gold=1, predicted=1),
        make_trace(TEXTS[1], [("green", 3), ("sea", 3), (",", 1)], gold=0, predicted=1),
        make_trace(TEXTS[2], [("tree", 1), ("日本", 3)]),
    ]
    table = word_table(traces, tagger)
    return list(zip(traces, table.words, strict=True))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_round_trip(rows: list[tuple[TokenTrace, tuple[Word, ...]]], tmp_path: Path) -> None:
    write_csv(tmp_path / "new" / "kept.csv", rows, LABELS)
    found = read(tmp_path / "new" / "kept.csv")
    assert list(found[0]) == list(HEADER)
    assert [row["text"] for row in found] == TEXTS
    assert [row["kept_text"] for row in found] == ["cat ,", "green sea", "日本"]
    assert [row["label"] for row in found] == ["good, really", "bad", ""]
    assert [row["predicted"] for row in found] == ["good, really", "good, really", "bad"]
    assert [row["pos"] for row in found] == ["NOUN PUNCT", "ADJ NOUN", "DET"]
    assert json.loads(found[0]["layers"]) == [["the", 1], ["cat", 3], ["runs", 2], [",", 3]]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["kept.csv"]


def test_a_failure_leaves_nothing(rows: list[tuple[TokenTrace, tuple[Word, ...]]], tmp_path: Path) -> None:
    def failing() -> Iterator[tuple[TokenTrace, Sequence[Word]]]:
        yield rows[0]
        raise RuntimeError("the model is gone")

    with pytest.raises(RuntimeError, match="gone"):
        write_csv(tmp_path / "kept.csv", failing(), LABELS)
    assert list(tmp_path.iterdir()) == []


def test_half_a_surrogate_pair(tmp_path: Path) -> None:
    trace = make_trace("a \ud83d", [("a", 3)])
    write_csv(tmp_path / "kept.csv", zip([trace], word_table([trace]).words, strict=True), LABELS)
    assert read(tmp_path / "kept.csv")[0]["text"] == "a ?"
