"""Part `study` of `real_lm`: what prompts give a real language model on four tasks, by softprune's own commands.

For every task two runs: `softprune tune` with all defaults, and `softprune xprompt` whose learning rate a sweep chooses
on `select`. Runs are kept under `--runs`; a finished one isn't made again, a killed one goes on.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from timing import ROOT, listed, markdown

from softprune.report import formatting
from softprune.report.run_reader import Prediction, Run, read_run
from softprune.report.table import columns, comparison_rows, shown
from softprune.statistics.bootstrap import paired_bootstrap

FOLDERS = {"cb": "superglue/CB", "rte": "superglue/RTE"}
"""Of a task, in the folder of all data, where it isn't the task's own name."""
DEFAULTS = ("--shots", "500", "--limit-report", "250")
"""Of the first runs: two cores can't train on all rows; nothing else is set."""
SETTINGS = (
    *("--shots", "250", "--limit-report", "250", "--batch-size", "8", "--strategy", "sequential"),
    *("--token-ratios", "0.3,0.6,0.8", "--piece-ratios", "0.3,0.6", "--fresh-seeds", "3"),
    *("search.group=1", "tuning.sweep=[0.3, 1, 3]"),
)
"""Of the second: 200 rows train, 50 choose; 17 trainings of some 125 steps."""
OF_TASK = {
    "ag_news": ("task.max_length=48", "tuning.epochs=4"),
    "sentence_polarity": ("tuning.epochs=4",),
    "cb": ("tuning.epochs=5",),
}
TOY = ("--shots", "40", "--limit-report", "20", "--epochs", "1")
NEIGHBOURS = 5  # words shown of each prompt token


def study(asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Make every task's runs, or find them, and describe them."""
    if asked.quick:
        asked.backbone, asked.tasks = "tiny-causal", "demo"
    found = []
    for task in listed(asked.tasks):
        tuned, pruned = (_run(command, task, asked) for command in ("tune", "xprompt"))
        found.append(_describe(task, tuned, pruned))
    return found


def show_study(asked: argparse.Namespace, results: Sequence[dict[str, Any]]) -> None:
    """Print the tables as the page has them."""
    del asked
    above = [[result["task"], *result["defaults"].values()] for result in results]
    print(markdown("With all defaults", ("task", *results[0]["defaults"]), above))
    for result in results:
        print(markdown(result["title"], result["columns"], result["rows"]))
        print(f"{result['verdict']}\n")
    rates = [[result["task"], *result["rates"]] for result in results]
    print(markdown("Learning rates", ("task", *results[0]["multiples"]), rates))
    for result in results:
        print(markdown(f"Words of {result['task']}", ("was", "kept", "cosine", "nearest now"), result["words"]))


def _run(command: str, task: str, asked: argparse.Namespace) -> Run:
    out: Path = asked.runs / f"{task}-{command}"
    if not (out / "COMPLETE").is_file():
        settings = (*SETTINGS, *OF_TASK.get(task, ())) if command == "xprompt" else DEFAULTS
        words = ["--backbone", str(asked.backbone), "--dtype", asked.dtype, "--task", task, "--out", str(out)]
        if not asked.quick:
            words += ["--data", str(Path(os.environ["SOFTPRUNE_DATA"]) / FOLDERS.get(task, task))]
        words += [*settings, *(TOY if asked.quick else ())]
        subprocess.run([sys.executable, "-m", "softprune", command, *words], check=True)
    return read_run(out)


def _describe(task: str, tuned: Run, pruned: Run) -> dict[str, Any]:
    headings = [(field, heading) for field, heading in columns(pruned) if field not in ("predicted", "pieces")]
    sweep = pruned.record.sweep.values()
    return {
        "task": task,
        "title": pruned.title,
        "folders": [tuned.path.name, pruned.path.name],
        "defaults": _defaults(tuned),
        "columns": [heading for _, heading in headings],
        "rows": [[shown(row, field) for field, _ in headings] for row in comparison_rows(pruned)],
        "verdict": pruned.record.verdict.sentence if pruned.record.verdict else "",
        "multiples": [f"x{multiple}" for multiple in pruned.record.sweep],
        "rates": [formatting.percent(row.score) + (" (chosen)" if row.chosen else "") for row in sweep],
        "words": _words(pruned),
    }


def _defaults(run: Run) -> dict[str, str]:
    """Scores of a tuned prompt and of what it must beat, with paired differences over examples."""
    results, cells = run.record.results, {}
    for name in ("constant", "zero_shot", "instruction", "tuned"):
        row = results[name]
        if row is not None:
            cells[name.replace("_", "-")] = f"{formatting.percent(row.value)} ({formatting.interval(row.interval)})"
    tuned = _right(run.predictions["tuned"])
    constant_answer = results["constant"].answer if results["constant"] else None
    constant = [each.answers[each.gold] == constant_answer for each in run.predictions["tuned"]]
    for name, others in (("zero-shot", _right(run.predictions["zero_shot"])), ("constant", constant)):
        found = paired_bootstrap(_counts(tuned), _counts(others), lambda sums: sums[..., 0] / sums[..., 1], seed=0)
        cells[f"minus {name}"] = (
            f"{formatting.points(found.value)} ({formatting.points(found.low)} to {formatting.points(found.high)})"
        )
    seconds = run.record.cost.seconds
    return {**cells, "minutes": "" if seconds is None else f"{seconds / 60:.0f}"}


def _right(predictions: Sequence[Prediction]) -> list[bool]:
    return [each.predicted == each.gold for each in predictions]


def _counts(right: Sequence[bool]) -> np.ndarray[Any, Any]:
    return np.stack([np.asarray(right, float), np.ones(len(right))], axis=1)


def _words(run: Run) -> list[list[str]]:
    """Of each prompt token: its first word, whether the ticket keeps it, how far it turned, and what it is near now."""
    kept = set(range(len(run.record.initial_words))) if run.ticket is None else set(np.flatnonzero(run.ticket.token_P))
    return [
        [
            formatting.printable(token["word"]),
            "yes" if token["token"] in kept else "",
            f"{token['cosine']:.2f}",
            ", ".join(formatting.printable(near["word"]) for near in token["end"]["centred"][:NEIGHBOURS]),
        ]
        for token in (run.neighbours or {}).get("prompts", {}).get("tuned", ())
    ]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this part."""
    parser.add_argument(
        "--tasks", default="trec,sentence_polarity,ag_news,cb", help="of part study, commas between them"
    )
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "real-lm", help="where its run folders go")
