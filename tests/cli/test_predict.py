"""`predict`: files in, files out, one ticket or several, and nothing lost."""

from __future__ import annotations

import csv
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from softprune.data.rouge import rouge
from softprune.models.base import Backbone
from tickets import ticket_of

pytestmark = pytest.mark.slow

Softprune = Callable[..., Any]
TEXTS = [("who is he ?", "human"), ("where is the river ?", "location"), ("what is a box ?", "entity")] * 4


@pytest.fixture
def folder(tmp_path: Path, backbone_of: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two tickets and labelled rows."""
    monkeypatch.chdir(tmp_path)
    backbone = backbone_of("sentence")
    for seed, (name, kept) in enumerate({"long": 5, "short": 2}.items()):
        ticket_of(backbone, "trec", kept, seed).save(tmp_path / name)
    rows = [{"text": text, "label": label, "n": n} for n, (text, label) in enumerate(TEXTS)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_json_lines_come_back_with_their_answers(folder: Path, softprune: Softprune) -> None:
    told = softprune("predict", "long", "--input", "rows.jsonl", "--out", "out.jsonl")
    assert told.code == 0, told.err
    found = lines(folder / "out.jsonl")
    assert [row["n"] for row in found] == list(range(len(TEXTS)))
    assert {row["prediction"] for row in found} <= set(found[0]["probabilities"])
    assert all(row["probability"] == max(row["probabilities"].values()) for row in found)
    assert all(abs(sum(row["probabilities"].values()) - 1) < 1e-6 for row in found)
    right = sum(row["prediction"] == row["label"] for row in found) / len(found)
    assert "12 rows in" in told.err
    assert f"{100 * right:.1f}% of 12 labelled ones right" in told.err


def test_texts_are_written_and_held_against_the_rows_own(
    tmp_path: Path, backbone_of: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch, softprune: Softprune
) -> None:
    monkeypatch.chdir(tmp_path)
    ticket = ticket_of(backbone_of("t5"), "cnn_dailymail", 5, 0, match="generate", max_answer_length=6)
    ticket.save(tmp_path / "news")
    rows = [{"article": text, "highlights": "a red box"} for text, _ in TEXTS]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = softprune("predict", "news", "--input", "own.jsonl", "--out", "out.jsonl")
    assert told.code == 0, told.err
    found = lines(tmp_path / "out.jsonl")
    mean = sum(rouge(row["prediction"], "a red box")[-1] for row in found) / len(found)
    assert f"ROUGE-L {100 * mean:.1f} on 12 with a text of their own" in told.err
    assert "labelled" not in told.err
    assert all("probabilities" not in row for row in found)
    (tmp_path / "bare.jsonl").write_text("".join(json.dumps({"article": row["article"]}) + "\n" for row in rows))
    bare = softprune("predict", "news", "--input", "bare.jsonl", "--out", "bare-out.jsonl")
    assert "ROUGE" not in bare.err
    assert [row["prediction"] for row in lines(tmp_path / "bare-out.jsonl")] == [row["prediction"] for row in found]


def test_an_ensemble_answers_each_row_once(folder: Path, softprune: Softprune) -> None:
    told = softprune("predict", "long", "short", "--ensemble", "--input", "rows.jsonl", "--out", "out.jsonl")
    assert told.code == 0, told.err
    for name in ("long", "short"):
        assert softprune("predict", name, "--input", "rows.jsonl", "--out", f"{name}.jsonl").code == 0
    rows = zip(*(lines(folder / f"{name}.jsonl") for name in ("out", "long", "short")), strict=True)
    for both, one, other in rows:
        for answer, share in both["probabilities"].items():
            mean = (one["probabilities"][answer] + other["probabilities"][answer]) / 2
            assert share == pytest.approx(mean, rel=1e-5)
        assert both["probabilities"] != pytest.approx(one["probabilities"], rel=1e-2)
    bare = softprune("predict", "long", "short", "--input", "rows.jsonl", "--out", "bare.jsonl")
    assert bare.code != 0
    assert "add --ensemble" in bare.err
    twice = softprune("predict", "long", "long", "--ensemble", "--input", "rows.jsonl", "--out", "bare.jsonl")
    assert "long twice" in twice.err


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "csv.xz", "parquet", "jsonl.gz"])
def test_every_format_is_read_and_written(ending: str, folder: Path, softprune: Softprune) -> None:
    assert softprune("predict", "long", "--input", "rows.jsonl", "--out", "plain.jsonl").code == 0
    wanted = [(row["text"], row["prediction"]) for row in lines(folder / "plain.jsonl")]
    first = softprune("predict", "long", "--input", "rows.jsonl", "--out", f"out.{ending}")
    assert first.code == 0, first.err
    path = folder / f"out.{ending}"
    unpack = {"gz": gzip.decompress, "xz": lzma.decompress}.get(ending[-2:])
    text = unpack(path.read_bytes()).decode() if unpack else ""
    if ending == "parquet":
        found = pyarrow.parquet.read_table(path).to_pylist()
    elif ending.startswith("csv"):
        found = list(csv.DictReader((text or path.read_text()).splitlines()))
    else:
        found = [json.loads(line) for line in text.splitlines()]
    assert [(row["text"], row["prediction"]) for row in found] == wanted
    again = softprune("predict", "long", "--input", f"out.{ending}", "--out", "again.jsonl")
    assert again.code == 2, "a column of that name is there already"
    assert "rename it in the input" in again.err


def test_a_column_says_which_prompt_answers(folder: Path, softprune: Softprune) -> None:
    rows = lines(folder / "rows.jsonl")
    which = ["long", "brief"] * 6
    text = "".join(json.dumps({**row, "who": name}) + "\n" for row, name in zip(rows, which, strict=True))
    (folder / "mixed.jsonl").write_text(text)
    flags = ("--input", "mixed.jsonl", "--out", "out.jsonl", "--prompt-column", "who")
    told = softprune("predict", "--prompts", "long,brief=short", *flags)
    assert told.code == 0, told.err
    found = lines(folder / "out.jsonl")
    for name, ticket in (("long", "long"), ("brief", "short")):
        assert softprune("predict", ticket, "--input", "rows.jsonl", "--out", f"{name}.jsonl").code == 0
        alone = {row["n"]: row["probability"] for row in lines(folder / f"{name}.jsonl")}
        mine = {row["n"]: row["probability"] for row in found if row["who"] == name}
        assert len(mine) == 6
        assert all(abs(mine[n] - alone[n]) <= 1e-5 * alone[n] for n in mine)


CASES = {
    "both": (("long", "--prompts", "long,short"), "a run, or several as --prompts", "both"),
    "neither": ((), "a run, or several as --prompts", "neither"),
    "twice": (("--prompts", "long,long"), "prompts of different names", '"long" twice'),
    "no ticket": (("nothing",), "ticket", "nothing"),
    "none named": (("--prompts", ","), "at least one ticket", "none"),
    "no column": (("--prompts", "long,short"), 'a column "prompt"', "rows.jsonl, line 1"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_done_is_told_and_leaves_nothing(case: str, folder: Path, softprune: Softprune) -> None:
    arguments, expected, found = CASES[case]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    told = softprune("predict", *arguments, "--input", "rows.jsonl", "--out", "out.jsonl")
    assert told.code == 2
    assert expected in told.err.partition("found:")[0]
    assert found in told.err.partition("found:")[2]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_an_output_that_is_there_is_replaced_only_when_asked(folder: Path, softprune: Softprune) -> None:
    (folder / "out.jsonl").write_text("precious")
    told = softprune("predict", "long", "--input", "rows.jsonl", "--out", "out.jsonl")
    assert (told.code, (folder / "out.jsonl").read_text()) == (2, "precious")
    assert softprune("predict", "long", "--input", "rows.jsonl", "--out", "out.jsonl", "--force").code == 0
    assert len(lines(folder / "out.jsonl")) == len(TEXTS)


def test_a_bad_row_late_in_the_file_leaves_no_output(folder: Path, softprune: Softprune) -> None:
    with (folder / "rows.jsonl").open("a") as file:
        file.write('{"words": "no text here"}\n')
    told = softprune("predict", "long", "--input", "rows.jsonl", "--out", "out.jsonl")
    assert told.code == 2
    assert "rows.jsonl, line 13" in told.err
    assert list(folder.rglob("*out*")) == []


def test_a_file_without_rows_gives_one(folder: Path, softprune: Softprune) -> None:
    (folder / "empty.jsonl").touch()
    assert softprune("predict", "long", "--input", "empty.jsonl", "--out", "out.jsonl").code == 0
    assert (folder / "out.jsonl").read_text() == ""


def test_a_column_of_the_input_is_never_replaced(folder: Path, softprune: Softprune) -> None:
    (folder / "mine.jsonl").write_text('{"text": "a red box", "probabilities": "precious"}\n')
    told = softprune("predict", "long", "--input", "mine.jsonl", "--out", "out.jsonl")
    assert (told.code, "probabilities in mine.jsonl, line 1" in told.err) == (2, True)
    assert softprune("predict", "long", "--input", "mine.jsonl", "--out", "out.csv").code == 0
    assert "precious" in (folder / "out.csv").read_text()


def test_a_column_that_is_empty_at_first_goes_into_parquet_too(folder: Path, softprune: Softprune) -> None:
    rows = [{"text": "who is he ?", "note": None if n < 600 else {"late": n}} for n in range(610)]
    (folder / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = softprune("predict", "short", "--input", "notes.jsonl", "--out", "out.parquet")
    assert told.code == 0, told.err
    found = pyarrow.parquet.read_table(folder / "out.parquet").to_pylist()
    assert [row["note"] for row in found] == [None] * 600 + [f'{{"late": {n}}}' for n in range(600, 610)]


def test_rows_that_are_cut_are_counted(folder: Path, softprune: Softprune) -> None:
    rows = [{"text": "a red box " * (1 if n else 40)} for n in range(3)] + [{"text": " "}]
    (folder / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = softprune("predict", "short", "--input", "long.jsonl", "--out", "out.jsonl")
    assert "4 rows in" in told.err
    assert "1 of them too long and cut, 1 of them without any text" in told.err
