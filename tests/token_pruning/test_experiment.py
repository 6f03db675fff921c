"""A whole run: what is chosen, when `report` is read, and what stands in the folder afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import small_runs
from small_runs import info_of, recipe_of, workspace_of, write_task

from softprune.pipelines.token_pruning import execute
from softprune.runs.record import begin_run
from softprune.runs.record_parts import SelectionRecord
from softprune.token_pruning import experiment as page
from softprune.token_pruning.experiment import BASELINE, choose, experiment
from softprune.token_pruning.model import TokenModel
from softprune.token_pruning.stages import TrainedModel
from softprune.training.scoring import SealedSet

Models = Callable[[str], Path]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.mark.parametrize(
    ("accuracy", "macs", "chosen", "within"),
    [
        ({"a": 0.90, "b": 0.895, "c": 0.80}, {"a": 0.7, "b": 0.5, "c": 0.2}, "b", True),  # fewest within a point
        ({"a": 0.90, "b": 0.89, "c": 0.80}, {"a": 0.7, "b": 0.5, "c": 0.2}, "b", True),  # the margin itself counts
        ({"a": 0.90, "b": 0.889, "c": 0.80}, {"a": 0.7, "b": 0.5, "c": 0.2}, "a", True),
        ({"a": 0.95, "b": 0.93, "c": 0.91}, {"a": 0.7, "b": 0.5, "c": 0.2}, "c", True),  # better than unpruned
        ({"a": 0.80, "b": 0.85, "c": 0.70}, {"a": 0.7, "b": 0.5, "c": 0.2}, "b", False),  # none: the best
        ({"a": 0.80, "b": 0.80, "c": 0.70}, {"a": 0.7, "b": 0.5, "c": 0.2}, "a", False),  # of equals the first
    ],
)
def test_the_choice_on_numbers_made_by_hand(
    accuracy: dict[str, float], macs: dict[str, float], chosen: str, within: bool
) -> None:
    value = {BASELINE: 0.90, **accuracy}
    record = begin_run("tokens", "", 0)
    record.selection = SelectionRecord(protocol="held-out", description="")
    workspace = SimpleNamespace(
        metric=SimpleNamespace(value=lambda scores: value["".join(scores.predicted)]),
        select=SimpleNamespace(golds=()),
        recipe=SimpleNamespace(selection=SimpleNamespace(within=0.01)),
        run=SimpleNamespace(editing=lambda: nullcontext(record)),
    )
    found = {name: cast(TrainedModel, SimpleNamespace(select=SimpleNamespace(predicted=name))) for name in value}
    assert choose(cast(Any, workspace), found, macs) == chosen
    assert (record.selection.chosen, record.selection.within) == (chosen, within)


def test_report_is_read_once_and_only_when_everything_is_chosen(
    tmp_path: Path, tiny_models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = workspace_of(recipe_of(write_task(tmp_path / "task"), tiny_models("encoder")), tmp_path / "run")
    opened = SealedSet.open
    known: list[set[str]] = []

    def watched(self: SealedSet) -> Any:
        record = workspace.run.record
        known.append(set(record.stages))
        assert record.selection is not None
        assert record.selection.chosen == "lambda-0.1"
        assert not any(record.results.values())
        return opened(self)

    monkeypatch.setattr(SealedSet, "open", watched)
    with workspace.run:
        experiment(workspace)
    assert known == [{"baseline", "soft-0.1", "lambda-0.1", "top-k", "manual"}]


def test_reading_report_earlier_fails(tmp_path: Path, tiny_models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: a choice that looked at `report` would be a bug that shows."""
    workspace = workspace_of(recipe_of(write_task(tmp_path / "task"), tiny_models("encoder")), tmp_path / "run")

    def cheating(workspace: Any, found: Any, operations: Any) -> str:
        return str(workspace.report.open())

    monkeypatch.setattr(page, "choose", cheating)
    with workspace.run, pytest.raises(RuntimeError, match="before every choice was fixed"):
        experiment(workspace)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_models: Models) -> Path:
    """A run of two lambdas and all baselines."""
    folder = tmp_path_factory.mktemp("done")
    more = ("pruning.lambdas=0.03,0.3", "pruning.baselines=top-k,manual,first,random", "pruning.random_seeds=2")
    recipe = recipe_of(write_task(folder / "task"), tiny_models("encoder"), *more, "tuning.epochs=2")
    execute(recipe, folder / "run", "softprune tokens train", "")
    return folder / "run"


NAMES = ("baseline", "lambda-0.03", "lambda-0.3", "top-k", "manual", "first", "random-0", "random-1")


