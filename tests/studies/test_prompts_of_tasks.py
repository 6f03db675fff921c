"""The three studies of prompts that began as instructions, on the same small runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from softprune.errors import SoftpruneError
from softprune.interpret.displacement import persisting
from softprune.statistics.correlation import Correlation
from softprune.studies.experiments import neighbours, projections, transfer
from softprune.studies.experiments.transfer import BASELINES, NORMS, WORDS, prompts_to_ask
from softprune.studies.findings import Cell, Findings, Table
from softprune.studies.prompt_scoring import draw_random_prompt, open_set
from softprune.studies.score_rows import Runs
from softprune.studies.study_context import StudyContext
from studies import small_bench

pytestmark = pytest.mark.slow

KEYS = {"kind": "tune", "prompt.init": "text"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prompts")


@pytest.fixture(scope="module")
def study(root: Path, tiny_models: Callable[[str], Path]) -> StudyContext:
    return small_bench(root, tiny_models("sentence"), "transfer", KEYS, options={"k": 2, "words": ["film"], "draws": 2})


@pytest.fixture(scope="module")
def runs(study: StudyContext) -> Runs:
    return study.grid()


def list_cells(table: Table) -> dict[str, list[Cell]]:
    return {str(row[0]): [cell for cell in row[1:] if isinstance(cell, Cell)] for row in table.rows}


def build_tables(found: Findings) -> dict[str, Table]:
    return {table.name: table for table in found.tables}


# --- transfer ---


@pytest.fixture(scope="module")
def transferred(study: StudyContext, runs: Runs) -> Findings:
    return transfer.conduct(study)


def test_a_prompt_on_its_own_task_scores_as_its_run_did(study: StudyContext, runs: Runs, transferred: Findings) -> None:
    matrix = list_cells(build_tables(transferred)["matrix"])
    for place, task in enumerate(study.tasks):
        own = matrix[Path(task).stem][place].value
        assert own == pytest.approx(np.mean([runs[task, seed].value("tuned") for seed in study.seeds]))
        assert matrix["no prompt"][place].value == pytest.approx(runs[task, 0].value("zero_shot"))
        assert matrix["the instruction"][place].value == pytest.approx(runs[task, 0].value("instruction"))
    assert set(matrix) == {*BASELINES, "demo", "mood"}


def test_bits_hang_on_no_order_and_no_other_prompt(study: StudyContext, runs: Runs) -> None:
    target = open_set(study.spec("demo", 0).recipe, "report")
    asked = prompts_to_ask(target, runs)
    prompts = [prompt for task in study.tasks for prompt in asked[task]]
    forward, backward = target.scores(prompts), target.scores(prompts[::-1])[::-1]
    assert [each.answer_scores for each in forward] == [each.answer_scores for each in backward]
    alone = target.scores([prompts[1]])[0]
    assert alone.answer_scores == forward[1].answer_scores
    assert forward[0].answer_scores != forward[1].answer_scores  # else the equalities say nothing


def test_random_prompts_are_random_and_draw_random_prompt(study: StudyContext, runs: Runs) -> None:
    asked = prompts_to_ask(open_set(study.spec("demo", 0).recipe, "report"), runs)
    tuned = torch.stack([prompt for task in study.tasks for prompt in asked[task]])
    for prompt in asked[NORMS]:
        assert torch.allclose(prompt.norm(dim=-1), tuned.norm(dim=-1).mean(0), rtol=1e-5)
    assert not torch.equal(asked[NORMS][0], asked[NORMS][1])
    assert not torch.equal(asked[WORDS][0], runs["demo", 0].prompt("initial"))
    norms = tuned.norm(dim=-1).mean(0)
    assert torch.equal(draw_random_prompt(norms, 8, 3), draw_random_prompt(norms, 8, 3))


def test_gains_are_paired_differences_to_no_prompt(transferred: Findings) -> None:
    matrix, gains = (list_cells(build_tables(transferred)[name]) for name in ("matrix", "gains"))
    for who, cells in gains.items():
        for place, cell in enumerate(cells):
            expected = (matrix[who][place].value or 0) - (matrix["no prompt"][place].value or 0)
            assert cell.value == pytest.approx(expected)


def test_shares_count_pairs() -> None:
    cell = transfer.share([True, True, True, False])
    assert cell.value == 0.75
    assert cell.low is not None
    assert cell.high is not None
    assert cell.low < 0.75 < cell.high
    every = transfer.share([True] * 4)
    assert every.value == every.high == pytest.approx(1.0)
    assert every.low == pytest.approx(4 / (4 + 1.959963984540054**2))  # four of four are no proof of all


def test_a_relation_needs_its_permutation_test_too() -> None:
    sure = Correlation(0.9, 0.5, 1.0, 12, "spearman", tasks=4, p=0.04)
    assert "alike ones transfer better" in transfer._describe_tie(sure)
    assert "no relation shown" in transfer._describe_tie(replace(sure, p=0.08))


def test_two_tasks_have_no_correlation(transferred: Findings) -> None:
    assert all(cells[0].value is None for cells in list_cells(build_tables(transferred)["likeness"]).values())
    assert sum("not measured" in line for line in transferred.sentences) == 6


def test_alike_prompts_that_gain_more_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four made-up tasks on a line, where the gain falls with the distance; and its opposite."""

    four = SimpleNamespace(tasks=("a", "b", "c", "d"), config=SimpleNamespace(seed=0))
    monkeypatch.setattr(transfer, "PARTS", {"tuned": "tuned prompts"})
    monkeypatch.setattr(transfer, "mantel", partial(transfer.mantel, resamples=100))
    place = {"a": 0.0, "b": 1.0, "c": 3.0, "d": 7.0}
    far = np.array([[abs(place[x] - place[y]) for y in place] for x in place])
    alike = {part: dict.fromkeys(transfer.ALIKE, far) for part in transfer.PARTS}
    gains = {(x, y): Cell(-abs(place[x] - place[y]), unit="points") for x in place for y in place if x != y}
    ties = transfer.correlations(four, alike, gains)  # type: ignore[arg-type]
    near, cosine = ties["tuned", "frobenius"], ties["tuned", "cosine"]
    assert near is not None
    assert cosine is not None
    assert near.value == pytest.approx(1.0)
    assert cosine.value == pytest.approx(-1.0)
    assert near.n == 12
    assert near.p is not None
    assert near.p >= 1 / 24


