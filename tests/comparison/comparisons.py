"""Small comparisons, and what of a finished one must not depend on interruptions; made-up ones for the tables."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from records import run_document
from softprune.config import CompareRecipe, load_config
from softprune.runs.comparison_record import ComparisonRecord

SMALL = (
    "methods=prompt,xprompt",
    "seeds=2",
    "task.id=demo",
    "task.shots=40",
    "task.limit_report=24",
    "backbone.dtype=float32",
    "backbone.device=cpu",
    "prompt.tokens=4",
    "prompt.pieces=4",
    "tuning.epochs=2",
    "search.strategy=grid",
    "search.token_ratios=0.5",
    "search.piece_ratios=0.5",
    "search.group=2",
    "selection.resamples=200",
)
TIMES = ("seconds", "seconds_per_epoch", "examples_per_second", "peak_memory", "latency")
"""Measured by a clock or as memory; all else is the same bit by bit, also after interruptions."""
HISTORY = ("command", "attempts", "started", "finished", "hardware")
"""How a comparison was made, and on which machine."""
NOTHING = {"loss": None, "rouge1": None, "rouge2": None, "rougeL": None}


def recipe_of(model: Path, *changes: str) -> CompareRecipe:
    return load_config(CompareRecipe, None, [f"backbone.name={model}", *SMALL, *changes])


def outcome(out: Path) -> dict[str, Any]:
    """Everything of a finished comparison but times and memory: of compare.json, of the tables, of the tickets."""
    info = json.loads((out / "compare.json").read_text())
    assert info["status"] == "complete"
    rows = [{key: value for key, value in row.items() if key not in TIMES} for row in info["rows"]]
    with (out / "table.csv").open(encoding="utf-8", newline="") as file:
        table = [{key: row[key] for key in row if not key.startswith(TIMES)} for row in csv.DictReader(file)]
    tickets = {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("ticket.safetensors"))}
    return {**{key: info[key] for key in info if key not in HISTORY}, "rows": rows, "table": table, "tickets": tickets}


def row(name: str, mean: float, **changes: Any) -> dict[str, Any]:
    """A row of compare.json."""
    made = {
        "name": name,
        "kind": "method",
        "answer": None,
        "values": [mean - 0.01, mean + 0.01],
        "mean": mean,
        "sd": 0.0141,
        "interval": [mean - 0.02, mean + 0.03],
        "difference": {"against": "prompt", "value": 0.1, "low": -0.012, "high": 0.2, "p": 0.04},
        "others": NOTHING,
        "lr": [5e-4, 5e-4],
        "multiples": None,
        "trainable": 294_912,
        "stored": 147_456,
        "tokens": 20,
        "seconds": 123.4,
        "seconds_per_epoch": 4.567,
        "examples_per_second": 1234.5,
        "peak_memory": 3 * 2**30,
        "latency": {size: {"with_p50": 0.03, "without_p50": 0.02, "ratio": 1.5} for size in ("1", "8", "32")},
    }
    return made | changes


def floor(name: str, mean: float) -> dict[str, Any]:
    """A row for which nothing was trained."""
    costs = ("trainable", "stored", "tokens", "lr", *TIMES)
    return row(name, mean, kind="floor", values=[mean], sd=None, interval=None, difference=None) | dict.fromkeys(costs)


def found(**changes: Any) -> ComparisonRecord:
    """A finished comparison's record, as it is read."""
    rows = [row("lora", 0.9), row("prompt", 0.8, difference=None, multiples=["0.3", "1"]), floor("zero_shot", 0.5)]
    made = {
        "task": "Moods",
        "backbone": "tiny",
        "metric": "accuracy",
        "n": 100,
        "seeds": [0, 1],
        "reference": "prompt",
        "rows": rows,
        "not_defined": {},
    }
    document = run_document("compare", **{"command": "softprune compare"} | made | changes)
    return ComparisonRecord.model_validate_json(json.dumps(document), context={"reading": True})
