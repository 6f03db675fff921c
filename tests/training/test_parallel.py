"""Processes that share every batch train the prompt that one process trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from toys import ANSWERS, CurveKeeper, Drawn, distance, drawn, mask_of, scoring_of, task_of

from members import Unreduced, in_parallel
from softprune.config.schema import TuningConfig
from softprune.models.base import Backbone
from softprune.pruning.importance import measure
from softprune.runs.processes import ALONE, Processes
from softprune.training.loop import Evaluation, Schedule, Watch, train
from softprune.training.optimizers import prompt_optimiser
from softprune.training.scoring import score_prompts
from softprune.training.trainable import Feed, PromptTrainable
from softprune.types import Batch

pytestmark = pytest.mark.slow

Backbones = Callable[..., Backbone]
TOLERANCE = 1e-5
P, S = 4, 4


def trained(
    backbone: Backbone,
    processes: Processes,
    optimiser: str = "adafactor",
    accumulate: int = 1,
    seeds: Sequence[int] | None = None,
) -> Drawn:
    """Two masked prompts, 8 steps; ten examples in batches of three: the last batch has one, so some have none."""
    data, scoring = task_of(backbone), replace(scoring_of(backbone), processes=processes)
    trainable = PromptTrainable(
        backbone,
        drawn(2, P, backbone.info.hidden, seed=3),
        [mask_of("1101", S), mask_of("1111", S, seed=1)],
        removal="zero",
        loss=scoring.loss,
        score=scoring.score,
    )

    def evaluate() -> list[Evaluation]:
        found = score_prompts(backbone, trainable.prompts().detach(), data, scoring)
        return [Evaluation(-scores.loss, scores.loss) for scores in found]

    done = train(
        trainable,
        prompt_optimiser(
            TuningConfig(optimiser=optimiser, weight_decay=0.01),
            trainable.vectors_KPH,
            trainable.reading.elements_KPH,
            lr=0.05,
        ),
        Feed(data.lengths, lambda indices: data.batch(backbone, indices)),
        evaluate,
        Schedule(epochs=2, batch_size=3, evaluate_every=3, accumulate=accumulate, best_by="last"),
        names=["a", "b"],
        title="training",
        keeper=CurveKeeper(),
        watch=Watch(),
        processes=processes,
        seeds=seeds,
    )
    assert isinstance(done, Drawn)
    return done


def prompts(found: Drawn) -> torch.Tensor:
    """The last prompts."""
    return found.tensors["vectors_KPH"]


@pytest.mark.parametrize(
    ("model", "size", "optimiser", "accumulate", "seeds"),
    [
        ("t5", 2, "adafactor", 1, None),
        ("gpt2", 3, "adafactor", 2, None),
        ("bert", 2, "adamw", 1, (0, 3)),
        ("sentence", 2, "adafactor", 1, None),
        ("sentence", 3, "adafactor", 2, (0, 3)),
    ],
)
def test_they_end_with_the_prompt_of_one_process(
    model: str, size: int, optimiser: str, accumulate: int, seeds: Sequence[int] | None, backbone_of: Backbones
) -> None:
    # In float64, so that what differs is no rounding; tests/test_launched.py does it in float32.
    backbone = backbone_of(model, "float64")
    alone = trained(backbone, ALONE, optimiser, accumulate, seeds)
    assert alone.steps == 8
    together = in_parallel(lambda processes: trained(backbone, processes, optimiser, accumulate, seeds), size)
    for found in together:
        assert torch.equal(prompts(found), prompts(together[0]))
        assert distance(prompts(found), prompts(alone)) <= TOLERANCE
        assert found.best == together[0].best
        assert [p.step for p in found.curve] == [p.step for p in alone.curve]
        assert abs(found.curve[-1].train_loss - alone.curve[-1].train_loss) <= TOLERANCE * alone.curve[-1].train_loss
        assert (found.steps, found.examples) == (alone.steps, alone.examples)
    # The control: without the reduction each follows its own part of the batches.
    apart = in_parallel(lambda p: trained(backbone, p, optimiser, accumulate, seeds), size, Unreduced)
    assert distance(prompts(apart[0]), prompts(alone)) > 100 * TOLERANCE


@pytest.mark.parametrize("rows", [2, 64])
@pytest.mark.parametrize("model", ["t5", "sentence"])
def test_scores_are_those_of_one_process(model: str, rows: int, backbone_of: Backbones) -> None:
    backbone = backbone_of(model, "float64")
    data, read = task_of(backbone), drawn(2, P, backbone.info.hidden, seed=4, dtype=torch.float64)
    scoring = scoring_of(backbone, rows)
    wanted = score_prompts(backbone, read, data, scoring)
    for together in in_parallel(lambda p: score_prompts(backbone, read, data, replace(scoring, processes=p)), 3):
        for found, alone in zip(together, wanted, strict=True):
            assert (found.predicted, found.gold) == (alone.predicted, alone.gold)
            assert distance(torch.tensor(found.losses), torch.tensor(alone.losses)) <= 1e-12
        assert together[0].losses != wanted[1].losses


def test_generated_answers_are_those_of_one_process(backbone_of: Backbones, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = backbone_of("t5", "float64")
    data, read = task_of(backbone), drawn(1, P, backbone.info.hidden, seed=4, dtype=torch.float64)

    def generate(_: torch.Tensor, batch: Batch, __: int) -> list[str]:
        return [ANSWERS[total % 2] if total % 3 else "none of them" for total in batch.input_ids.sum(1).tolist()]

    monkeypatch.setattr(backbone, "generate", generate)
    scoring = replace(scoring_of(backbone), match="generate")
    (wanted,) = score_prompts(backbone, read, data, scoring)
    assert set(wanted.predicted) == {-1, 0, 1}
    for (found,) in in_parallel(lambda p: score_prompts(backbone, read, data, replace(scoring, processes=p)), 2):
        assert found.predicted == wanted.predicted


@pytest.mark.parametrize("method", ["paper", "gradient", "taylor", "fisher", "leave_one_out"])
def test_importance_is_that_of_one_process(method: str, backbone_of: Backbones) -> None:
    """Absolute values are an example's own: sums of them add up over processes, whoever had the example."""
    backbone = backbone_of("t5", "float64")
    data, read = task_of(backbone), drawn(P, backbone.info.hidden, seed=4, dtype=torch.float64)
    scoring = replace(scoring_of(backbone), gradient_rows=3)
    wanted = measure(backbone, read, data, scoring, S, method)

    def work(processes: Processes) -> Any:
        return measure(backbone, read, data, replace(scoring, processes=processes), S, method)

    for found in in_parallel(work, 2):
        assert distance(found.token_P, wanted.token_P) <= 1e-9
        assert distance(found.piece_PS, wanted.piece_PS) <= 1e-9
    if method != "leave_one_out":  # that one is made of scores, which are gathered
        (apart, _) = in_parallel(work, 2, Unreduced)
        assert distance(apart.token_P, wanted.token_P) > 1e-3
