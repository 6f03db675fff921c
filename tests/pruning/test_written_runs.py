"""Whole runs that write: what they leave, that choices go by the loss, and the tickets that answer new rows."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from whole_runs import Models, Run, execute_one, recipe_of

from softprune.config import resolve
from softprune.data import load_task, metric_named
from softprune.data.rouge import load_scorer, rouge
from softprune.errors import ManyErrors, SoftpruneError
from softprune.evaluation.conclusions import Reported, conclude
from softprune.evaluation.predict import predict
from softprune.models import load_backbone
from softprune.models.causal import CausalBackbone
from softprune.pipelines.plan import plan
from softprune.prompts.soft_prompts import read_one
from softprune.prompts.ticket import Ticket
from softprune.report import comparison_table
from softprune.report.page import write as write_page
from softprune.runs.record_parts import ResultRow
from softprune.training.scoring import ScoredSet, Scoring, score_prompts
from softprune.types import Scores

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
TASK = """
title: Short films
instruction: Say it in short.
fields: [article]
template: "{article} TL;DR: {mask}"
target: summary
sources:
  file:
    files: {train: train.jsonl, validation: validation.jsonl}
"""
OPINIONS = ("a slow and quiet joy", "a dull plot that never wakes up", "a red box")
THINGS = ("the film", "the meal", "the river", "the room", "the cold wind", "a heavy box")
SHORT = ("task.max_answer_length=8", "selection.seeds=1")


@pytest.fixture(scope="module")
def task_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    rows = [
        {"article": f"{thing} was {text} . she said that it was great .", "summary": f"{thing} : {text}"}
        for thing in THINGS
        for text in OPINIONS
    ]
    for name, held in (("train", rows[:12]), ("validation", rows[12:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held))
    (folder / "films.yaml").write_text(TASK)
    return folder / "films.yaml"


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory, tiny_models: Models, task_file: Path) -> Callable[..., Run]:
    runs: dict[tuple[str, str], Run] = {}

    def run(model: str, kind: str) -> Run:
        if (model, kind) not in runs:
            out = tmp_path_factory.mktemp("runs") / "run"
            changes = (*SHORT, f"kind={kind}", "search.strategy=grid")
            runs[model, kind] = execute_one(tiny_models(model), task_file, out, *changes)
        return runs[model, kind]

    return run


@pytest.mark.parametrize("model", ["t5", "bart", "gpt2", "llama"])
def test_tuning_leaves_texts_rouge_and_three_losses(model: str, run_of: Callable[..., Run]) -> None:
    run = run_of(model, "tune")
    info, lines = run.info, run.lines("predictions/tuned.jsonl")
    tuned = info["results"]["tuned"]
    assert info["task"]["targets"] == "text"
    assert info["task"]["answers"] is None
    assert set(info["task"]["truncated"]) == {"examples", "tokens", "targets", "target_tokens"}
    assert info["settings"]["max_answer_length"] == 8
    values = [rouge(line["written"], line["reference"]) for line in lines]
    assert len(lines) == 6
    for at, kind in enumerate(("rouge1", "rouge2", "rougeL")):
        assert tuned[kind] == pytest.approx(sum(value[at] for value in values) / 6, abs=1e-12)
    assert tuned["value"] == tuned["rougeL"]
    assert tuned["interval"][0] <= tuned["value"] <= tuned["interval"][1]
    assert tuned["loss"] == pytest.approx(sum(line["loss"] for line in lines) / 6)
    assert set(tuned["losses"]) == {"train", "select", "report"}
    assert tuned["losses"]["report"] == tuned["loss"]
    best = max(point["select"] for point in run.lines("metrics.jsonl"))
    assert tuned["losses"]["select"] == pytest.approx(-best, rel=1e-5)
    assert info["results"]["constant"]["answer"] == "first 3 sentences"
    assert info["results"]["constant"]["loss"] is None
    assert info["results"]["constant"]["value"] > 0


def test_where_positions_are_full_the_instruction_in_words_has_no_row(
    tmp_path: Path, tiny_models: Models, task_file: Path
) -> None:
    """The instruction takes more positions than the prompt does, and the text must fit behind both."""
    folder = Path(shutil.copytree(task_file.parent, tmp_path / "long"))
    for name in ("train", "validation"):
        rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        long = [row | {"article": row["article"] * 12} for row in rows]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in long))
    run = execute_one(tiny_models("gpt2"), folder / "films.yaml", tmp_path / "run", *SHORT, "kind=tune")
    assert "instruction" not in run.info["results"] or run.info["results"]["instruction"] is None
    assert run.info["task"]["truncated"]["examples"] == 18
    assert any("inputs are cut at 116 tokens" in note for note in run.info["notes"])  # 128 - 4 - 8


def test_choices_are_made_without_generating(
    tmp_path: Path, tiny_models: Models, task_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from softprune.models.seq2seq import Seq2SeqBackbone

    phases: list[str] = []
    generate = Seq2SeqBackbone.generate

    def noted(backbone: Any, *arguments: Any) -> list[str]:
        phases.append(json.loads((tmp_path / "run" / "run.json").read_text())["phase"])
        return generate(backbone, *arguments)

    monkeypatch.setattr(Seq2SeqBackbone, "generate", noted)
    execute_one(tiny_models("t5"), task_file, tmp_path / "run", *SHORT, "kind=tune")
    assert set(phases) == {"report"}


def test_pruning_goes_by_the_loss(run_of: Callable[..., Run]) -> None:
    run = run_of("t5", "xprompt")
    candidates = run.lines("candidates.jsonl")
    assert all(c["select"] == pytest.approx(-c["select_loss"]) for c in candidates)
    best = max(candidates, key=lambda c: c["select"])
    (winner,) = (c for c in candidates if c["status"] == "winner")
    errors = run.info["selection"]["standard_errors"]
    least = 1 / len(run.info["task"]["indices"]["select"])
    assert all(0 <= error < least for error in errors.values()), "of losses, not of right and wrong answers"
    assert max(errors.values()) > 0 == errors[best["id"]]
    within = [c for c in candidates if c["select"] >= best["select"] - errors[c["id"]] - 1e-12]
    assert winner["parameters"] == min(c["parameters"] for c in within)
    assert winner["parameters"] < 4 * 32
    info = run.info
    assert info["headline"]["mcnemar"] is None
    assert info["headline"]["above_zero_shot"]["value"] == pytest.approx(
        info["results"]["tuned"]["value"] - info["results"]["zero_shot"]["value"]
    )
    assert len(info["results"]["winner"]["seeds"]) == 1
    for name in ("tuned", "control", "random", "winner"):
        assert set(info["results"][name]["losses"]) == {"train", "select", "report"}
    front = [c for c in candidates if c["pareto"]]
    assert all(c["report"] is not None for c in front)


def test_a_plan_counts_the_writing(tiny_models: Models, task_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text takes far longer to write than to score here, and the plan must have seen that."""
    from softprune.models.seq2seq import Seq2SeqBackbone

    generate = Seq2SeqBackbone.generate

    def slow(backbone: Any, *arguments: Any) -> list[str]:
        texts = generate(backbone, *arguments)
        time.sleep(0.4 * len(texts))
        return texts

    monkeypatch.setattr(Seq2SeqBackbone, "generate", slow)
    found = plan(recipe_of(tiny_models("t5"), task_file, *SHORT, "kind=tune"))
    written = found.pace.reported - found.pace.scored
    assert found.pace.scored > 0
    assert written > 0.2
    unwritten = replace(found, pace=replace(found.pace, reported=found.pace.scored))
    texts = found.counts.reported * found.sizes()["report"]
    more = {name: seconds - unwritten.seconds()[name] for name, seconds in found.seconds().items()}
    assert more.pop("report") == pytest.approx(texts * written)
    assert set(more.values()) == {0.0}, "choices are made without writing"


