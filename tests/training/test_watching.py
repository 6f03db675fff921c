"""Who watches training, and how generated answers count."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from rich.console import Console
from toys import drawn, scoring_of, task_of

from softprune.models.base import Backbone
from softprune.training.loop import Point
from softprune.training.progress import Display
from softprune.training.scoring import score_prompts

POINTS = (Point("a", 2, 6, 0.5, 0.4, 0.75, 3.0), Point("b", 2, 6, 0.7, 0.6, 0.5, 3.0))


def show(console: Console) -> None:
    watch = Display(console)
    watch.begin("prompt tuning", 12, 3)
    watch.step(4, 0.6, 32)
    watch.evaluated(POINTS)
    watch.end()
    watch.end()


def test_without_a_terminal_an_evaluation_is_one_line() -> None:
    out = io.StringIO()
    show(Console(file=out, width=100))
    assert out.getvalue().strip() == "prompt tuning: epoch 2  loss 0.600  select 0.750  3 s"


def test_on_a_terminal_the_line_is_live() -> None:
    out = io.StringIO()
    show(Console(file=out, width=120, force_terminal=True))
    assert "prompt tuning" in out.getvalue()
    assert "epoch" not in out.getvalue()


def test_a_step_before_the_beginning_is_nothing() -> None:
    Display(Console(file=io.StringIO())).step(1, 0.5, 4)


def test_generated_texts_count_by_the_answer_that_they_equal(
    backbone_of: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = backbone_of("t5")
    data = task_of(backbone, 5)
    said = iter(["negative", " Negative. ", "something else", "POSITIVE", "not at  all"])
    order: list[int] = []

    def generate(prompt: torch.Tensor, batch: Any, limit: int) -> list[str]:
        assert limit == 7
        order.append(int(batch.input_mask.sum()))
        return [next(said)]

    monkeypatch.setattr(backbone, "generate", generate)
    scoring = replace(scoring_of(backbone, rows=1), match="generate", max_answer_length=7)
    (found,) = score_prompts(backbone, drawn(1, 2, 32), data, scoring)
    assert order == sorted(data.lengths)
    by_length = sorted(range(5), key=lambda i: (data.lengths[i], i))
    # The last text is an answer of the examples that have three answers only.
    third = 2 if len(data.examples[by_length[4]].answers) == 3 else -1
    assert [found.predicted[i] for i in by_length] == [1, 1, -1, 0, third]
