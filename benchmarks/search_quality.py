"""Whether a cheaper search finds as good a ticket: `grid`, trained to the end, against the other strategies.

    SOFTPRUNE_DATA=... python benchmarks/search_quality.py [--tasks trec,ag_news] [--seeds 0,1,2] [key=value ...]

Every strategy chooses on `select` alone; only then are all of its trained candidates scored on `report`, so that random
search at a strategy's budget can be worked out from `grid`'s candidates: it trains as many of them, drawn at random, as
that strategy's steps would pay for. Differences are paired over the examples of `report`, whose correctness is averaged
over the seeds first; intervals are 95% bootstraps over examples. Results go to `--out`; what is there isn't run again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from softprune.config import resolve
from softprune.prompts.soft_prompts import read_one
from softprune.pruning.search import choose
from softprune.pruning.xprompt import xprompt
from softprune.runs.executors import Executor
from softprune.runs.run_folder import RunFolder
from softprune.statistics.bootstrap import paired_bootstrap
from softprune.training.loop import Watch
from softprune.training.scoring import score_each
from softprune.training.session import encode_examples, prepare
from softprune.types import Candidate

SETTINGS = (
    "task.shots=400",
    "selection.fraction=0.5",
    "task.limit_report=2000",
    "prompt.init=labels",
    "tuning.lr={relative: 0.1}",
    "tuning.epochs=10",
    "search.token_ratios=0.1,0.3,0.5,0.7,0.9",
    "search.piece_ratios=0.1,0.3,0.5,0.7,0.9",
)
"""200 examples train and 200 choose; start and step size are those of the card of `tiny`; a 5 x 5 grid, ten epochs."""

DRAWS = 2_000  # random searches that are averaged


def search(task: str, seed: int, strategy: str, data: Path, out: Path, overrides: list[str]) -> dict[str, Any]:
    """One search; its trained candidates with what `select` and `report` say of each, and what it cost."""
    kept = out / f"{task}-{seed}-{strategy}.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    recipe = resolve(
        [
            *SETTINGS,
            f"task.id={task}",
            f"task.data={data / task}",
            f"search.strategy={strategy}",
            f"seed={seed}",
            *overrides,
        ]
    )
    run = RunFolder.open(
        out / f"{task}-{seed}-{strategy}",
        recipe_text=recipe.dump(),
        resolved=recipe.resolved(),
        kind="xprompt",
        command="benchmarks/search_quality.py",
    )
    try:
        found = _searched(recipe, run)
    finally:
        run.close()
    kept.write_text(json.dumps(found))
    return found


def _searched(recipe: Any, run: RunFolder) -> dict[str, Any]:
    workspace = prepare(recipe, run, Watch(), Executor())
    pruned = xprompt(workspace)
    workspace.report.fix("the search is over")
    data = encode_examples(workspace.recipe, workspace.backbone, workspace.report.open())
    backbone = workspace.backbone
    prompts = [
        read_one(trial.fitted.state, recipe.pruning.removal).to(backbone.device, backbone.prompt_dtype)
        for trial in pruned.trials
    ]
    scores = score_each(backbone, prompts, data, workspace.scoring)
    right = {
        trial.candidate.id: [int(p == g) for p, g in zip(found.predicted, found.gold, strict=True)]
        for trial, found in zip(pruned.trials, scores, strict=True)
    }
    selection = run.record.selection
    assert selection is not None
    steps = {name: piece.examples for name, piece in run.record.cost.training.items() if name != "tune"}
    return {
        "candidates": [asdict(trial.candidate) for trial in pruned.trials],
        "right": right,
        "ids": [example.id for example in data.examples],
        "standard_errors": selection.standard_errors,
        "examples": sum(steps.values()),
        "seconds": run.record.cost.phases,
        "foresight": selection.foresight.document() if selection.foresight else None,
        "train": len(workspace.train),
        "select": len(workspace.select),
        "report": len(data),
        "lr": workspace.lr,
    }


class Searches:
    """The searches of one task over the seeds: what each chose, and how right that is, example by example.

    Args:
        found: one result of `search` a seed.
        objective: the rule that chooses on `select`.
    """

    def __init__(self, found: list[dict[str, Any]], objective: str) -> None:
        self.found, self.objective = found, objective
        self.trained = [[c for c in map(_candidate, one["candidates"]) if c.select is not None] for one in found]

    def winners(self, no_larger: list[int] | None = None) -> list[Candidate]:
        """The chosen candidate of every seed; among those of so many parameters at most, where that is asked."""
        most = no_larger or [10**12] * len(self.found)
        return [
            self.pick([c for c in trained if c.parameters <= size] or [min(trained, key=lambda c: c.parameters)], at)
            for at, (trained, size) in enumerate(zip(self.trained, most, strict=True))
        ]

    def pick(self, candidates: list[Candidate], at: int) -> Candidate:
        """The objective's choice among some candidates of a seed; standard errors are those of the whole search."""
        return choose(candidates, self.objective, self.found[at]["standard_errors"])

    def right(self, chosen: list[Candidate]) -> np.ndarray:
        """Rows `[seeds * N, 2]` of (right, 1) for the chosen candidates."""
        rows = [self.found[at]["right"][c.id] for at, c in enumerate(chosen)]
        flat = np.concatenate([np.asarray(row, float) for row in rows])
        return np.stack([flat, np.ones_like(flat)], axis=1)


