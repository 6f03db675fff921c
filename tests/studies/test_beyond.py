"""Ensembles, one prompt for several tasks, prompts out of domain: held to what the runs' files say."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from math import log, sqrt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from beyond import bench_of, column, moods, study_of, value

from softprune.config import load_study
from softprune.data import load_task
from softprune.errors import SoftpruneError
from softprune.studies.experiments import ensembles, multitask, out_of_domain
from softprune.studies.findings import Cell, format_entry
from softprune.studies.run_result import FinishedRun, score_lines
from softprune.studies.verdicts import NEITHER, verdict

pytestmark = pytest.mark.slow

Models = Callable[[str], Path]


def line(name: str, gold: int, *probabilities: float) -> dict[str, Any]:
    scores = [log(p) for p in probabilities]
    return {"id": name, "gold": gold, "predicted": scores.index(max(scores)), "scores": scores}


def test_an_ensembles_answers_are_counted_as_by_hand() -> None:
    parts = [
        [line("a", 0, 0.6, 0.4), line("b", 1, 0.6, 0.4), line("c", 1, 0.9, 0.1)],
        [line("a", 0, 0.7, 0.3), line("b", 1, 0.1, 0.9), line("c", 1, 0.8, 0.2)],
    ]
    together = ensembles.answer_together(parts, "mean")  # b: 0.35 and 0.65
    assert [each["predicted"] for each in together] == [0, 1, 0]
    assert [each["predicted"] for each in ensembles.answer_together(parts[:1], "mean")] == [0, 0, 0]
    scored = score_lines(together, load_task("trec").metric)
    assert scored is not None
    assert scored.counts_NC.tolist() == [[1, 1], [1, 1], [0, 1]]
    assert scored.ids == ("a", "b", "c")
    assert ensembles.agreement(parts) == pytest.approx(2 / 3)


def test_the_best_ticket_is_chosen_on_select_and_never_on_report() -> None:
    def run(seed: int, select: float, parameters: int, report: float) -> Any:
        info = SimpleNamespace(select=select, parameters=parameters)
        ticket = SimpleNamespace(info=info)
        return SimpleNamespace(seed=seed, ticket=ticket, value=lambda _: report, scored=lambda _: None)

    runs = [run(0, 0.5, 10, 0.9), run(1, 0.7, 20, 0.3), run(2, 0.7, 15, 0.2), run(3, 0.7, 15, 0.8)]
    assert ensembles.best_on_select(runs).values == (0.2,)
    assert ensembles.best_on_select(runs[:2]).values == (0.3,)


def test_ensembles_answer_as_their_runs_did(tiny_models: Models, tmp_path: Path, one_thread: None) -> None:
    study = bench_of(study_of("ensembles", tiny_models("sentence"), tmp_path, ["demo"], seeds=2), tmp_path)
    found = ensembles.conduct(study)
    runs = study.grid()
    parts = [
        [json.loads(text) for text in (made.path / "predictions" / "winner.jsonl").read_text().splitlines()]
        for made in runs.values()
    ]
    right = 0
    for lines in zip(*parts, strict=True):
        mean = sum(torch.softmax(torch.tensor(each["scores"]), 0) for each in lines) / len(parts)
        right += int(int(torch.as_tensor(mean).argmax()) == lines[0]["gold"])
    scores = column(found, "scores", "demo")
    assert value(scores["tickets together"]) == pytest.approx(right / len(parts[0]))
    mean = sum(made.value("winner") for made in runs.values()) / 2
    assert value(scores[ensembles.TICKETS]) == pytest.approx(mean)
    gains = column(found, "differences", "demo")
    gain = value(gains[f"tickets together - {ensembles.TICKETS}"])
    assert gain == pytest.approx(right / len(parts[0]) - mean)
    ratios = [each for name, each in column(found, "cost", "demo").items() if "one after" in name]
    assert len(ratios) == 2
    assert all(value(each) > 0 for each in ratios)
    with pytest.raises(SoftpruneError, match="at least two seeds"):
        ensembles.conduct(replace(study, config=study.config.model_copy(update={"seeds": 1})))


def test_one_prompt_is_held_against_a_prompt_a_task(tiny_models: Models, tmp_path: Path, one_thread: None) -> None:
    tasks = ["demo", moods(tmp_path)[0]]
    study = bench_of(study_of("multitask", tiny_models("sentence"), tmp_path, tasks), tmp_path)
    found = multitask.conduct(study)
    (joined,) = study.make({"joined": multitask.union_spec(study, 0, {})}).values()
    assert joined.record.task.sizes is not None
    assert joined.record.task.sizes.report == 21, "12 of demo, and all 9 of the other"
    for task in tasks:
        (alone,) = study.make({task: study.spec(task, 0)}).values()
        lines = joined.answers("tuned", load_task(task).id)
        assert [each["id"] for each in lines] == [each["id"] for each in alone.answers("tuned")], "so that they pair"
        share = sum(each["gold"] == each["predicted"] for each in lines) / len(lines)
        scores = column(found, "scores", task)
        assert value(scores[f"{multitask.ONE}, tuned"]) == pytest.approx(share)
        assert value(scores[f"{multitask.EACH}, tuned"]) == pytest.approx(alone.value("tuned"))
        label = f"({multitask.ONE}, tuned) - ({multitask.EACH}, tuned)"
        assert value(column(found, "differences", task)[label]) == pytest.approx(share - alone.value("tuned"))
    stored = column(found, "sizes", "numbers in all")
    assert value(stored[multitask.LONG]) == value(stored[f"{multitask.EACH}, tuned or control"]) == 2 * 4 * 32
    assert value(stored[f"{multitask.ONE}, tuned or control"]) == 4 * 32
    with pytest.raises(SoftpruneError, match="at least two tasks"):
        multitask.conduct(replace(study, config=study.config.model_copy(update={"tasks": ("demo",)})))


def test_prompts_are_read_out_of_domain(tiny_models: Models, tmp_path: Path, one_thread: None) -> None:
    tasks = moods(tmp_path)
    study = bench_of(study_of("out-of-domain", tiny_models("sentence"), tmp_path, tasks), tmp_path)
    found = out_of_domain.conduct(study)
    runs = study.grid()
    rows = {out_of_domain.TUNED: "tuned", out_of_domain.CONTROL: "control", out_of_domain.WINNER: "winner"}
    for task in tasks:
        inside = column(found, "scores", f"{task}, in domain")
        for label, name in rows.items():
            mean = runs[task, 0].value(name)
            assert value(inside[label]) == pytest.approx(mean), "read again as the run itself read it"
    first, second = tasks
    out = column(found, "scores", f"{first} on {second}")
    assert set(out) == {*out_of_domain.PROMPTS, out_of_domain.NOTHING}
    assert value(out[out_of_domain.NOTHING]) == pytest.approx(runs[second, 0].value("zero_shot"))
    work = json.loads(
        next(
            (tmp_path / "studies" / "work").glob(f"{runs[first, 0].path.name}-on-{runs[second, 0].path.name}*")
        ).read_text()
    )
    assert len(work["found"]["ids"]) == 6
    label = f"{out_of_domain.WINNER} - {out_of_domain.CONTROL}"
    home = column(found, "differences", f"{first}, in domain")[label]
    away = column(found, "differences", f"{first} on {second}")[label]
    assert column(found, "carried", f"{first} on {second}")[label] == out_of_domain.apart(away, home)


def test_what_carries_over_has_the_interval_of_both() -> None:
    out = Cell(0.02, -0.01, 0.06, unit="points")
    home = Cell(-0.03, -0.07, 0.01, unit="points", chance=True)
    found = out_of_domain.apart(out, home)
    assert found.value == pytest.approx(0.05)
    assert found.low == pytest.approx(0.05 - sqrt(0.03**2 + 0.04**2))  # 0.05 - 0.05
    assert found.high == pytest.approx(0.05 + sqrt(0.04**2 + 0.04**2))
    assert found.chance
    assert format_entry(out_of_domain.apart(out, Cell(None))) == "not measured"
    assert out_of_domain.apart(out, Cell(0.01)).low is None


def test_what_carries_over_is_tested_with_the_fewer_seeds() -> None:
    """Half the interval is 0.05 on either side: z = 0.04 / (0.05 / 1.96) = 1.568, p = 0.117."""
    out, home = Cell(0.02, -0.01, 0.05, unit="points", seeds=3), Cell(-0.02, -0.06, 0.02, unit="points", seeds=5)
    found = out_of_domain.apart(out, home)
    assert found.seeds == 3
    assert found.p == pytest.approx(0.117, abs=1e-3)
    assert verdict(found) == NEITHER
    assert verdict(out_of_domain.apart(replace(out, seeds=2), home)) == "no verdict (2 seeds)"


def test_tasks_of_other_answers_are_refused() -> None:
    for tasks in (("trec", "ag_news"), ("copa", "copa"), ("imdb",)):
        with pytest.raises(SoftpruneError, match="same answers"):
            out_of_domain.check_answers(tasks)
    out_of_domain.check_answers(("imdb", "sentence_polarity"))


def test_missing_predictions_are_told(tmp_path: Path) -> None:
    with pytest.raises(SoftpruneError, match="what winner answered"):
        FinishedRun(tmp_path, "demo", 0).answers("winner")


@pytest.mark.parametrize("scale", ["smoke", "full"])
def test_shipped_tasks_go_together(scale: str, tmp_path: Path) -> None:
    study = bench_of(load_study("multitask", [f"scale={scale}"]), tmp_path)
    load_task("+".join(study.tasks))
    union = multitask.union_spec(study, 0, {"prompt.tokens": 7}).recipe
    shots = study.spec(study.tasks[0], 0).recipe.task.shots
    assert union.task.shots == (None if shots is None else len(study.tasks) * shots)
    assert union.prompt.tokens == 7
    out_of_domain.check_answers(bench_of(load_study("out-of-domain", [f"scale={scale}"]), tmp_path).tasks)
