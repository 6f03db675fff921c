"""Fresh tiny backbones, batches of them, and runs of kind adapt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from killing import finish_in_tries
from softprune.adapters.adapter_io import SavedAdapter
from softprune.adapters.base import Adaptation
from softprune.config import Recipe, resolve
from softprune.evaluation.predict import predict
from softprune.models import load_backbone
from softprune.models.base import Backbone
from softprune.pipelines.adapt import execute
from softprune.types import Batch, Example, Segment

METHODS = ("full", "last-layer", "lora", "ia3", "p-tuning", "prefix", "p-tuning-v2", "dept", "smop")
VIRTUAL = ("p-tuning", "prefix", "p-tuning-v2", "dept", "smop")
FAMILIES_OF_MODELS = (("t5", "t5_v1_1", "bart"), ("gpt2", "llama", "bloom"), ("bert", "roberta"), ("sentence",))
ANSWERS = ("positive", "negative", "neutral")
TEXTS = (
    "the film was a slow and quiet joy",
    "a dull plot",
    "the meal was very very good with bread and cheese",
    "she opened the window",
)


def example(text: str, number: int, answers: tuple[str, ...] = ANSWERS) -> Example:
    segments = (Segment(text, shortenable=True, from_row=True), Segment(" . it was"), Segment("", answer_slot=True))
    return Example(str(number), number, segments, answers, number % len(answers))


def fresh(folder: Path, dtype: str = "float32") -> Backbone:
    """A backbone that a test may change."""
    return load_backbone(str(folder), dtype=dtype, device="cpu")


def batch_of(backbone: Backbone) -> Batch:
    return backbone.batch(backbone.encode([example(text, n) for n, text in enumerate(TEXTS)], 64))


def plain_scores(backbone: Backbone, batch: Batch) -> torch.Tensor:
    """Of the backbone without a prompt, `[B, A]`."""
    nothing = torch.zeros(1, 0, backbone.info.hidden, dtype=backbone.prompt_dtype)
    with torch.no_grad():
        return backbone.scores(nothing, batch, "sum")[0]


def adapted_scores(adaptation: Adaptation, batch: Batch) -> torch.Tensor:
    adaptation.train(False)
    with torch.no_grad():
        return adaptation.backbone.scores(adaptation.prompts(), batch, "sum")[0]


def steps(adaptation: Adaptation, batch: Batch, count: int = 3, lr: float = 0.05) -> None:
    """Large steps, so that everything that is trained moves."""
    optimiser = torch.optim.SGD(adaptation.named().values(), lr=lr)
    for _ in range(count):
        optimiser.zero_grad()
        adaptation.train(True)
        adaptation.backbone.losses(adaptation.prompts(), batch, "rank", "sum").mean().backward()
        optimiser.step()
    adaptation.train(False)


def shake(adaptation: Adaptation, width: float = 0.3, seed: int = 1) -> None:
    """Give everything that is trained other values, as training would, so that it matters."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adaptation.named().values():
            parameter.add_(width * torch.randn(parameter.shape, generator=draw, dtype=torch.float64).to(parameter))


def near(a: torch.Tensor, b: torch.Tensor, tolerance: float) -> bool:
    return float((a - b).abs().max()) <= tolerance * float(b.abs().max())


def check_rows_alone(adapter: SavedAdapter) -> None:
    """Rows of other lengths beside it change no row's answer."""
    backbone = adapter.load(dtype="float32", device="cpu")
    rows = [{"text": text} for text in ("a slow joy", "the window of the very good cast was opened", "dull")]
    together = [each.probabilities for each in predict(adapter, rows, backbone=backbone)]
    alone = [next(iter(predict(adapter, [row], backbone=backbone))).probabilities for row in rows]
    assert near(torch.tensor(together), torch.tensor(alone), 1e-5)
    assert not near(torch.tensor(together), torch.tensor(alone[1:] + alone[:1]), 1e-3)


def recipe_of(model: Path | str, task: Path, method: str, *changes: str) -> Recipe:
    settings = (
        "kind=adapt",
        f"backbone.name={model}",
        f"task.id={task}",
        f"adapter.method={method}",
        "backbone.dtype=float32",
        "backbone.device=cpu",
        "prompt.tokens=3",
        "tuning.epochs=2",
        "tuning.batch_size=8",
        "selection.resamples=100",
    )
    return resolve([*settings, *changes])


def run_dying(recipe: Recipe, out: Path) -> int:
    """Run to the end, but die after each saved evaluation and go on; how many tries that took."""
    return finish_in_tries(lambda: run(recipe, out), out, most=20)


def run(recipe: Recipe, out: Path) -> dict[str, Any]:
    execute(recipe, out, "test", recipe.dump())
    found: dict[str, Any] = json.loads((out / "run.json").read_text())
    return found