def test_gates_learn_from_the_loss_of_texts(tmp_path: Path, tiny_models: Models, task_file: Path) -> None:
    gates = ("search.strategy=learned", "search.prices=0.01,1e6", "search.gate_lr=0.5", "search.gate_epochs=3")
    run = execute_one(tiny_models("gpt2"), task_file, tmp_path / "run", *SHORT, *gates)
    sizes = sorted(c["parameters"] for c in run.lines("candidates.jsonl"))
    assert sizes[0] < sizes[-1] <= 4 * 32
    assert run.info["results"]["winner"]["loss"] > 0


def test_without_the_library_nothing_is_begun(
    tmp_path: Path, tiny_models: Models, task_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_scorer.cache_clear()
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(SoftpruneError, match="to score written texts"):
        execute_one(tiny_models("t5"), task_file, tmp_path / "run", *SHORT, "kind=tune")
    assert not (tmp_path / "run").exists()


def scored(texts: dict[str, tuple[str, ...]], references: tuple[str, ...]) -> dict[str, Scores]:
    return {name: Scores(texts=found, references=references) for name, found in texts.items()}


def test_interpretable_where_the_prompt_does_something() -> None:
    references = tuple(f"a red box number {i}" for i in range(12))
    good, bad = references, tuple("nothing" for _ in references)
    recipe = resolve(["selection.seeds=0", "selection.resamples=200"])
    metric = metric_named("rougeL")
    for tuned, expected in ((good, True), (bad, False)):
        texts = {"tuned": tuned, "zero_shot": bad, "winner": good, "control": tuned, "random": bad}
        rows = {
            name: ResultRow(metric="rougeL", value=metric.value(each), n=12, parameters=4, interval=(0.0, 1.0))
            for name, each in scored(texts, references).items()
        }
        # The first sentences score more than the tuned prompt: no bar to interpretation.
        rows["constant"] = ResultRow(metric="rougeL", value=1.0)
        _, found = conclude(recipe, Reported(metric, None, scored(texts, references), rows, 3))
        assert found.interpretable is expected
        assert ("isn't shown to write better than the model without one" in found.sentence) is not expected


def test_right_and_wrong_texts_have_mcnemars_test() -> None:
    """Of 12 texts the winner has 9 right and the control 3: six differ one way, and p is 2 * 2**-6."""
    references = tuple(f"#### {i}" for i in range(12))
    texts = {"winner": (*references[:9], "", "", ""), "control": (*references[:3], *["#### x"] * 9)}
    texts |= {"tuned": references, "zero_shot": ("",) * 12, "random": ("",) * 12}
    recipe = resolve(["selection.seeds=0", "selection.resamples=200"])
    metric = metric_named("exact_match", extract=r"#### (\S+)")
    rows = {
        name: ResultRow(metric="exact_match", value=metric.value(each), n=12, parameters=4, interval=(0.0, 1.0))
        for name, each in scored(texts, references).items()
    }
    rows["constant"] = ResultRow(metric="exact_match", value=1 / 12)
    _, found = conclude(recipe, Reported(metric, None, scored(texts, references), rows, 3))
    assert found.mcnemar is not None
    assert (found.mcnemar.only_winner, found.mcnemar.only_control) == (6, 0)
    assert found.mcnemar.p == pytest.approx(2 / 2**6)
    assert found.value == pytest.approx(0.5)
    _, grouped = conclude(recipe, Reported(metric, ["a", "b"] * 6, scored(texts, references), rows, 3))
    assert grouped.mcnemar is None


def test_a_ticket_writes_to_new_rows(run_of: Callable[..., Run], task_file: Path) -> None:
    run = run_of("gpt2", "tune")
    ticket = Ticket.load(run.out)
    assert (ticket.info.match, ticket.info.max_answer_length) == ("generate", 8)
    lines = run.lines("predictions/tuned.jsonl")
    rows = [json.loads(line) for line in (task_file.parent / "validation.jsonl").read_text().splitlines()]
    # In the run's own dtype: in bfloat16 a random model's ties fall as the batches are cut.
    backbone = load_backbone(str(run.recipe.backbone.name), dtype=run.recipe.backbone.dtype, device="cpu")
    told = list(predict(ticket, rows, backbone=backbone))
    assert [found.answer for found in told] == [line["written"] for line in lines]
    assert [found.gold for found in told] == [line["reference"] for line in lines]
    assert {found.answers for found in told} == {()}
    untold = list(predict(ticket, [{"article": row["article"]} for row in rows], backbone=backbone))
    assert [found.answer for found in untold] == [found.answer for found in told]
    assert {found.gold for found in untold} == {None}


@pytest.mark.parametrize(("written", "row"), [(".", {}), ("A Box.", {"summary": "a box"})])
def test_a_text_stays_as_it_was_written(
    run_of: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, written: str, row: dict[str, str]
) -> None:
    """Answers to choose from are told apart from case and full stops; a text isn't made its reference's likeness."""
    ticket = Ticket.load(run_of("gpt2", "tune").out)
    monkeypatch.setattr(CausalBackbone, "generate", lambda *given: [written])
    (found,) = predict(ticket, [{"article": "a box", **row}])
    assert found.answer == written


def test_a_batch_scores_as_each_example_does(run_of: Callable[..., Run], task_file: Path, tiny_models: Models) -> None:
    backbone = load_backbone(str(tiny_models("t5")), dtype="float32", device="cpu")
    ticket = Ticket.load(run_of("t5", "tune").out)
    prompt = read_one(ticket.state, "drop")[None]
    examples = load_task(task_file).load().validation
    assert examples is not None
    data = ScoredSet(examples, backbone.encode(examples, 64, 8))
    scoring = Scoring("likelihood", "mean", match="generate", max_answer_length=8)
    (together,) = score_prompts(backbone, prompt, data, scoring)
    (alone,) = score_prompts(backbone, prompt, data, replace(scoring, rows=1))
    (other,) = score_prompts(backbone, -prompt, data, scoring)
    assert together.texts == alone.texts
    assert together.references == tuple(example.answers[0] for example in examples)
    a, b, c = (torch.tensor(found.losses, dtype=torch.float64) for found in (together, alone, other))
    assert float((a - b).abs().max()) <= 1e-5 * float(b.abs().max())
    assert float((a - c).abs().max()) > 1e-3 * float(c.abs().max())


def test_the_page_and_the_table_read_as_texts(run_of: Callable[..., Run]) -> None:
    run = run_of("t5", "xprompt")
    page = write_page(run.out).read_text()
    for part in ("ROUGE-L (%)", "ROUGE-1 (%)", "first 3 sentences", "loss on select", "loss on", "words"):
        assert part in page
    for part in ("best constant answer", "answers given", "McNemar", "select (%)", "right only with"):
        assert part not in page
    table = comparison_table(run.out)
    headings = [str(column.header).replace("\n", " ") for column in table.columns]
    assert "ROUGE-L (%)" in headings
    assert "what was written" in str(table.caption)


@pytest.mark.parametrize(
    ("model", "changes", "told"),
    [
        ("bert", (), "a backbone that writes text (seq2seq or causal)"),
        ("sentence", (), "which doesn't generate"),
        ("t5", ("tuning.loss=rank",), "no rivals to rank"),
        ("t5", ("prompt.init=labels",), "a task with answers to choose from"),
        ("gpt2", ("task.max_answer_length=120",), "set task.max_answer_length to 108 at most"),
        ("bart", ("task.max_answer_length=300",), "set task.max_answer_length to 126 at most"),
    ],
)
def test_what_can_not_write_is_told_before_anything_loads(
    model: str, changes: tuple[str, ...], told: str, tmp_path: Path, tiny_models: Models, task_file: Path
) -> None:
    with pytest.raises((SoftpruneError, ManyErrors)) as caught:
        execute_one(tiny_models(model), task_file, tmp_path / "run", *changes)
    assert told in str(caught.value)
    assert not (tmp_path / "run").exists()
