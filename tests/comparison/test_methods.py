"""Comparisons of the other methods: adapters' costs, and tasks whose targets are texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from softprune.config import ADAPTERS, FORM_METHODS, CompareRecipe
from softprune.config.adapter_schema import CARTRIDGE
from softprune.config.forms import FORMS
from softprune.data.rouge import rouge
from softprune.studies.comparison.runner import compare_methods

Small = Callable[..., CompareRecipe]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
TASK = """
title: Short films
fields: [article]
template: "{article} TL;DR: {mask}"
target: summary
sources:
  file:
    files: {train: train.jsonl, validation: validation.jsonl}
"""


def info_of(path: Path) -> dict[str, Any]:
    info: dict[str, Any] = json.loads(path.read_text())
    return info


def test_every_adapter_has_its_row_and_its_costs(small: Small, tmp_path: Path) -> None:
    methods = [name for name in ADAPTERS if name != CARTRIDGE]  # which needs a document, and a causal model
    changes = (f"methods={','.join(methods)}", "seeds=1", "tuning.epochs=1", "task.shots=24")
    settings = ("settings.lora.adapter.rank=2", "settings.ia3.tuning.lr=0.25")
    timed = ("tuning.latency=false", "settings.lora.tuning.latency=true")
    out = compare_methods(small(*changes, *settings, *timed), tmp_path / "out")
    found = info_of(out / "compare.json")
    assert found["not_defined"] == {}
    assert found["reference"] == "full"
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == [*methods, "zero_shot", "constant"]
    for method in methods:
        info, row = info_of(out / "cells" / f"{method}-0" / "run.json"), rows[method]
        assert row["values"] == [info["results"]["adapted"]["value"]]
        assert row["trainable"] == info["adapter"]["trainable_parameters"] > 0
        assert row["stored"] == info["adapter"]["stored_parameters"] > 0
        assert row["lr"] == [info["adapter"]["lr"]]
        assert row["seconds"] > 0
        assert (row["latency"] is not None) == (method == "lora")
    assert rows["ia3"]["lr"] == [0.25]
    assert rows["lora"]["lr"] == [5e-4]  # its own: nobody named one
    assert rows["full"]["difference"] is None
    assert rows["full"]["trainable"] > rows["last-layer"]["trainable"] > rows["lora"]["trainable"]


def test_forms_of_a_prompt_have_their_rows_and_their_numbers(small: Small, tmp_path: Path) -> None:
    changes = (f"methods=prompt,{','.join(FORM_METHODS)}", "seeds=1", "tuning.epochs=1", "task.shots=24")
    settings = ("settings.residual.prompt.bottleneck=6", "settings.superpos.prompt.words=14", "prompt.init=labels")
    out = compare_methods(small(*changes, *settings, "tuning.latency=false"), tmp_path / "out")
    found = info_of(out / "compare.json")
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == ["prompt", *FORM_METHODS, "zero_shot", "constant"]
    tokens, hidden = 4, 32
    whole = tokens * hidden
    trained = {
        "prompt": whole,
        "residual": whole + 2 * hidden * 6 + 6 + 3 * hidden,
        "low-rank": 10 * (tokens + hidden),
        "ulpt": 2 * tokens + 2 * hidden,
        "superpos": tokens * 14,
        "cpt": whole,
    }
    assert {name: rows[name]["trainable"] for name in trained} == trained
    assert {rows[name]["stored"] for name in trained} == {whole}
    rates = {name: rows[name]["lr"][0] / rows["prompt"]["lr"][0] for name in trained}
    assert rates == pytest.approx({name: FORMS[name].lr / 0.3 for name in FORM_METHODS} | {"prompt": 1.0})
    starts = {name: info_of(out / "cells" / f"{name}-0" / "run.json")["prompt"]["init"] for name in trained}
    assert (starts["residual"], starts["ulpt"], starts["cpt"]) == ("labels", "random numbers", "demonstrations")


def test_texts_are_compared_by_rouge(tiny_models: Callable[[str], Path], small: Small, tmp_path: Path) -> None:
    things, opinions = ("the film", "the meal", "the river", "the room"), ("a slow joy", "a dull plot", "a red box")
    rows = [
        {"article": f"{thing} was {text} . she said that it was great .", "summary": f"{thing} : {text}"}
        for thing in things
        for text in opinions
    ]
    for name, held in (("train", rows[:8]), ("validation", rows[8:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held))
    task = tmp_path / "films.yaml"
    task.write_text(TASK)
    changes = ("methods=prompt,lora", "seeds=2", "task.shots=none", "task.max_answer_length=6", "tuning.epochs=1")
    places = (f"backbone.name={tiny_models('gpt2')}", f"task.id={task}", "tuning.latency=false")
    out = compare_methods(small(*changes, *places), tmp_path / "out")
    found = info_of(out / "compare.json")
    made = {row["name"]: row for row in found["rows"]}
    assert found["metric"] == "rougeL"
    for method in ("prompt", "lora"):
        row, by_seed = made[method], []
        for seed in (0, 1):
            name = {"prompt": "tuned", "lora": "adapted"}[method]
            text = (out / "cells" / f"{method}-{seed}" / "predictions" / f"{name}.jsonl").read_text()
            lines = [json.loads(line) for line in text.splitlines()]
            by_seed.append([rouge(line["written"], line["reference"]) for line in lines])
        for at, key in enumerate(("rouge1", "rouge2", "rougeL")):
            means = [sum(each[at] for each in seed) / len(seed) for seed in by_seed]
            assert row["others"][key] == pytest.approx(sum(means) / 2)
        assert row["mean"] == pytest.approx(row["others"]["rougeL"])
        assert row["interval"][0] <= row["mean"] <= row["interval"][1]
        assert row["others"]["loss"] > 0
        assert row["latency"] is None  # not asked for
    assert made["lora"]["difference"]["value"] == pytest.approx(made["lora"]["mean"] - made["prompt"]["mean"])
    table = (out / "table.md").read_text()
    assert "| the text's own first 3 sentences |" in table
    assert "| method | ROUGE-L (%) | sd |" in table
    assert "not measured" not in table
    assert "latency" not in table
