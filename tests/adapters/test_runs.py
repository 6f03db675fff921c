"""Runs of kind adapt: what they leave, how they choose, and that a kill changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted import METHODS, VIRTUAL, fresh, recipe_of, run
from safetensors.torch import load_file

from forks import Forks
from killing import kill_inside
from samples import every_second
from softprune.adapters import jobs
from softprune.adapters.jobs import settle_recipe
from softprune.adapters.registry import METHODS as TABLE
from softprune.config import LearningRate
from softprune.errors import ManyErrors, SoftpruneError
from softprune.models import describe
from softprune.pipelines.adapt import adapt, execute
from softprune.training.scoring import SealedSet

Models = Callable[[str], Path]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def timeless(info: dict[str, Any]) -> dict[str, Any]:
    return {name: row and {k: v for k, v in row.items() if k != "seconds"} for name, row in info["results"].items()}


def bits(out: Path) -> dict[str, object]:
    """All that must repeat."""
    info = json.loads((out / "run.json").read_text())
    curves = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {
        "results": timeless(info),
        "adapter": info["adapter"],
        "curves": [{k: v for k, v in point.items() if k != "seconds"} for point in curves],
        "tensors": (out / "adapter" / "adapter.safetensors").read_bytes(),
        "predictions": (out / "predictions" / "adapted.jsonl").read_bytes(),
    }


@pytest.mark.parametrize(("method", "model"), every_second(METHODS, ["gpt2", "sentence"]))  # others: test_saved.py
def test_a_run_leaves_its_row_its_adapter_and_what_it_cost(
    tiny_models: Models, task_file: Path, tmp_path: Path, method: str, model: str
) -> None:
    info = run(recipe_of(tiny_models(model), task_file, method), tmp_path / "run")
    row, adapter, cost = info["results"]["adapted"], info["adapter"], info["cost"]
    assert info["status"] == "complete"
    assert (row["n"], row["metric"]) == (12, "accuracy")
    assert row["interval"][0] <= row["value"] <= row["interval"][1]
    assert info["results"]["zero_shot"] is not None
    tensors = load_file(tmp_path / "run" / "adapter" / "adapter.safetensors")
    assert adapter["stored_parameters"] == sum(t.numel() for t in tensors.values()) > 0
    assert cost["trainable_parameters"] == adapter["trainable_parameters"] == row["parameters"]
    assert cost["steps"] == 2 * 3
    assert (row.get("tokens") == 3) == (method in VIRTUAL)


def test_zero_shot_is_the_model_as_it_was(tiny_models: Models, task_file: Path, tmp_path: Path) -> None:
    rows = {}
    for method in ("full", "lora", "p-tuning"):
        recipe = recipe_of(tiny_models("gpt2"), task_file, method, "tuning.lr=0.01")
        run(recipe, tmp_path / method)
        rows[method] = [
            json.loads(line)["scores"]
            for line in (tmp_path / method / "predictions" / "zero_shot.jsonl").read_text().splitlines()
        ]
    assert rows["full"] == rows["lora"] == rows["p-tuning"]


def test_the_methods_own_settings_stand_in_the_resolved_recipe(tiny_models: Models, task_file: Path) -> None:
    for method in METHODS:
        recipe = settle_recipe(recipe_of(tiny_models("gpt2"), task_file, method))
        own = TABLE[method].lr or LearningRate(relative=TABLE[method].relative_lr)
        assert recipe.tuning.lr == own
        assert (recipe.tuning.optimiser, recipe.tuning.patience) == ("adamw", None)
        assert recipe.tuning.weight_decay == (0.01 if method in ("full", "last-layer") else 0.0)
    named = settle_recipe(recipe_of(tiny_models("gpt2"), task_file, "full", "tuning.lr=0.1", "tuning.weight_decay=0.3"))
    assert (named.tuning.lr, named.tuning.weight_decay) == (0.1, 0.3)


def test_from_python_the_folder_holds_a_recipe_that_runs(tiny_models: Models, task_file: Path, tmp_path: Path) -> None:
    values = {
        "backbone": {"name": str(tiny_models("gpt2")), "dtype": "float32"},
        "task": {"id": str(task_file)},
        "adapter": {"method": "ia3"},
        "tuning": {"epochs": 1},
    }
    out = adapt(values, tmp_path / "run")
    again = adapt(out / "recipe.yaml", tmp_path / "again")
    assert bits(again) == bits(out)
    assert adapt(values, out) == out  # complete: nothing is done


def test_a_sweep_takes_the_best_on_select_before_report_is_read(
    tiny_models: Models, task_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    open_ = SealedSet.open

    def noted(sealed: SealedSet) -> Any:
        seen.append(len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()))
        return open_(sealed)

    monkeypatch.setattr(SealedSet, "open", noted)
    changes = ("tuning.sweep=0.001,1,3", "tuning.lr=0.02", "tuning.epochs=3")
    info = run(recipe_of(tiny_models("gpt2"), task_file, "lora", *changes), tmp_path / "run")
    found = info["sweep"]
    assert list(found) == ["0.001", "1", "3"]
    best = max(found, key=lambda multiple: (found[multiple]["score"], -found[multiple]["loss"]))
    assert info["adapter"]["lr"] == info["settings"]["lr"] == pytest.approx(0.02 * float(best))
    assert len({row["loss"] for row in found.values()}) == 3
    assert best != "0.001"
    assert seen == [9]  # all three trainings of three evaluations, and then once
    alone = run(
        recipe_of(tiny_models("gpt2"), task_file, "lora", f"tuning.lr={info['adapter']['lr']!r}", "tuning.epochs=3"),
        tmp_path / "alone",
    )
    assert alone["results"]["adapted"]["value"] == info["results"]["adapted"]["value"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (("tuning.optimiser=adafactor",), "tuning.optimiser=adamw for kind: adapt"),
        (("tuning.lr={relative: 0.3}",), "an absolute tuning.lr for full"),
        (("backbone.quantization=8bit",), "backbone.quantization=none for full"),
        (("backbone.dtype=float16",), "a dtype that full can train in"),
    ],
)
def test_mistakes_are_told_before_weights_load(
    tiny_models: Models, task_file: Path, tmp_path: Path, changes: tuple[str, ...], told: str
) -> None:
    with pytest.raises(SoftpruneError) as caught:
        run(recipe_of(tiny_models("gpt2"), task_file, "full", *changes), tmp_path / "run")
    assert told in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("method", "needed"), [("lora", True), ("p-tuning", True), ("full", False), ("dept", False)])
def test_peft_is_asked_for_where_it_is_needed(
    tiny_models: Models, task_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, needed: bool
) -> None:
    monkeypatch.setattr(jobs, "find_spec", lambda name: None)
    described = describe(str(tiny_models("gpt2")))
    recipe = settle_recipe(recipe_of("gpt2", task_file, method))
    found = [str(error) for error in jobs.find_mistakes(recipe, described)]
    assert (
        found
        == [f"expected: peft, for {method}\nfound:    not installed\ndo:       pip install 'softprune[methods]'"]
        * needed
    )


def test_all_mistakes_come_together(tiny_models: Models, task_file: Path, tmp_path: Path) -> None:
    changes = ("tuning.optimiser=adafactor", "tuning.lr={relative: 1}", "backbone.dtype=float16")
    with pytest.raises(ManyErrors) as caught:
        run(recipe_of(tiny_models("gpt2"), task_file, "full", *changes), tmp_path / "run")
    assert len(caught.value.errors) == 3


def test_weights_are_float32_under_bfloat16_products(tiny_models: Models, task_file: Path, tmp_path: Path) -> None:
    changes = ("backbone.dtype=bfloat16", "tuning.lr=2e-7")
    info = run(recipe_of(tiny_models("gpt2"), task_file, "full", *changes), tmp_path / "run")
    assert info["backbone"]["dtype"] == "bfloat16"
    tensors = load_file(tmp_path / "run" / "adapter" / "adapter.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    before = dict(fresh(tiny_models("gpt2")).model.named_parameters())
    moved = [name for name, value in tensors.items() if not torch.equal(value, before[name])]
    assert len(moved) > 0.9 * len(tensors)
    # Steps this small are lost where weights are bfloat16 themselves: the control.
    lost = [name for name in moved if torch.equal(tensors[name].bfloat16(), before[name].bfloat16())]
    assert len(lost) > 0.5 * len(moved)


@pytest.mark.slow
def test_killed_it_goes_on_to_the_same_bits(forks: Forks, tiny_models: Models, task_file: Path, tmp_path: Path) -> None:
    changes = ("tuning.lr=0.01", "tuning.sweep=0.5,1")
    recipe = recipe_of(tiny_models("gpt2"), task_file, "full", *changes)
    file = tmp_path / "recipe.yaml"
    file.write_text(settle_recipe(recipe).dump())
    execute(recipe, tmp_path / "whole", "test", recipe.dump())
    broken = tmp_path / "broken"
    for phase, nth in (("sweep", 3), ("report", 1)):
        kill_inside(forks, file, broken, phase, nth)
    execute(recipe, broken, "test", recipe.dump())
    assert bits(broken) == bits(tmp_path / "whole")
    other = recipe.model_copy(update={"seed": 1})
    execute(other, tmp_path / "other", "test", other.dump())
    assert bits(tmp_path / "other") != bits(tmp_path / "whole")
