"""Learning rates tried on `select`: what is chosen, and that the chosen training isn't made twice."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from softprune.config import Recipe, resolve
from softprune.data import load_task
from softprune.data.splits import select_sets
from softprune.pipelines.plan import count_steps
from softprune.pipelines.xprompt import tune
from softprune.report.charts import group_trainings
from softprune.report.run_reader import read_run
from softprune.runs.record_parts import SettingsRecord, sweep_work
from softprune.runs.run_folder import RunFolder
from softprune.training import jobs
from softprune.training.jobs import best_rate, chosen_work, sweep_candidate
from softprune.training.loop import Evaluation, NotFinite, check_finite

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    with RunFolder.open(tmp_path / "run", recipe_text="", resolved={"seed": 3}, kind="tune", command="") as run:
        yield run


def trying(found: dict[float, Evaluation | None]) -> Callable[[float, str], Evaluation]:
    def train(lr: float, work: str) -> Evaluation:
        evaluation = found[round(lr / 0.1, 6)]
        assert work == sweep_work(round(lr / 0.1, 6))
        if evaluation is None:
            check_finite([math.nan], [work], "training loss", "at step 2", "lower it")
        assert evaluation is not None
        return evaluation

    return train


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        ({0.3: Evaluation(0.5, 1.0), 1.0: Evaluation(0.7, 2.0), 3.0: Evaluation(0.6, 0.1)}, 1.0),  # score first
        ({0.3: Evaluation(0.7, 1.0), 1.0: Evaluation(0.7, 0.9), 3.0: Evaluation(0.6, 0.1)}, 1.0),  # then loss
        ({0.3: Evaluation(0.7, 1.0), 1.0: Evaluation(0.7, 1.0)}, 0.3),  # then the one named first
        ({0.3: Evaluation(0.2, 1.0), 3.0: None}, 0.3),  # never one that went out of bounds
    ],
)
def test_the_best_on_select_is_chosen(run: RunFolder, found: dict[float, Evaluation | None], chosen: float) -> None:
    with run.editing() as record:
        record.settings = SettingsRecord(lr=0.1, loss="rank")
    assert best_rate(run, 0.1, tuple(found), trying(found)) == pytest.approx(0.1 * chosen)
    rows = run.record.sweep
    assert {name for name, row in rows.items() if row.chosen} == {f"{chosen:g}"}
    assert run.record.settings == SettingsRecord(lr=0.1 * chosen, loss="rank")
    for multiple, evaluation in found.items():
        told = rows[f"{multiple:g}"]
        wanted = (None, None) if evaluation is None else (evaluation.score, evaluation.loss)
        assert (told.score, told.loss) == wanted
        assert told.lr == pytest.approx(0.1 * multiple)
    assert chosen_work(run) == f"sweep-{chosen:g}"


def test_where_no_rate_gives_numbers_the_run_ends(run: RunFolder) -> None:
    with pytest.raises(NotFinite, match="a finite training loss"):
        best_rate(run, 0.1, (0.3, 1.0), trying({0.3: None, 1.0: None}))
    assert chosen_work(run) is None


def recipe_of(model: Path, *changes: str) -> Recipe:
    settings = ("kind=tune", "task.id=demo", "task.shots=40", "task.limit_report=24", "backbone.dtype=float32")
    more = ("backbone.device=cpu", "prompt.tokens=4", "tuning.epochs=3", "selection.resamples=50")
    return resolve([f"backbone.name={model}", *settings, *more, *changes])


def info_of(out: Path) -> dict[str, Any]:
    info: dict[str, Any] = json.loads((out / "run.json").read_text())
    return info


def test_a_sweep_ends_as_the_chosen_rate_alone_would(
    tiny_models: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, trained = tiny_models("sentence"), []
    finish = jobs.FolderKeeper.finish
    monkeypatch.setattr(
        jobs.FolderKeeper, "finish", lambda self, done: trained.append(self._names) or finish(self, done)
    )
    swept = tune(recipe_of(model, "tuning.lr=0.1", "tuning.sweep=0.5,2,8"), tmp_path / "swept")
    assert trained == [[sweep_candidate(sweep_work(each))] for each in (0.5, 2.0, 8.0)]
    info = info_of(swept)
    (chosen,) = [row for row in info["sweep"].values() if row["chosen"]]
    assert chosen["score"] == max(row["score"] for row in info["sweep"].values())
    alone = tune(recipe_of(model, f"tuning.lr={chosen['lr']!r}"), tmp_path / "alone")
    other = next(row["lr"] for row in info["sweep"].values() if not row["chosen"])
    apart = tune(recipe_of(model, f"tuning.lr={other!r}"), tmp_path / "apart")
    vectors = [
        load_file(out / "prompts" / "tuned.safetensors")["vectors_PH"].tobytes() for out in (swept, alone, apart)
    ]
    assert vectors[0] == vectors[1] != vectors[2]
    results = [info_of(out)["results"]["tuned"] for out in (swept, alone)]
    assert [row["value"] for row in results] == [results[0]["value"]] * 2
    ((role, shown),) = group_trainings(read_run(swept))
    ((_, wanted),) = group_trainings(read_run(alone))
    assert (role, [p.select_loss for p in shown]) == ("tuned", [p.select_loss for p in wanted])


def test_a_plan_counts_every_rate(tiny_models: Callable[[str], Path]) -> None:
    model = tiny_models("sentence")
    swept, alone = (count_steps(recipe_of(model, *changes), 40, 1) for changes in (["tuning.sweep=0.5,2,8"], []))
    steps = [stage.steps * stage.trainings for stage in (*swept.stages, *alone.stages)]
    assert steps[0] == 3 * steps[1] > 0


def test_runs_of_other_seeds_can_report_on_the_same_examples() -> None:
    splits = load_task("demo").load()

    def indices(seed: int, report_seed: int | None) -> tuple[int, ...]:
        return select_sets(splits, shots=40, seed=seed, limit_report=24, report_seed=report_seed).indices["report"]

    assert indices(0, None) != indices(1, None)
    assert indices(0, None) == indices(1, 0) == indices(0, 0)