def _candidate(fields: dict[str, Any]) -> Candidate:
    return Candidate(**{name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()})


def _accuracy(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def random_search(grid: Searches, budget: list[float]) -> tuple[float, float]:
    """Mean `report` accuracy and mean parameters of random searches of as many candidates as the budgets pay for."""
    generator, scores, sizes = random.Random(0), [], []
    for at, trained in enumerate(grid.trained):
        count = max(1, round(budget[at] / (grid.found[at]["examples"] / len(trained))))
        means = {name: float(np.mean(right)) for name, right in grid.found[at]["right"].items()}
        for _ in range(DRAWS):
            chosen = grid.pick(generator.sample(trained, count), at)
            scores.append(means[chosen.id])
            sizes.append(chosen.parameters)
    return float(np.mean(scores)), float(np.mean(sizes))


def compare(found: dict[str, list[dict[str, Any]]], strategy: str, objective: str) -> dict[str, Any]:
    """A strategy's tickets against those of `grid`, over the seeds of one task."""
    grid, other = Searches(found["grid"], objective), Searches(found[strategy], objective)
    best, own = grid.winners(), other.winners()
    fitting = other.winners([c.parameters for c in best])
    ids = [name for one in found["grid"] for name in one["ids"]]

    def against(chosen: list[Candidate]) -> dict[str, Any]:
        gap = paired_bootstrap(other.right(chosen), grid.right(best), _accuracy, ids, seed=0)
        return {
            "report": float(_accuracy(other.right(chosen).sum(0))),
            "difference": gap.value,
            "low": gap.low,
            "high": gap.high,
            "parameters": [c.parameters for c in chosen],
            "chosen": [c.id for c in chosen],
        }

    spent, whole = ([float(one["examples"]) for one in found[name]] for name in (strategy, "grid"))
    score, size = random_search(grid, spent)
    return {
        "grid": {
            "report": float(_accuracy(grid.right(best).sum(0))),
            "parameters": [c.parameters for c in best],
            "chosen": [c.id for c in best],
        },
        "own choice": against(own),
        "no larger": against(fitting),
        "random": {"report": score, "parameters": size},
        "share of examples": sum(spent) / sum(whole),
        "share of seconds": sum(_seconds(one) for one in found[strategy]) / sum(_seconds(one) for one in found["grid"]),
    }


def _seconds(found: dict[str, Any]) -> float:
    """What the search took, tuning not counted."""
    return float(sum(found["seconds"].get(name, 0.0) for name in ("importance", "rank", "retrain", "gates")))


def table(results: dict[str, dict[str, Any]]) -> str:
    """All comparisons as Markdown; percent and points."""
    head = "| task, objective | grid | tickets | own choice | tickets | difference | no larger | difference "
    lines = [head + "| random | share of the training |", "|" + "---|" * 10]

    def gap(part: dict[str, Any]) -> str:
        return f"{100 * part['difference']:+.1f} ({100 * part['low']:+.1f} to {100 * part['high']:+.1f})"

    def sizes(part: dict[str, Any]) -> str:
        return ", ".join(map(str, part["parameters"]))

    for name, found in results.items():
        grid, own, fit, drawn = (found[part] for part in ("grid", "own choice", "no larger", "random"))
        lines.append(
            f"| {name} | {100 * grid['report']:.1f} | {sizes(grid)} | {100 * own['report']:.1f} | {sizes(own)} "
            f"| {gap(own)} | {100 * fit['report']:.1f}, {sizes(fit)} | {gap(fit)} "
            f"| {100 * drawn['report']:.1f}, {drawn['parameters']:.0f} | {100 * found['share of examples']:.0f}% |"
        )
    return "\n".join(lines)


def main() -> None:
    """Search wherever nothing is found yet, compare, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="trec,sentence_polarity,ag_news", help="names, with commas between them")
    parser.add_argument("--seeds", default="0,1,2", help="with commas between them")
    parser.add_argument("--strategies", default="grid,sequential", help="grid first, with commas between them")
    parser.add_argument("--out", type=Path, default=Path("runs/search_quality"), help="folder for the runs")
    parser.add_argument("overrides", nargs="*", help="recipe keys, key=value")
    asked = parser.parse_intermixed_args()
    if "SOFTPRUNE_DATA" not in os.environ:
        print("benchmarks/search_quality.py: left out, since SOFTPRUNE_DATA names no folder with data")
        return
    data = Path(os.environ["SOFTPRUNE_DATA"])
    tasks, strategies = asked.tasks.split(","), asked.strategies.split(",")
    searched: dict[str, dict[str, list[dict[str, Any]]]] = {task: {name: [] for name in strategies} for task in tasks}
    for seed in map(int, asked.seeds.split(",")):
        for task in tasks:
            for strategy in strategies:
                searched[task][strategy].append(search(task, seed, strategy, data, asked.out, asked.overrides))
                print(f"{task}, seed {seed}, {strategy}: done", flush=True)
    for strategy in strategies[1:]:
        results = {
            f"{task}, {objective}": compare(found, strategy, objective)
            for task, found in searched.items()
            for objective in ("one_se", "best")
        }
        (asked.out / f"{strategy}.json").write_text(json.dumps(results, indent=1) + "\n")
        print(f"\n{strategy}\n\n{table(results)}")


if __name__ == "__main__":
    main()
