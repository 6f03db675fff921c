"""Every released architecture, random and tiny, goes through the whole job: tune, prune, save, load, score."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from softprune.config import resolve
from softprune.data import load_task
from softprune.models import load_backbone
from softprune.pipelines.xprompt import execute
from softprune.prompts.ticket import Ticket
from softprune.training.scoring import ScoredSet, Scoring, score_prompts

pytestmark = pytest.mark.slow

ARCHITECTURES = ("t5_v1_1", "mt5", "bart", "gpt2", "bloom", "llama", "bert", "roberta", "sentence")

# A task of one's own: two files and their YAML, as a user writes them.
TASK = """\
id: mood
version: 1
title: Mood of a sentence
instruction: Is the sentence cheerful or gloomy?
fields:
  text: {shortenable: true}
template: "sentence : {text} it was {mask}"
answers: [great, terrible]
gold: label
metric: accuracy
sources:
  file:
    format: jsonl
    files: {train: train.jsonl, validation: validation.jsonl}
    labels: {good: great, bad: terrible}
"""
SENTENCES = (
    ("the film was a slow and quiet joy", "good"),
    ("a dull plot that never wakes up", "bad"),
    ("a very very good meal with bread and cheese", "good"),
    ("the children were hungry and tired", "bad"),
    ("absolutely wonderful from its first scene to the last", "good"),
    ("rather disappointing and partly wrong", "bad"),
)


@pytest.fixture
def own_task(tmp_path: Path) -> Path:
    rows = [json.dumps({"text": text, "label": label}) for text, label in SENTENCES]
    (tmp_path / "train.jsonl").write_text("\n".join(rows * 3) + "\n")
    (tmp_path / "validation.jsonl").write_text("\n".join(rows) + "\n")
    (tmp_path / "mood.yaml").write_text(TASK)
    return tmp_path / "mood.yaml"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_tunes_prunes_saves_loads_and_scores(
    name: str, tiny_models: Callable[[str], Path], own_task: Path, tmp_path: Path
) -> None:
    model = str(tiny_models(name))
    recipe = resolve(
        [
            f"backbone.name={model}",
            f"task.id={own_task}",
            "prompt.tokens=4",
            "prompt.pieces=4",
            "tuning.epochs=2",
            "search.strategy=grid",
            "search.token_ratios=0.5",
            "search.piece_ratios=0.5",
            "selection.seeds=0",
            "selection.resamples=100",
        ]
    )
    out = tmp_path / "run"
    execute(recipe, out, "test", recipe.dump())

    initial, tuned = (torch_file(out / "prompts" / f"{which}.safetensors") for which in ("initial", "tuned"))
    assert (initial - tuned).abs().max() > 1e-4
    ticket = Ticket.load(out)
    assert ticket.info.tokens == 2
    assert (ticket.state.vectors_PH[~ticket.state.mask.elements_PH(ticket.info.hidden)] == 0).all()

    backbone = load_backbone(model)
    assert backbone.info.fingerprint == ticket.info.fingerprint
    examples = load_task(own_task).load(None).validation
    assert examples is not None
    settings = json.loads((out / "run.json").read_text())["settings"]
    scoring = Scoring(loss=settings["loss"], score=settings["score"])
    data = ScoredSet(examples, backbone.encode(examples, 64, 8))
    (again,) = score_prompts(backbone, ticket.prompt()[None], data, scoring)
    lines = (out / "predictions" / "winner.jsonl").read_text().splitlines()
    written = [json.loads(line)["scores"] for line in lines]
    assert_close(again.answer_scores, written)
    # Negative control: a ticket whose first token is zeroed scores otherwise.
    broken = ticket.prompt().clone()
    broken[0] = 0
    (other,) = score_prompts(backbone, broken[None], data, scoring)
    with pytest.raises(AssertionError):
        assert_close(other.answer_scores, written)


def torch_file(path: Path) -> torch.Tensor:
    from safetensors.torch import load_file

    return load_file(path)["vectors_PH"]


def assert_close(found: object, expected: object, tolerance: float = 1e-5) -> None:
    a, b = torch.tensor(found, dtype=torch.float64), torch.tensor(expected, dtype=torch.float64)
    assert (a - b).abs().max() <= tolerance * b.abs().max()
