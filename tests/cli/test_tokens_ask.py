"""`softprune tokens bench`, `analyse` and `explain`, through the real command, on a run of seconds."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from records import run_document

sys.path.insert(0, str(Path(__file__).parents[1] / "token_pruning"))

from small_runs import recipe_of, write_task

from softprune.pipelines.token_pruning import execute

Softprune = Callable[..., Any]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_models: Callable[[str], Path]) -> Path:
    folder = tmp_path_factory.mktemp("ask")
    recipe = recipe_of(write_task(folder / "task"), tiny_models("bert"), "pruning.baselines=none")
    execute(recipe, folder / "run", "test", recipe.dump())
    return folder / "run"


def test_explain_shows_every_word_and_writes_a_page(run: Path, softprune: Softprune, tmp_path: Path) -> None:
    page = tmp_path / "pages" / "one.html"
    answer = softprune("tokens", "explain", str(run), "the film was wonderful <script>x</script>", "--html", str(page))
    assert answer.code == 0, answer.err
    assert "prediction: " in answer.out
    assert "wonderful" in answer.out
    assert "<script>x" not in page.read_text()
    assert "&lt;" in page.read_text()


def test_explain_takes_a_models_own_folder(run: Path, softprune: Softprune) -> None:
    answer = softprune("tokens", "explain", str(run / "models" / "baseline"), "a dull plot")
    assert answer.code == 0, answer.err
    assert "3 of 3 words kept to the end" in answer.out


def test_analyse_reads_the_runs_own_report_set(run: Path, softprune: Softprune, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("wonderful\nunheard\n")
    out = tmp_path / "analysis"
    answer = softprune(
        "tokens", "analyse", str(run), "--keywords", str(words), "--out", str(out), "--limit-report", "10"
    )
    assert answer.code == 0, answer.err
    with (out / "kept.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.reader(file))) == 11
    assert json.loads((out / "analysis.json").read_text())["keywords"]
    assert (out / "analysis.html").exists()


def test_bench_measures_everyone(run: Path, softprune: Softprune, tmp_path: Path) -> None:
    out = tmp_path / "bench"
    answer = softprune(
        "tokens",
        "bench",
        str(run),
        "--texts",
        "4",
        "--rounds",
        "1",
        "--batch-rows",
        "2",
        "--dtype",
        "float32",
        "--out",
        str(out),
    )
    assert answer.code == 0, answer.err
    found = json.loads((out / "bench.json").read_text())
    names = {row["name"] for row in found["rows"]}
    assert {"packed, fused", "packed, eager", "lambda-0.1"} <= names
    assert found["models"]["lambda-0.1"]["paper_macs"] <= 1
    assert (out / "pareto.png").read_bytes().startswith(b"\x89PNG")


def test_no_run_no_model(softprune: Softprune, tmp_path: Path) -> None:
    answer = softprune("tokens", "explain", str(tmp_path / "nothing"), "a text")
    assert answer.code == 2
    assert answer.err.startswith("expected:")


def test_another_tasks_classes_are_told(run: Path, softprune: Softprune) -> None:
    answer = softprune("tokens", "analyse", str(run), "--task", "ag_news", "--data", "tests/fixtures/tasks/official")
    assert answer.code == 2
    assert "good, bad" in answer.err


def test_a_run_that_is_not_of_tokens_is_told(softprune: Softprune, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(run_document("xprompt")))
    answer = softprune("tokens", "explain", str(tmp_path), "a text")
    assert answer.code == 2
    assert "kind xprompt" in answer.err
