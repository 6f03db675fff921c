"""A recipe of token pruning from Python: what is refused before any work, and what is noted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_runs import info_of, recipe_of, workspace_of, write_task

import softprune.pipelines.token_pruning as api
from softprune.errors import ManyErrors, SoftpruneError
from softprune.pipelines.token_pruning import execute, prune_tokens

Models = Callable[[str], Path]
OFFICIAL = Path(__file__).parents[1] / "fixtures" / "tasks" / "official"
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
QUICK = ("pruning.baselines=none", "pruning.hard_epochs=0")


def refused(tmp_path: Path, model: Path, task: Path | str, *overrides: str) -> SoftpruneError:
    """What is said, with nothing left behind."""
    with pytest.raises(SoftpruneError) as caught:
        execute(recipe_of(task, model, *overrides), tmp_path / "run", "test", "")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()
    return caught.value


@pytest.mark.parametrize("where", ["train", "validation"])
@pytest.mark.parametrize("empty", ["", "   "])
def test_an_empty_text_is_refused(tmp_path: Path, tiny_models: Models, where: str, empty: str) -> None:
    task = write_task(tmp_path / "task", more={where: [{"text": empty, "label": "good"}]})
    told = refused(tmp_path, tiny_models("encoder"), task)
    assert told.expected == "text in every example"
    assert told.found == f"none in row {16 if where == 'train' else 12}"


def test_an_unknown_label_is_refused(tmp_path: Path, tiny_models: Models) -> None:
    task = write_task(tmp_path / "task", more={"train": [{"text": "a film", "label": "so-so"}]})
    assert "a label out of good, bad" in refused(tmp_path, tiny_models("encoder"), task).expected


def test_answers_that_hang_on_the_example_are_refused(tmp_path: Path, tiny_models: Models) -> None:
    told = refused(tmp_path, tiny_models("encoder"), "copa", f"task.data={OFFICIAL / 'copa'}", "selection.fraction=0.5")
    assert told.expected == "a task with the same classes for every text"


def test_a_length_beyond_the_positions_and_bad_data_are_told_together(tmp_path: Path, tiny_models: Models) -> None:
    task = write_task(tmp_path / "task", more={"train": [{"text": "", "label": "good"}]})
    told = refused(tmp_path, tiny_models("encoder"), task, "task.max_length=512")
    assert isinstance(told, ManyErrors)
    assert [error.found for error in told.errors] == ["none in row 16", "512"]


def test_mappings_names_and_recipes_are_taken(
    tmp_path: Path, tiny_models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(write_task(tmp_path / "task"), tiny_models("encoder"), *QUICK)
    (tmp_path / "mine.yaml").write_text(recipe.dump())
    begun = []
    monkeypatch.setattr(api, "execute", lambda read, out, *_, **__: begun.append((read, out)))
    for form in (recipe, recipe.resolved(), tmp_path / "mine.yaml", str(tmp_path / "mine.yaml")):
        assert prune_tokens(form, tmp_path / "run") == tmp_path / "run"
    assert begun == [(recipe, tmp_path / "run")] * 4


def test_what_results_hang_on_is_noted(tmp_path: Path, tiny_models: Models) -> None:
    rows = [{"text": "film " * 90, "label": "bad"}] * 2
    task = write_task(tmp_path / "task", 30, more={"train": rows, "validation": rows[:1]})
    finished = []
    recipe = recipe_of(task, tiny_models("encoder"), *QUICK, "task.shots=30", "task.limit_report=10")
    execute(recipe, tmp_path / "run", "softprune x", "given", finish=finished.append)
    info = info_of(tmp_path / "run")
    assert finished == [tmp_path / "run"]
    assert (info["backbone"]["device"], info["backbone"]["dtype"], info["threads"]) == ("cpu", "float32", 1)
    assert (info["backbone"]["family"], info["backbone"]["layers"]) == ("bert", 5)
    assert info["task"]["sizes"] == {"train": 24, "select": 6, "report": 10}
    assert info["task"]["answers"] == ["good", "bad"]
    assert info["convention"] == {"divisor": 1.0, "protect": True}
    assert info["model"] == "models/lambda-0.1"
    assert (tmp_path / "run" / "recipe.yaml").read_text() == "given"
    assert set(info["cost"]["phases"]) == {"baseline", "soft", "hard", "report", "models", "write"}
    assert info["cost"]["steps"] == 6
    # Cut tokens are told of every set.
    everything = recipe_of(task, tiny_models("encoder"), *QUICK)
    execute(everything, tmp_path / "all", "test", "")
    told = info_of(tmp_path / "all")["task"]
    assert told["truncated"]["examples"] >= 2
    assert told["cut_report"]["examples"] >= 1


def test_half_a_surrogate_pair_in_a_file_is_refused(tmp_path: Path, tiny_models: Models) -> None:
    task = write_task(tmp_path / "task")
    with (tmp_path / "task" / "train.jsonl").open("a") as file:
        file.write('{"text": "half \\ud800 of a film", "label": "good"}\n')
    assert "half of a surrogate pair" in refused(tmp_path, tiny_models("encoder"), task).found


def test_bfloat16_products_run_to_the_end(tmp_path: Path, tiny_models: Models) -> None:
    task = write_task(tmp_path / "task")
    recipe = recipe_of(task, tiny_models("encoder"), "backbone.dtype=bfloat16", "pruning.baselines=top-k")
    execute(recipe, tmp_path / "run", "test", "")
    info = info_of(tmp_path / "run")
    assert info["backbone"]["dtype"] == "bfloat16"
    from safetensors.torch import load_file

    saved = load_file(tmp_path / "run" / "models" / "lambda-0.1" / "model.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.float32}


@pytest.mark.parametrize("name", ["roberta", "distilbert"])
def test_other_families_run_to_the_end(tmp_path: Path, tiny_models: Models, name: str) -> None:
    recipe = recipe_of(write_task(tmp_path / "task"), tiny_models(name), "pruning.baselines=top-k,random")
    execute(recipe, tmp_path / "run", "test", "")
    assert info_of(tmp_path / "run")["results"]["random-2"]["n"] == 12


def test_weights_that_give_no_numbers_end_a_run(tmp_path: Path, tiny_models: Models) -> None:
    from safetensors.torch import load_file, save_file

    model = shutil.copytree(tiny_models("encoder"), tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    weights["embeddings.LayerNorm.weight"][0] = float("nan")
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(SoftpruneError, match="a finite training loss"):
        execute(recipe_of(write_task(tmp_path / "task"), model), tmp_path / "run", "test", "")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"


def test_memory_that_runs_out_is_told(tmp_path: Path, tiny_models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(api, "experiment", full)
    with pytest.raises(SoftpruneError) as caught:
        execute(recipe_of(write_task(tmp_path / "task"), tiny_models("encoder")), tmp_path / "run", "test", "")
    assert caught.value.found == "out of memory (CUDA out of memory.)"
    assert "tuning.eval_rows=32 tuning.accumulate=2" in caught.value.do


def test_the_sealed_set_is_not_tokenised_before_it_opens(tmp_path: Path, tiny_models: Models) -> None:
    workspace = workspace_of(recipe_of(write_task(tmp_path / "task"), tiny_models("encoder")), tmp_path / "run")
    with workspace.run, pytest.raises(RuntimeError, match="before every choice was fixed"):
        workspace.report.open()