def test_one_task_is_too_few(root: Path, study: StudyContext) -> None:
    alone = StudyContext(study.config.model_copy(update={"tasks": ("demo",)}), root, root / "alone")
    with pytest.raises(SoftpruneError, match="two tasks"):
        transfer.conduct(alone)


# --- maps ---


def test_unevenness() -> None:
    assert projections.unevenness([2.0, 2.0, 2.0]) == 0
    assert projections.unevenness([1.0, 3.0]) == pytest.approx(math.sqrt(2) / 2)
    assert projections.unevenness([1.0]) is None
    assert projections.unevenness([0.0, 0.0]) is None


def test_an_interval_over_runs_resamples_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each task's runs are copies: they must not make the interval narrower."""
    monkeypatch.setattr(projections, "RESAMPLES", 300)
    hard = {"a": [0.1], "b": [0.2], "c": [0.3], "d": [0.4], "e": [0.5]}
    went = {"a": [1.0], "b": [3.0], "c": [2.0], "d": [5.0], "e": [4.0]}
    copies = [{task: 6 * value for task, value in each.items()} for each in (went, hard)]
    one, many = projections.correlate_clusters(went, hard, 0), projections.correlate_clusters(*copies, 0)
    assert one.value == pytest.approx(0.8)
    assert many.value == pytest.approx(0.8)
    assert (many.low, many.high) == (pytest.approx(one.low), pytest.approx(one.high))
    assert one.low is not None
    assert one.low < 0.8
    assert projections.correlate_clusters(went, {task: [1.0] for task in hard}, 0).value is None


def test_maps_tell_distances_as_they_are(study: StudyContext, runs: Runs) -> None:
    found = projections.conduct(StudyContext(study.config, study.root, study.root / "maps"))
    tables = build_tables(found)
    rows = list_cells(tables["distances"])
    apart = float((runs["demo", 1].prompt("tuned") - runs["demo", 0].prompt("tuned")).norm())
    assert rows["tuned prompts"][0].value == pytest.approx(apart, rel=1e-5)
    assert (rows["tuned prompts, tokens aligned"][0].value or 0) <= apart * (1 + 1e-6)
    moved = []
    for seed in study.seeds:
        start, end = runs["demo", seed].prompt("initial"), runs["demo", seed].prompt("tuned")
        moved.append(float((end - start).norm() / start.norm()))
    assert min(moved) > 0
    assert list_cells(tables["divergence"])["demo"][0].value == pytest.approx(np.mean(moved), rel=1e-5)
    figures = {figure.name: figure for figure in found.figures}
    assert set(figures) == {"pca-prompts", "tsne-prompts", "pca-tokens", "tsne-tokens", "difficulty"}
    assert len(figures["tsne-tokens"].traces[0]["x"]) == 2 * 2 * 4  # start and end, seeds, tokens
    assert any("not measured" in line for line in found.sentences)  # two tasks have no correlation


# --- neighbours ---


def document(start: list[list[str]], end: list[list[str]]) -> dict[str, dict[str, list[list[str]]]]:
    return {"start": {"centred": start}, "end": {"centred": end}}


def test_what_stayed() -> None:
    each = document([["a", "b"], ["c", "d"], []], [["a", "x"], ["d", "c"], ["e", "f"]])
    assert neighbours.stayed(each, "centred") == [True, False, None]


def test_words_that_training_brought(study: StudyContext) -> None:
    near = {
        ("demo", 0): document([["name"], ["team"]], [["Accurate", "name"], ["team"]]),
        (study.tasks[1], 0): document([["name"], ["mood"]], [["accurate", "name"], ["mood"]]),
    }
    near |= {(task, 1): document([], []) for task in study.tasks}
    words = neighbours.words_near(study, near)
    assert list(persisting(words["new"][0], 2)) == ["accurate"]
    assert neighbours.mean_shared(words["end"], 2) == (2 + 0) / 2, "accurate and name with seed 0"
    assert neighbours.list_holders(near, "end")["accurate"] == list(near)[:2]
    assert "accurate" not in neighbours.list_holders(near, "start")


def test_neighbours_of_small_runs(study: StudyContext, runs: Runs) -> None:
    found = neighbours.conduct(StudyContext(study.config, study.root, study.root / "neighbours"))
    tables = build_tables(found)
    tokens = tables["tokens-demo"]
    assert len(tokens.rows) == 4
    words = runs["demo", 0].record.initial_words
    # A start is an embedding, so its nearest word is the one it was made of.
    assert [str(row[1]).lstrip("…") for row in tokens.rows] == [word.lstrip("#Ġ▁") for word in words]
    moved = list_cells(tables["moved"])
    assert all((cell.value or 0) > 0 for cell in moved["moved, in lengths of a typical embedding"])
    scores = list_cells(tables["scores"])
    assert scores[neighbours.TUNED][0].value == pytest.approx(np.mean([runs["demo", s].value("tuned") for s in (0, 1)]))
    assert any('"film"' in line for line in found.sentences)
