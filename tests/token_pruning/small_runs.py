"""Small runs of token pruning: a task of a few dozen self-written texts, a recipe that takes seconds."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from models import CORPUS
from softprune.config import TokensRecipe, load_config
from softprune.runs.run_folder import RunFolder
from softprune.token_pruning.families import Encoder
from softprune.token_pruning.loading import describe_encoder, load_classifier
from softprune.token_pruning.session import TokenWorkspace, prepare
from softprune.training.loop import Watch

LABELS = ("good", "bad")
TASK = """
id: mood
version: 1
title: Mood
instruction: Tell the mood of a text.
fields: {text: {shortenable: true}}
template: "{text} . it was {mask}"
answers: [good, bad]
metric: accuracy
sources:
  file:
    format: jsonl
    files: {train: train.jsonl, validation: validation.jsonl}
    labels: {good: good, bad: bad}
"""
WORDS = sorted({word for line in CORPUS for word in line.split()})


def texts_of(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Rows of 3 to 40 words; the label stands in each of them as a word."""
    draw = random.Random(seed)
    rows = []
    for n in range(count):
        label = LABELS[n % 2]
        words = draw.choices(WORDS, k=draw.randint(3, 40))
        words.insert(draw.randrange(len(words)), {"good": "wonderful", "bad": "dull"}[label])
        rows.append({"text": " ".join(words), "label": label})
    return rows


def write_task(
    folder: Path, train: int = 16, validation: int = 12, more: Mapping[str, list[Any]] | None = None
) -> Path:
    """A task's YAML with its files; `more` adds rows to a file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mood.yaml").write_text(TASK)
    for seed, (name, count) in enumerate({"train": train, "validation": validation}.items()):
        rows = [*texts_of(count, seed), *(more or {}).get(name, [])]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return folder / "mood.yaml"


def recipe_of(task: Path, model: Path | str, *overrides: str) -> TokensRecipe:
    """One lambda, one pass a stage, two baselines."""
    quick = [
        f"backbone.name={model}",
        "backbone.dtype=float32",
        "backbone.device=cpu",
        "backbone.threads=1",
        f"task.id={task}",
        "task.max_length=48",
        "tuning.epochs=1",
        "tuning.batch_size=8",
        "tuning.lr=1e-3",
        "pruning.lambdas=0.1",
        "pruning.baselines=top-k,manual",
        "selection.resamples=50",
    ]
    return load_config(TokensRecipe, None, [*quick, *overrides])


def workspace_of(recipe: TokensRecipe, out: Path) -> TokenWorkspace:
    """An open run and what its stages share."""
    run = RunFolder.open(out, recipe_text="", resolved=recipe.resolved(), kind="tokens", command="test")
    return prepare(recipe, run, Watch())


def encoder_of(model: Path, dtype: torch.dtype = torch.float32, labels: tuple[str, ...] = LABELS) -> Encoder:
    """A classifier of that encoder with a seeded head."""
    return Encoder(load_classifier(describe_encoder(str(model)), labels, torch.device("cpu"), dtype, seed=0))


def info_of(out: Path) -> dict[str, Any]:
    """run.json."""
    info: dict[str, Any] = json.loads((out / "run.json").read_text())
    return info


def outcome(out: Path) -> dict[str, Any]:
    """Everything of a finished run that must not depend on interruptions."""
    info = info_of(out)
    assert info["status"] == "complete"
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    curves = sorted(json.dumps({k: v for k, v in line.items() if k != "seconds"}, sort_keys=True) for line in metrics)
    files = [path for part in ("predictions", "models") for path in sorted((out / part).rglob("*")) if path.is_file()]
    return {
        "results": info["results"],
        "stages": info["stages"],
        "selection": info["selection"],
        "curves": curves,
        "files": {str(path.relative_to(out)): path.read_bytes() for path in files},
    }
