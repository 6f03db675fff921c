from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from softprune.errors import SoftpruneError
from softprune.report.run_reader import ImportanceScores, read_run


def test_everything_in_a_run_folder_is_read(xprompt_run: Path) -> None:
    run = read_run(xprompt_run)
    assert run.record.kind == "xprompt"
    assert run.results["winner"].value == 0.7329
    assert run.results["winner"].interval == (0.6787, 0.7834)
    assert run.results["control"].seeds == [0.711, 0.708, 0.718]
    assert len(run.candidates) == 81
    assert run.importance.token_P.shape == (20,)
    assert run.importance.winner_piece_PS.shape == (20, 16)
    assert run.ticket.token_P.sum() == next(c.tokens_kept for c in run.candidates if c.status == "winner")
    assert set(run.predictions) == {"control", "winner"}
    assert run.predictions["winner"][3].predicted != run.predictions["winner"][3].gold
    assert "lr: 0.3" in run.recipe_text


def test_what_is_missing_is_none(xprompt_run: Path) -> None:
    for name in ("importance.safetensors", "candidates.jsonl", "metrics.jsonl", "resolved.yaml", "ticket/ticket.json"):
        (xprompt_run / name).unlink()
    run = read_run(xprompt_run)
    assert (run.importance, run.ticket, run.recipe_text) == (ImportanceScores(), None, None)
    assert (run.candidates, run.points) == ((), ())


def test_a_torn_last_line_does_not_count(xprompt_run: Path) -> None:
    before = len(read_run(xprompt_run).points)
    with (xprompt_run / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "tune", "candid')
    assert len(read_run(xprompt_run).points) == before


def test_fields_of_later_versions_are_passed_over(xprompt_run: Path) -> None:
    path = xprompt_run / "candidates.jsonl"
    path.write_text("".join(json.dumps(json.loads(x) | {"new": 1}) + "\n" for x in path.read_text().splitlines()))
    assert len(read_run(xprompt_run).candidates) == 81


def test_importance_that_is_not_finite_is_not_measured(xprompt_run: Path) -> None:
    broken = {"token_P": np.array([1.0, np.nan]), "piece_PS": np.ones((2, 4))}
    save_file(broken, xprompt_run / "importance.safetensors")
    found = read_run(xprompt_run).importance
    assert found.token_P is None
    assert found.piece_PS is not None


def test_best_by_comes_from_the_recipe(xprompt_run: Path) -> None:
    (xprompt_run / "resolved.yaml").write_text("tuning:\n  best_by: loss\n")
    assert read_run(xprompt_run).best_by == "loss"


@pytest.mark.parametrize("name", ["run.json", "candidates.jsonl", "ticket/ticket.json", "importance.safetensors"])
def test_an_unreadable_file_is_named(xprompt_run: Path, name: str) -> None:
    (xprompt_run / name).write_text("[1, 2\n")
    with pytest.raises(SoftpruneError, match=name):
        read_run(xprompt_run)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SoftpruneError, match=r"no run\.json"):
        read_run(tmp_path)


def test_reports_load_neither_torch_nor_pyplot(xprompt_run: Path) -> None:
    code = (
        "import sys; from softprune.report import comparison_table; from pathlib import Path;"
        f"comparison_table(Path({str(xprompt_run)!r})); assert 'matplotlib' not in sys.modules;"
        "import softprune.report.page;"
        "assert not {'torch', 'transformers', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
