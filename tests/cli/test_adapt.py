"""`adapt`, and what other commands do with the run that it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from softprune.cli.options import recipe_flags

Softprune = Callable[..., Any]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
BRIEF = (
    "--backbone",
    "tiny",
    "--task",
    "demo",
    "--shots",
    "40",
    "--limit-report",
    "20",
    "--epochs",
    "1",
    "--dtype",
    "float32",
)


@pytest.fixture
def run(tmp_path: Path, softprune: Softprune, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    told = softprune("adapt", "--method", "lora", "--rank", "4", *BRIEF)
    assert told.code == 0, told.err
    assert "adapted by lora" in told.out
    return Path("runs/demo-tiny-lora")


def test_its_folder_answers_goes_to_peft_and_is_listed(run: Path, softprune: Softprune) -> None:
    info = json.loads((run / "run.json").read_text())
    assert (info["kind"], info["adapter"]["method"]) == ("adapt", "lora")
    assert (run / "report" / "index.html").exists()
    Path("new.jsonl").write_text('{"text": "my parcel never arrived"}\n{"text": "the invoice is wrong"}\n')
    told = softprune("predict", str(run), "--input", "new.jsonl", "--out", "out.jsonl")
    assert told.code == 0, told.err
    answers = [json.loads(line)["prediction"] for line in Path("out.jsonl").read_text().splitlines()]
    assert set(answers) <= set(info["task"]["answers"])
    told = softprune("export", str(run), "--format", "peft", "--out", "peft")
    assert told.code == 0, told.err
    assert "PeftModel.from_pretrained" in told.out
    assert json.loads(Path("peft/adapter_config.json").read_text())["r"] == 4
    assert "adapted" in softprune("runs").out
    assert "adapted by lora" in softprune("report", str(run)).out


def test_the_same_command_again_finds_it_complete(run: Path, softprune: Softprune) -> None:
    told = softprune("adapt", "--method", "lora", "--rank", "4", *BRIEF)
    assert told.code == 0
    assert f"{run} is complete" in told.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--method", "lore"), 'did you mean "lora"?'),
        (("--method", "lora", "adapter.layers=1,1"), "different whole numbers from 0"),
        (("--method", "full", "tuning.optimiser=adafactor"), "tuning.optimiser=adamw for kind: adapt"),
        (("--method", "lora", "adapter.targets=nothing"), "modules that the method can be put into"),
        (("--method", "last-layer", "adapter.untie_head=true"), "a model with an output head"),
    ],
)
def test_bad_input_ends_in_one_message(
    words: tuple[str, ...], told: str, tmp_path: Path, softprune: Softprune, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = softprune("adapt", *words, *BRIEF)
    assert found.code == 2
    assert told in found.err
    assert not (tmp_path / "runs").exists()


def test_flags_are_those_that_an_adapter_reads() -> None:
    flags = recipe_flags("adapt")
    assert {"--method", "--rank", "--alpha", "--dropout", "--lr", "--shots", "--tokens"} <= set(flags)
    assert not {"--pieces", "--strategy", "--removal", "--optimiser", "--executor"} & set(flags)


def test_several_processes_and_plans_are_for_prompts(
    tmp_path: Path, softprune: Softprune, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lora.yaml").write_text("kind: adapt\n")
    assert "kind: adapt (lora)" in softprune("plan", "lora.yaml").err
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    answer = softprune("adapt", *BRIEF)
    assert (answer.code, "found:    2, launched together" in answer.err) == (2, True)
    assert list(tmp_path.iterdir()) == [tmp_path / "lora.yaml"]
