"""`softprune tokens`: a run from the command line, its table, and rows answered by its models."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "token_pruning"))

from small_runs import texts_of, write_task

Softprune = Callable[..., Any]
Models = Callable[[str], Path]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
FLAGS = (
    *("--dtype", "float32", "--device", "cpu", "--threads", "1", "--max-length", "48", "--epochs", "1"),
    *("--batch-size", "8", "--lr", "1e-3", "--lambdas", "0.1,0.3", "--baselines", "top-k", "--limit-report", "8"),
    "selection.resamples=50",
)
CHANGES = ("run.json", ".lock")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_models: Models) -> tuple[Path, str]:
    """A complete run through the real command, and what it printed."""
    import subprocess

    folder = tmp_path_factory.mktemp("tokens")
    write_task(folder)
    command = [sys.executable, "-m", "softprune", "tokens", "train", "--backbone", str(tiny_models("encoder"))]
    command += ["--task", "mood.yaml", "--out", "run", *FLAGS]
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    told = [line for line in answer.stderr.splitlines() if line]
    assert all(": epoch " in line for line in told), answer.stderr  # nothing but progress
    return folder, answer.stdout


@pytest.fixture
def folder(done: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(done[0])
    return done[0]


def test_the_run_ends_with_its_table(done: tuple[Path, str]) -> None:
    assert "Mood, 8 examples of report" in done[1]
    for label in ("unpruned model", "learned, lambda 0.1", "learned, lambda 0.3", "top-k by importance", "macro F1"):
        assert label in done[1]
    assert "the chosen model: run/models/lambda-0." in done[1]


def test_the_same_command_again_runs_nothing(folder: Path, softprune: Softprune, tiny_models: Models) -> None:
    before = {
        path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name not in CHANGES
    }
    flags = ("--backbone", str(tiny_models("encoder")), "--task", "mood.yaml", "--out", "run", *FLAGS)
    told = softprune("tokens", "train", *flags)
    assert told.code == 0
    assert "run is complete: nothing was run" in told.err
    assert "unpruned model" in told.out
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_report_prints_the_table_and_runs_lists_the_chosen_model(folder: Path, softprune: Softprune) -> None:
    told = softprune("report", "run")
    assert (told.code, told.err) == (0, "")
    assert "learned, lambda 0.3" in told.out
    assert not (folder / "run" / "report").exists()
    listed = softprune("runs", ".")
    info = json.loads((folder / "run" / "run.json").read_text())
    chosen = info["selection"]["chosen"]
    value = info["results"][chosen]["value"]
    assert f"{chosen} {100 * value:.1f}% accuracy" in listed.out
    assert "tokens  complete  mood" in listed.out


def test_a_run_without_results_says_so(tmp_path: Path, softprune: Softprune) -> None:
    from softprune.runs.run_folder import RunFolder

    RunFolder.open(tmp_path / "r", recipe_text="", resolved={}, kind="tokens", command="softprune run ltp").close()
    told = softprune("report", str(tmp_path / "r"))
    assert told.code == 0
    assert "no results yet" in told.out
    assert "continue it: softprune run ltp" in told.out


def test_a_recipe_of_kind_tokens_runs(tmp_path: Path, softprune: Softprune, tiny_models: Models) -> None:
    task = write_task(tmp_path / "task")
    text = f"kind: tokens\nbackbone: {{name: {tiny_models('encoder')}, device: cpu}}\ntask: {{id: {task}}}\n"
    (tmp_path / "mine.yaml").write_text(text + "pruning: {baselines: [], lambdas: 0.1}\n")
    told = softprune("run", str(tmp_path / "mine.yaml"), "task.max_length=64", "--out", str(tmp_path / "run"))
    assert told.code == 0, told.err
    assert "learned, lambda 0.1 *" in told.out
    resolved = (tmp_path / "run" / "resolved.yaml").read_text()
    assert "max_length: 64" in resolved


@pytest.fixture
def rows(folder: Path) -> list[dict[str, Any]]:
    """Of a file with umlauts and a text that is too long."""
    made = [{"n": n, "text": row["text"]} for n, row in enumerate(texts_of(9, seed=5))]
    made += [{"n": 9, "text": "größer 漢字"}, {"n": 10, "text": "film " * 90}]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    return made


@pytest.mark.parametrize("model", ["run", "run/models/lambda-0.3", "run/models/baseline"])
def test_rows_come_back_in_their_order(
    folder: Path, softprune: Softprune, rows: list[dict[str, Any]], model: str, tmp_path: Path
) -> None:
    from softprune.token_pruning.model import TokenModel

    out = tmp_path / "out.jsonl"
    flags = ("--out", str(out), "--dtype", "float32", "--device", "cpu")
    told = softprune("tokens", "predict", model, "--input", "rows.jsonl", *flags)
    assert told.code == 0, told.err
    assert "11 rows in" in told.err
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [{"n": row["n"], "text": row["text"]} for row in found] == rows
    loaded = TokenModel.load(model, dtype="float32", device="cpu")
    for row, trace in zip(found, loaded.trace([row["text"] for row in rows]), strict=True):
        assert list(row["probabilities"].values()) == pytest.approx(list(trace.probabilities), rel=1e-5)
        assert row["prediction"] == max(row["probabilities"], key=row["probabilities"].__getitem__)
        assert row["probability"] == max(row["probabilities"].values())
        assert (row["tokens"], row["kept"]) == (len(trace.left), trace.alive()[-1])
        assert all(word in row["text"] for word in row["kept_words"])
        assert len(row["kept_words"]) <= row["kept"]
    assert found[10]["tokens"] == 48
    if model.endswith("baseline"):
        assert all(row["kept"] == row["tokens"] for row in found)
    else:
        assert any(row["kept"] < row["tokens"] for row in found)


def test_a_file_by_position_works_with_a_notice(folder: Path, softprune: Softprune, rows: list[dict[str, Any]]) -> None:
    """As it was given in version 0.1."""
    told = softprune("tokens", "predict", "run", "rows.jsonl")
    assert told.code == 0
    assert told.err == "note: FILE is called --input now; the old name stops working in version 0.3\n"
    assert told.out == softprune("tokens", "predict", "run", "--input", "rows.jsonl").out


def test_rows_go_to_the_terminal_and_from_and_to_csv(
    folder: Path, softprune: Softprune, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    plain = softprune("tokens", "predict", "run", "--input", "rows.jsonl")
    assert (plain.code, plain.err) == (0, "")
    wanted = [json.loads(line)["prediction"] for line in plain.out.splitlines()]
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["n", "what was said"])
        writer.writeheader()
        writer.writerows({"n": row["n"], "what was said": row["text"]} for row in rows)
    flags = ("--text", "what was said", "--out", str(tmp_path / "out.csv"))
    told = softprune("tokens", "predict", "run", "--input", str(tmp_path / "rows.csv"), *flags)
    assert told.code == 0, told.err
    with (tmp_path / "out.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == ["n", "what was said", "prediction", "probability", "tokens", "kept"]
    assert [row["prediction"] for row in found] == wanted


def test_many_rows_stream_in_their_order(softprune: Softprune, folder: Path, tmp_path: Path) -> None:
    texts = [row["text"] for row in texts_of(2500, seed=9)]
    lines = "".join(json.dumps({"i": n, "text": text[:60]}) + "\n" for n, text in enumerate(texts))
    (tmp_path / "many.jsonl").write_text(lines)
    out = tmp_path / "out.jsonl"
    told = softprune("tokens", "predict", "run", "--input", str(tmp_path / "many.jsonl"), "--out", str(out))
    assert told.code == 0, told.err
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["i"] for row in found] == list(range(2500))


def test_a_file_without_rows_gives_one(softprune: Softprune, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    files = ("--input", str(tmp_path / "empty.jsonl"), "--out", str(tmp_path / "o.jsonl"))
    told = softprune("tokens", "predict", "run", *files)
    assert (told.code, (tmp_path / "o.jsonl").read_text()) == (0, "")


BAD = {
    "no input": (("run",), "an input file", "no --input"),
    "no file": (("run", "nowhere.jsonl"), "an input file", "no file nowhere.jsonl"),
    "no format": (("run", "mood.yaml"), "an input file", "mood.yaml"),
    "an output that is there": (("run", "rows.jsonl", "--out", "mood.yaml"), "a new output file", "mood.yaml exists"),
    "an output without format": (("run", "rows.jsonl", "--out", "o.txt"), "an output file", "o.txt"),
    "no such column": (("run", "rows.jsonl", "--text", "txt"), 'a column "txt"', "its columns are n, text"),
    "a column of numbers": (("run", "rows.jsonl", "--text", "n"), "text in n", "0 in rows.jsonl, line 1"),
    "an empty text": (("run", "blank.jsonl"), "text in text", "' ' in blank.jsonl, line 2"),
    "columns to choose from": (("run", "two.csv"), "the column of the text", "a, b in two.csv, line 2"),
    "a column that is added": (("run", "taken.jsonl"), "rows without a column kept", "taken.jsonl, line 1"),
    "no model": (("thesis", "rows.jsonl"), "a model folder", "thesis"),
    "a model that isn't there": (("./nowhere", "rows.jsonl"), "a local model folder", "nowhere"),
    "a model of another kind": (("gpt2", "rows.jsonl"), "an encoder whose tokens can be pruned", "gpt2"),
    "a torn model": (("torn", "rows.jsonl"), "a whole pruned model in torn", "tokens.json"),
    "a model of another base": (("moved", "rows.jsonl"), "the weights of", "other weights under that name"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_done_is_told_and_leaves_nothing(
    case: str, folder: Path, softprune: Softprune, rows: list[dict[str, Any]], tiny_models: Models
) -> None:
    (folder / "blank.jsonl").write_text('{"text": "a film"}\n{"text": " "}\n')
    (folder / "two.csv").write_text("a,b\nx,y\n")
    (folder / "taken.jsonl").write_text('{"text": "a film", "kept": 3}\n')
    (folder / "thesis").mkdir(exist_ok=True)
    for name in ("torn", "moved"):
        (folder / name).mkdir(exist_ok=True)
    document = json.loads((folder / "run/models/lambda-0.1/tokens.json").read_text())
    (folder / "torn/tokens.json").write_text(json.dumps(document | {"rule": {}}))
    mark = {"base": "run/models/baseline", "fingerprint": "0" * 16 + "-" + "0" * 16}
    (folder / "moved/tokens.json").write_text(json.dumps(document | {"weights": mark}))
    if not (folder / "gpt2").exists():
        (folder / "gpt2").symlink_to(tiny_models("gpt2"))
    (model, *arguments), expected, found = BAD[case]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    told = softprune("tokens", "predict", model, *(["--input", *arguments] if arguments else []))
    assert told.code == 2, told.err
    assert "Traceback" not in told.err
    assert expected in told.err.partition("found:")[0]
    assert found in told.err.partition("found:")[2]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
