"""`compare` and `methods`, with a stand-in for what they call where a run would take long."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from records import run_document
from softprune.adapters.registry import METHODS
from softprune.cli.options import recipe_flags
from softprune.config import CompareRecipe, flat_fields
from softprune.config.adapter_schema import PREFIXES
from softprune.errors import SoftpruneError
from softprune.runs.job_folder import FolderLock

Softprune = Callable[..., Any]


class Stand:
    """What `execute` was called with, and what it raises."""

    recipe: CompareRecipe | None = None
    out: Path | None = None
    command = ""
    text = ""
    error: BaseException | None = None
    page_error: SoftpruneError | None = None
    ran = True


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stand:
    stand = Stand()
    monkeypatch.chdir(tmp_path)

    def execute(recipe: CompareRecipe, out: Path, command: str, text: str, *, finish: Any, console: Any) -> bool:
        if stand.error is not None:
            raise stand.error
        stand.recipe, stand.out, stand.command, stand.text = recipe, out, command, text
        finish(out)
        return stand.ran

    def rewrite(out: Path) -> None:
        if stand.page_error is not None:
            raise stand.page_error
        out.mkdir(parents=True, exist_ok=True)
        (out / "index.html").touch()

    api = ModuleType("softprune.studies.comparison.runner")
    api.execute, api.rewrite, api.terminal = execute, rewrite, lambda out: f"tables of {out}"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, api.__name__, api)
    return stand


def test_flags_become_a_recipe(softprune: Softprune, stand: Stand) -> None:
    words = (
        "compare --methods prompt,lora --task demo --backbone tiny --seeds 2 --shots 100 --limit-report 50 --epochs 2"
    )
    more = "--batch-size 4 --sweep 0.3,1,3 --out here settings.lora.adapter.rank=4"
    answer = softprune(*words.split(), *more.split())
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == "tables of here\npage: here/index.html; tables: here/table.md, .csv, .tex\n"
    recipe = stand.recipe
    assert recipe is not None
    assert (recipe.methods, recipe.seeds, recipe.task.shots) == (("prompt", "lora"), 2, 100)
    assert (recipe.task.limit_report, recipe.tuning.epochs, recipe.tuning.batch_size) == (50, 2, 4)
    assert recipe.tuning.sweep == (0.3, 1.0, 3.0)
    assert recipe.cell("lora", 0)["adapter"] == {"rank": 4, "method": "lora"}
    assert stand.command == f"softprune {words} {more}"
    assert "# given on the command line: methods=prompt,lora" in stand.text


def test_run_takes_a_recipe_of_this_kind(softprune: Softprune, stand: Stand, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("kind: compare\nmethods: [prompt, ia3]\nsettings: {ia3: {tuning.epochs: 3}}\n")
    assert softprune("run", str(path), "seeds=1").code == 0
    assert stand.recipe is not None
    assert (stand.recipe.methods, stand.recipe.seeds) == (("prompt", "ia3"), 1)
    assert stand.out == Path("runs/demo-tiny-compare")
    assert stand.text.endswith("settings: {ia3: {tuning.epochs: 3}}\n")


def test_every_flag_is_a_key_that_exists() -> None:
    assert set(recipe_flags("compare").values()) <= {field.key for field in flat_fields(CompareRecipe)}


def test_a_comparison_without_its_page_is_one(softprune: Softprune, stand: Stand) -> None:
    stand.page_error = SoftpruneError("matplotlib", "no such package", "pip install it")
    answer = softprune("compare", "--out", "here")
    assert (answer.code, answer.out) == (0, "tables of here\n")
    assert "then: softprune report here" in answer.err


def test_a_complete_one_says_so_and_an_interrupted_one_how_to_go_on(softprune: Softprune, stand: Stand) -> None:
    stand.ran = False
    assert "here is complete: nothing was run" in softprune("compare", "--out", "here").err
    stand.error = KeyboardInterrupt()
    answer = softprune("compare", "--out", "here")
    assert answer.code == 130
    assert "here keeps what is done: run the same command to continue" in answer.err


def test_report_writes_a_comparison_anew(softprune: Softprune, stand: Stand, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "compare.json").write_text("{}")
    assert softprune("report", "here").out.startswith("tables of here\npage: here/index.html")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("--methods prompt,lorra", ('"lorra"', 'did you mean "lora"?')),
        ("--seeds 0", ("seeds: greater than or equal to 1", "found:    0")),
        ("--seeds few", ("seeds: a valid integer", "'few'")),
        ("--sweep 1,1", ("tuning.sweep: different numbers above 0", "'1,1'")),
        ("--sweep 0,1", ("tuning.sweep: different numbers above 0",)),
        ("--backbone tinny", ("tinny", 'did you mean "tiny"?')),
        ("--task demmo --methods lorra", ("2 mistakes in the flags", "demmo", "lorra")),
        ("settings.lora.adapter.rank=0", ("settings.lora: adapter.rank: greater than or equal to 1",)),
        ("settings.lora.task.id=cb", ("settings.lora: keys that may differ between methods", "task.id")),
        ("--recipe demo", ("a recipe of kind compare", "kind: xprompt in demo", "softprune run demo")),
        ("--metods prompt", ("--metods", "did you mean --methods or")),
    ],
)
def test_bad_input_ends_in_one_message(
    softprune: Softprune, words: str, parts: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = softprune("compare", "--out", "run", *words.split())
    assert answer.code == 2
    assert "Traceback" not in answer.err
    assert answer.err.count("expected:") == answer.err.count("do:")
    assert all(part in answer.err for part in parts), answer.err
    assert list(tmp_path.iterdir()) == []


def test_several_processes_are_refused(softprune: Softprune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    answer = softprune("compare", "--out", "run")
    assert answer.code == 2
    assert "one process to compare methods\nfound:    2, launched together" in answer.err
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_that_is_not_finished_has_no_tables(softprune: Softprune, tmp_path: Path) -> None:
    info = run_document("compare", status="running", command="softprune compare --out x")
    (tmp_path / "compare.json").write_text(json.dumps(info))
    answer = softprune("report", str(tmp_path))
    assert answer.code == 2
    assert "a finished comparison" in answer.err
    assert f"{tmp_path} was interrupted" in answer.err
    assert "go on: softprune compare --out x" in answer.err
    lock = FolderLock(tmp_path)
    answer = softprune("report", str(tmp_path))
    lock.release()
    assert f"{tmp_path} is running" in answer.err
    assert "go on" not in answer.err
    told = str(SoftpruneError("a finite loss", "nan", "lower tuning.lr"))
    (tmp_path / "compare.json").write_text(json.dumps(info | {"status": "failed", "error": told}))
    answer = softprune("report", str(tmp_path))
    assert f"{tmp_path} failed:\n  expected: a finite loss\n  found:    nan\n  do:       lower tuning.lr" in answer.err
    assert "fix that, then go on: softprune compare --out x" in answer.err


def test_methods_lists_all_of_them(softprune: Softprune) -> None:
    answer = softprune("methods")
    assert answer.code == 0
    for method in METHODS.values():
        line = next(line for line in answer.out.splitlines() if line.startswith(f"{method.name} "))
        assert method.trains in line
        assert method.source in line
    assert re.search(r"^lora .* 0\.0005 ", answer.out, re.MULTILINE)
    assert re.search(r"^prompt .* 0\.3 × RMS of embeddings ", answer.out, re.MULTILINE)
    assert "not defined" not in answer.out


def test_methods_of_a_backbone(softprune: Softprune, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = softprune("methods", "--backbone", "tiny-causal")
    assert answer.code == 0
    assert "not defined" not in answer.out
    assert len(re.findall(r" yes *$", answer.out, re.MULTILINE)) == len(METHODS)
    answer = softprune("methods", "--backbone", "tiny")
    assert len(re.findall(r" yes *$", answer.out, re.MULTILINE)) == len(METHODS) - 1
    assert re.search(r"^cartridge: not defined: .* in causal models alone$", answer.out, re.MULTILINE)
    reasons = dict.fromkeys(PREFIXES, "no such layers")
    monkeypatch.setattr("softprune.studies.comparison.runner.why_not_defined", lambda name, _: reasons.get(name))
    answer = softprune("methods", "--backbone", "tiny")
    assert re.search(r"^prefix .*not defined *$", answer.out, re.MULTILINE)
    assert re.search(r"^lora .*yes *$", answer.out, re.MULTILINE)
    assert "p-tuning-v2: not defined: no such layers" in answer.out
    assert softprune("methods", "--backbone", "tinny").code == 2
