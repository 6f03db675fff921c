"""Every method that is defined, on models of every family, two classification tasks and summaries of real articles.

Each run is saved, read again, and answers some of its rows as it reported them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from softprune.adapters.adapter_io import holds_adapter, read_adapter
from softprune.config.comparison_schema import DEFAULT_METHODS
from softprune.data import load_task
from softprune.errors import SoftpruneError
from softprune.evaluation.predict import predict
from softprune.models import load_backbone
from softprune.prompts.ticket import Ticket
from softprune.studies.comparison.runner import compare_methods
from softprune.types import Example

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("one_thread")]

Models = Callable[[str], Path]
BUNDLED = ("tiny", "tiny-seq2seq")
MODELS = (*BUNDLED, "gpt2", "bart", "bert")
FIELD = {"trec": "text", "ag_news": "text", "summaries": "article"}
SUMMARIES = """
fields: [article]
template: "{{article}} TL;DR: {{mask}}"
target: highlights
sources:
  file:
    files: {{train: {file}, validation: {file}}}
    where: {{train: {{split: train}}, validation: {{split: test}}}}
"""


def task_of(name: str, folder: Path) -> dict[str, Any]:
    data = Path(os.environ["SOFTPRUNE_DATA"])
    if name != "summaries":
        return {"id": name, "data": str(data / name)}
    path = folder / "summaries.yaml"
    path.write_text(SUMMARIES.format(file=data / "summaries" / "gov_posts_cc0.jsonl.xz"))
    return {"id": str(path), "max_answer_length": 12}


def recipe_of(model: str, task: dict[str, Any]) -> dict[str, Any]:
    return {
        "seeds": 1,
        "backbone": {"name": model, "device": "cpu", "dtype": "float32"},
        "task": {**task, "shots": 20, "limit_report": 6, "max_length": 48},
        "prompt": {"tokens": 4, "pieces": 4},
        "tuning": {"epochs": 1, "batch_size": 8, "latency": False},
        "search": {"strategy": "grid", "token_ratios": [0.5], "piece_ratios": [0.5]},
        "selection": {"resamples": 100},
        "settings": {"superpos": {"prompt": {"words": 40}}},  # the tiny models' vocabularies are small
    }


@pytest.mark.parametrize("task", FIELD)
@pytest.mark.parametrize("model", MODELS)
def test_all_defined_cells(model: str, task: str, tiny_models: Models, tmp_path: Path) -> None:
    if task == "summaries" and model in ("tiny", "bert"):
        return check_refused(model, tiny_models, tmp_path)
    name = model if model in BUNDLED else str(tiny_models(model))
    out = compare_methods(recipe_of(name, task_of(task, tmp_path)), tmp_path / "out")
    found = json.loads((out / "compare.json").read_text())
    assert (out / "COMPLETE").exists()
    assert {path.name for path in (out / "cells").iterdir()} == {f"{method}-0" for method in DEFAULT_METHODS}, found
    settings = task_of(task, tmp_path)
    examples = load_task(settings["id"]).load(Path(settings["data"]) if "data" in settings else None).report
    for method in DEFAULT_METHODS:
        answers_again(out / "cells" / f"{method}-0", FIELD[task], examples)
    return None


def check_refused(model: str, tiny_models: Models, folder: Path) -> None:
    """Models that don't write say so, and nothing is begun."""
    name = model if model in BUNDLED else str(tiny_models(model))
    with pytest.raises(SoftpruneError, match="a backbone that writes text"):
        compare_methods(recipe_of(name, task_of("summaries", folder)), folder / "out")


def answers_again(run: Path, field: str, examples: Sequence[Example]) -> None:
    """The run's adapter or ticket, loaded from its folder, answers as its predictions file has it."""
    row = "adapted" if holds_adapter(run) else "tuned"  # a prompt, or a form of one
    if run.name == "xprompt-0":
        row = "winner"
    lines = [json.loads(line) for line in (run / "predictions" / f"{row}.jsonl").read_text().splitlines()]
    rows = [{field: examples[line["index"]].content} for line in lines]
    if holds_adapter(run):
        adapter = read_adapter(run)
        told = predict(adapter, rows, backbone=adapter.load(device="cpu", dtype="float32"))
    else:
        told = predict(Ticket.load(run), rows, backbone=load_backbone(Ticket.load(run).info.backbone, dtype="float32"))
    wanted = [line["written"] if "written" in line else line["answers"][line["predicted"]] for line in lines]
    assert [prediction.answer for prediction in told] == wanted
