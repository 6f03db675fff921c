"""Prompts scored outside a run: the run's own figures, to the bit, whatever else is asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from mood import write_mood
from softprune.config import Recipe, resolve
from softprune.data import load_task
from softprune.errors import SoftpruneError
from softprune.studies.prompt_scoring import OpenSet, open_set
from softprune.training.input_checks import read_data
from softprune.training.scoring import ScoredSet, Scoring, score_prompts

if TYPE_CHECKING:
    from collections.abc import Callable

    from softprune.types import Scores

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def recipe_of(tiny_models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Recipe]:
    task = write_mood(tmp_path_factory.mktemp("mood"), ("cast", "scene", "window", "children", "cheese"))

    def recipe(model: str, *changes: str) -> Recipe:
        names = (f"backbone.name={tiny_models(model)}", "backbone.dtype=float32", "backbone.device=cpu")
        return resolve([*names, f"task.id={task}", "prompt.tokens=4", "prompt.pieces=4", *changes])

    return recipe


@pytest.fixture(scope="module", params=["t5", "sentence"])
def opened(request: pytest.FixtureRequest, recipe_of: Callable[..., Recipe]) -> OpenSet:
    return open_set(recipe_of(request.param))


@pytest.fixture
def prompts(opened: OpenSet) -> list[torch.Tensor]:
    found = [opened.backbone.embed_ids(range(at, at + 4)) for at in (5, 20, 30)]
    return [*found, found[0][:2]]


def bits(scores: Scores) -> tuple[object, ...]:
    return scores.answer_scores, scores.losses, scores.predicted


def ids_of(opened: OpenSet) -> list[str]:
    return [example.id for example in opened.data.examples]


def test_bits_hang_on_the_prompt_alone(opened: OpenSet, prompts: list[torch.Tensor]) -> None:
    together = opened.scores(prompts)
    backwards = opened.scores(prompts[::-1])[::-1]
    alone = [opened.scores([prompt])[0] for prompt in prompts]
    for a, b, c in zip(together, backwards, alone, strict=True):
        assert bits(a) == bits(b) == bits(c)
    assert len({bits(scores) for scores in together}) == len(prompts)


def test_a_zeroed_token_changes_what_is_scored(opened: OpenSet, prompts: list[torch.Tensor]) -> None:
    cut = prompts[0].clone()
    cut[2] = 0
    whole, masked = opened.scores([prompts[0], cut])
    pairs = list(zip(whole.losses, masked.losses, strict=True))
    assert all(a != pytest.approx(b, rel=1e-6) for a, b in pairs)


def test_no_prompt_and_the_instruction_are_prompts_too(opened: OpenSet, prompts: list[torch.Tensor]) -> None:
    (nothing,) = opened.scores([opened.no_prompt()])
    assert opened.no_prompt().shape == (0, opened.backbone.info.hidden)
    assert bits(nothing) != bits(opened.scores(prompts)[0])
    words = opened.instruction()
    assert (words is None) == (not opened.task.definition.instruction)


def test_scores_are_those_of_the_model(opened: OpenSet, prompts: list[torch.Tensor]) -> None:
    """One example a call, by the backbone itself."""
    found = opened.scores(prompts[:1])[0]
    for at in (0, len(opened.data) - 1):
        batch = opened.data.batch(opened.backbone, [at])
        losses = opened.backbone.losses(prompts[0][None], batch, opened.scoring.loss, opened.scoring.score)
        assert found.losses[at] == pytest.approx(float(losses), rel=1e-4)
    other = opened.backbone.losses(prompts[1][None], batch, opened.scoring.loss, opened.scoring.score)
    assert found.losses[-1] != pytest.approx(float(other), rel=1e-4)
    right = [p == g for p, g in zip(found.predicted, found.gold, strict=True)]
    assert opened.value(found) == pytest.approx(sum(right) / len(right))


def test_sets_are_those_of_a_run(recipe_of: Callable[..., Recipe]) -> None:
    recipe = recipe_of("sentence")
    _, sets = read_data(recipe, load_task(recipe.task.id))
    for which in ("train", "select", "report"):
        found = open_set(recipe, which)
        assert ids_of(found) == [example.id for example in getattr(sets, which)]
        assert {example.group for example in found.data.examples} == {None}
        assert isinstance(found.data, ScoredSet)
    assert len({tuple(ids_of(open_set(recipe, which))) for which in ("train", "select", "report")}) == 3


def test_a_backbone_is_loaded_once(recipe_of: Callable[..., Recipe]) -> None:
    first = open_set(recipe_of("sentence"))
    assert open_set(recipe_of("sentence", "seed=3"), "train").backbone is first.backbone
    assert open_set(recipe_of("sentence", "backbone.dtype=float64")).backbone is not first.backbone


def test_side_by_side_they_agree_up_to_rounding(opened: OpenSet, prompts: list[torch.Tensor]) -> None:
    scoring = Scoring(opened.scoring.loss, opened.scoring.score)
    together = score_prompts(opened.backbone, torch.stack(prompts[:3]), opened.data, scoring)
    nothing = opened.scores([opened.no_prompt()])[0].losses
    for a, b in zip(together, opened.scores(prompts[:3]), strict=True):
        assert a.losses == pytest.approx(b.losses, rel=1e-3, abs=1e-4)
        assert a.losses != pytest.approx(nothing, rel=1e-3, abs=1e-4)


def test_mistakes_are_told(recipe_of: Callable[..., Recipe]) -> None:
    found = open_set(recipe_of("bert"))
    hidden = found.backbone.info.hidden
    with pytest.raises(SoftpruneError, match=f"prompts \\[Q, {hidden}\\]"):
        found.scores([torch.zeros(2, hidden + 1)])
    with pytest.raises(SoftpruneError, match="NaN or infinity"):
        found.scores([torch.full((2, hidden), float("nan"))])
    with pytest.raises(SoftpruneError, match="leaves room in the 128 positions"):
        found.scores([torch.zeros(125, hidden)])
    with pytest.raises(SoftpruneError, match="prompt that leaves room"):
        open_set(recipe_of("bert", "prompt.tokens=127"))