def test_every_model_is_reported_with_the_same_columns(done: Path) -> None:
    info = info_of(done)
    rows = {name: row for name, row in info["results"].items() if row}
    assert set(rows) == {*NAMES, "constant"}
    for name in NAMES:
        row = rows[name]
        assert row["n"] == 12
        assert row["interval"][0] <= row["value"] <= row["interval"][1]
        assert row["difference"]["value"] == pytest.approx(row["value"] - rows["baseline"]["value"])
        assert len(row["kept"]) == 5
        assert row["kept"][0] == 1.0
        assert list(row["kept"]) == sorted(row["kept"], reverse=True)
        assert 0 < row["paper_macs"] <= 1
        assert 0 < row["executed_macs"] <= 1
    assert rows["baseline"]["paper_macs"] == rows["baseline"]["executed_macs"] == 1.0
    assert rows["lambda-0.3"]["paper_macs"] < 1


def test_predictions_stand_in_files_and_make_the_reported_values(done: Path) -> None:
    info = info_of(done)
    for name in NAMES:
        lines = [json.loads(line) for line in (done / "predictions" / f"{name}.jsonl").read_text().splitlines()]
        right = sum(line["gold"] == line["predicted"] for line in lines) / len(lines)
        assert right == pytest.approx(info["results"][name]["value"])
        left = sum(line["kept"][-1] for line in lines) / sum(line["tokens"] for line in lines)
        assert left == pytest.approx(info["results"][name]["kept"][-1])


def test_saved_models_say_what_was_reported(done: Path) -> None:
    info = info_of(done)
    rows = small_runs.texts_of(12, 1)
    for name in ("baseline", "lambda-0.03", "lambda-0.3"):
        model = TokenModel.load(done / "models" / name, device="cpu", dtype="float32")
        assert model.labels == ("good", "bad")
        traces = model.trace([row["text"] for row in rows])
        right = sum(model.labels[r.predicted] == row["label"] for r, row in zip(traces, rows, strict=True))
        assert right / 12 == pytest.approx(info["results"][name]["value"])
        kept = sum(trace.alive()[-1] for trace in traces) / sum(len(trace.left) for trace in traces)
        assert kept == pytest.approx(info["results"][name]["kept"][-2])  # behind the last layer, traces drop nobody
    chosen = TokenModel.load(done, device="cpu")
    assert chosen.name == str(done / info["model"])


def test_baselines_are_held_to_the_chosen_models_operations(done: Path) -> None:
    info = info_of(done)
    target = info["stages"][info["selection"]["chosen"]]["relative_macs"]
    token = info["task"]["sizes"]["select"] / (5 * info["task"]["tokens"]["select"])
    for name in ("top-k", "first", "random-0", "random-1", "manual"):
        stage = info["stages"][name]
        assert stage["macs_target"] == target
        off = abs(stage["relative_macs"] - target)
        assert stage["macs_reached"] == (off <= max(0.01, token)), name


def classifier_of(encoder: Path, folder: Path) -> Path:
    """The encoder with a random head for the task's two classes."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    shutil.copytree(encoder, folder)
    config = AutoConfig.from_pretrained(folder, num_labels=2)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


def test_a_model_that_is_fine_tuned_already_needs_no_baseline_training(tmp_path: Path, tiny_models: Models) -> None:
    more = ("tuning.epochs=0", "pruning.hard_epochs=0", "pruning.baselines=none")
    model_folder = classifier_of(tiny_models("encoder"), tmp_path / "classifier")
    recipe = recipe_of(write_task(tmp_path / "task"), model_folder, *more)
    execute(recipe, tmp_path / "run", "test", "")
    info = info_of(tmp_path / "run")
    assert set(info["cost"]["training"]) == {"soft-0.1"}
    assert set(info["stages"]) == {"baseline", "soft-0.1", "lambda-0.1"}
    assert info["stages"]["soft-0.1"]["theta"] == info["stages"]["lambda-0.1"]["theta"]
    model = TokenModel.load(tmp_path / "run")
    again = recipe_of(tmp_path / "task/mood.yaml", model.name, *more, "pruning.lambdas=0.2")
    execute(again, tmp_path / "again", "test", "")
    assert info_of(tmp_path / "again")["stages"]["baseline"]["select_loss"] != info["stages"]["baseline"]["select_loss"]


def test_the_official_convention_runs_too(tmp_path: Path, tiny_models: Models) -> None:
    more = ("pruning.divisor='128'", "pruning.protect=false", "pruning.baselines=top-k,manual,random")
    recipe = recipe_of(write_task(tmp_path / "task"), tiny_models("encoder"), *more, "pruning.random_seeds=1")
    assert recipe.pruning.divisor == "128"
    execute(recipe, tmp_path / "run", "test", "")
    info = info_of(tmp_path / "run")
    assert info["convention"] == {"divisor": 128.0, "protect": False}
    assert all(0 <= theta < 0.1 for theta in info["stages"]["lambda-0.1"]["theta"])
    model = TokenModel.load(tmp_path / "run")
    assert (model.convention.divisor, model.convention.protect) == (128.0, False)
