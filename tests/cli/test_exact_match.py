"""Small sums, written as GSM8K's are: what is extracted of them, from the task's page to the rows that are answered."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
Softprune = Callable[..., Any]
# The bundled tokenizers give "####" back as "# # # #".
TASK = r"""
title: Small sums
instruction: Add the numbers.
fields: [question]
template: "{question} = {mask}"
target: answer
extract: '(?:# ?){4}(\S+)'
sources:
  file:
    files: {train: train.jsonl, validation: validation.jsonl}
"""
SUMS = [(a, b) for a in range(1, 4) for b in range(1, 4)]
ROWS = [{"question": f"{a} plus {b}", "answer": f"{a} plus {b} makes {a + b}. #### {a + b}"} for a, b in SUMS]
SMALL = ("prompt.tokens=8", "tuning.batch_size=8", "tuning.patience=none", "tuning.evaluate_every=60")


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def number_at_the_end(text: str) -> str | None:
    """What the pattern should find, found in another way."""
    _, mark, rest = re.sub(r"# ?# ?# ?# ?", "|", text).rpartition("|")
    return rest.split()[0] if mark and rest.split() else None


@pytest.fixture
def sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "train.jsonl", ROWS * 3)
    write_lines(tmp_path / "validation.jsonl", ROWS)
    (tmp_path / "sums.yaml").write_text(TASK)
    return tmp_path


def test_tasks_show_what_is_extracted(sums: Path, softprune: Softprune) -> None:
    told = softprune("tasks", "show", "./sums.yaml", "-n", "2", "--backbone", "tiny-causal")
    assert told.code == 0, told.err
    assert re.search(r"^extract +\(\?:# \?\)\{4\}\(\\S\+\)$", told.out, re.MULTILINE)
    assert re.search(r"^metric +exact_match$", told.out, re.MULTILINE)
    assert re.findall(r"^extracted +(\S+)$", told.out, re.MULTILINE) == ["2", "3"]
    stats = softprune("tasks", "stats", "./sums.yaml")
    assert "33.3" in stats.out  # 4 is the sum of three of the nine
    assert "3 sentences" not in stats.out


@pytest.mark.parametrize(
    ("old", "new", "length", "told"),
    [
        (r"(?:# ?){4}(\S+)", r"#### (\S+)", 16, '# # # # 6" of 12 tokens, for'),
        ("unchanged", "unchanged", 8, "raise task.max_answer_length"),
    ],
)
def test_texts_that_lose_their_answer_are_refused(
    sums: Path, softprune: Softprune, old: str, new: str, length: int, told: str
) -> None:
    (sums / "sums.yaml").write_text(TASK.replace(old, new))
    arguments = ("--task", "./sums.yaml", "--backbone", "tiny-causal", "--out", "run")
    answer = softprune("tune", *arguments, f"task.max_answer_length={length}")
    assert answer.code == 2
    assert "texts that keep their answer as tokens of tiny-causal" in answer.err
    assert told in answer.err


def test_from_the_run_to_rows_that_are_answered(sums: Path, softprune: Softprune) -> None:
    arguments = ("--task", "./sums.yaml", "--backbone", "tiny-causal", "--seed", "1", *SMALL)
    told = softprune("tune", *arguments, "--out", "run", "task.max_answer_length=16", "tuning.epochs=40")
    assert told.code == 0, told.err
    info, lines = json.loads((sums / "run" / "run.json").read_text()), read_lines(sums / "run/predictions/tuned.jsonl")
    tuned, constant = info["results"]["tuned"], info["results"]["constant"]
    assert info["task"]["extract"] == r"(?:# ?){4}(\S+)"
    assert [line["expected"] for line in lines] == [str(a + b) for a, b in SUMS]
    assert [line["extracted"] for line in lines] == [number_at_the_end(line["written"]) for line in lines]
    assert [line["right"] for line in lines] == [line["extracted"] == line["expected"] for line in lines]
    assert tuned["metric"] == "exact_match"
    assert tuned["value"] == pytest.approx(sum(line["right"] for line in lines) / 9)
    assert tuned["extracted"] == pytest.approx(sum(line["extracted"] is not None for line in lines) / 9)
    assert tuned["extracted"] > 0, "nothing was learned, so nothing is tested here"
    assert (constant["answer"], constant["value"]) == ("4", pytest.approx(1 / 3))
    assert not {"rouge1", "rougeL"} & {name for name, value in tuned.items() if value is not None}
    assert "rougeL" not in lines[0]
    assert "exact match" in told.out
    assert f"tuned prompt: loss {tuned['loss']:.4g}, {100 * tuned['extracted']:.1f}% with an answer" in told.out

    report = softprune("report", "run", "run")
    assert report.code == 0, report.err
    page = (sums / "run" / "report" / "index.html").read_text()
    assert "with an answer (%)" in page
    assert "(?:# ?){4}(\\S+)" in page

    right = sum(line["right"] for line in lines)
    document = json.loads((sums / "run" / "ticket" / "ticket.json").read_text())
    assert document["definition"]["extract"] == r"(?:# ?){4}(\S+)"
    answered = softprune("predict", "run", "--input", "validation.jsonl", "--out", "out.jsonl")
    assert answered.code == 0, answered.err
    found = read_lines(sums / "out.jsonl")
    assert [row["prediction"] for row in found] == [line["written"] for line in lines]
    assert [row["extracted"] for row in found] == [line["extracted"] for line in lines]
    assert [row["right"] for row in found] == [line["right"] for line in lines]
    assert f"{100 * right / 9:.1f}% of 9 labelled ones right" in answered.err
    assert "ROUGE" not in answered.err

    write_lines(sums / "bare.jsonl", [{"question": row["question"]} for row in ROWS[:3]])
    untold = softprune("predict", "run", "--input", "bare.jsonl", "--out", "bare.csv")
    assert "labelled" not in untold.err
    with (sums / "bare.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["extracted"] for row in rows] == [line["extracted"] or "" for line in lines[:3]]
    assert {row["right"] for row in rows} == {""}
    write_lines(sums / "taken.jsonl", [{"question": "1 plus 1", "right": 1}])
    taken = softprune("predict", "run", "--input", "taken.jsonl", "--out", "taken-out.jsonl")
    assert "rows without a column right" in taken.err
