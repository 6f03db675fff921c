"""The whole search for a ticket against the same done by hand with peft, exhaustively and sequentially.

    python benchmarks/whole_search.py [--rounds 2] [--strategies random,sequential,grid,gradual]
        [--epochs 5] [--shape t5-v1_1-small] [--share 0.5]

The demo task on the bundled T5, nine token ratios by nine piece ratios. Ours is run for real, from an empty folder to
the last figure of the comparison: loading, tuning, importance, ranking, every candidate, three seeds each of
winner, control and random mask, and scoring. No candidate stops early for lack of progress (`--patience` changes it).

By hand (peers.py: the faster of random order and grouped by length; `fastest` tries plain attention too) is one
tuning, measured, and one candidate's retraining, measured and multiplied: by 81 for the exhaustive protocol, by 18 for
the sequential one. In the peer's favour, its candidates keep 10 of 20 tokens, shortened as ours are, and its
importance, its choice and its controls cost nothing. `--share` measures that part of its epochs only, and multiplies.

Whoever chooses a checkpoint and a ratio by `select` must evaluate on it; we do once an epoch. So by hand is given both
without evaluations and with one an epoch: the loss alone, as Trainer.evaluate finds it. Nobody by hand retrains winner,
control and random mask on three fresh seeds, so ours is given both as a whole and without these.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ours import random_start
from peers import AS_TRANSFORMERS_CHOOSES, VARIANTS, Peer
from shapes import NAMES, folder_of
from timing import DTYPES, Spent, alternate, flags, listed, medians, show, spent, write

from softprune import load_backbone, load_task
from softprune.config import Recipe, resolve
from softprune.data import select_sets
from softprune.models.loading import resolve_device, resolve_dtype
from softprune.pipelines.xprompt import execute
from softprune.types import Encoded

P, KEPT = 20, 10
RATIOS = "0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9"


def recipe_of(folder: str, strategy: str, asked: argparse.Namespace) -> Recipe:
    """What ours runs."""
    limit = [] if asked.report is None else [f"task.limit_report={asked.report}"]
    shots = [] if asked.shots is None else [f"task.shots={asked.shots}"]
    ratios = [f"search.token_ratios={asked.ratios}", f"search.piece_ratios={asked.ratios}"]
    if strategy == "gradual":  # which keeps shares instead: three of them
        ratios = []
    return resolve(
        [
            f"backbone.name={folder}",
            f"backbone.dtype={asked.dtype}",
            "task.id=demo",
            f"prompt.tokens={P}",
            f"tuning.epochs={asked.epochs}",
            f"tuning.patience={asked.patience}",
            f"search.strategy={strategy}",
            *ratios,
            f"selection.seeds={asked.seeds}",
            *limit,
            *shots,
        ]
    )


def search(folder: str, strategy: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Run ours from begin to end: seconds, and where they went."""
    recipe = recipe_of(folder, strategy, asked)
    with TemporaryDirectory(prefix="softprune-bench-") as out:
        run = Path(out) / "run"
        took = spent(lambda: execute(recipe, run, "benchmarks/whole_search.py", recipe.dump()))
        found = json.loads((run / "run.json").read_text())
    return {
        "strategy": strategy,
        "seconds": took.wall,
        "cpu_seconds": took.cpu,
        "phases": found["cost"]["phases"],
        "steps": found["cost"]["steps"],
        "ticket": found["ticket"],
        "K": found["K"],
        "results": {name: row and row["value"] for name, row in found["results"].items() if isinstance(row, dict)},
    }


def by_hand(folder: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a tuning, of a retraining and of the evaluations in each: the faster peer's, and the fastest's."""
    backbone = load_backbone(folder, dtype=asked.dtype)
    train, select = examples_of(backbone, recipe_of(folder, "grid", asked))
    start_PH = random_start(backbone, P)
    passes = max(1, math.ceil(asked.share * asked.epochs))
    sizes = {"tuning": P, "retraining": KEPT}
    peers = {part: Peer(folder, backbone.family, DTYPES[asked.dtype], start_PH[:size]) for part, size in sizes.items()}

    def trained(part: str, sampling: str, attention: str | None) -> Spent:
        peers[part].attend(attention)
        clock, _ = peers[part].train(train, sampling, epochs=passes)
        assert clock.begun is not None
        return clock.ended.since(clock.begun)

    def evaluated(part: str, attention: str | None) -> Spent:
        peers[part].attend(attention)
        return peers[part].evaluate(select)

    runs = {f"{part}, {name}": partial(trained, part, *how) for part in sizes for name, how in VARIANTS.items()}
    attentions = {how[1] for how in VARIANTS.values()}
    runs |= {f"evaluation, {part}, {how}": partial(evaluated, part, how) for part in sizes for how in attentions}
    times = alternate(runs, asked)
    clocks = {"": medians(times), "cpu_": medians(times, "cpu")}

    def best_of(variants: Iterable[str]) -> dict[str, Any]:
        name = min(variants, key=lambda variant: clocks[""][f"retraining, {variant}"])
        found: dict[str, Any] = {"variant": name}
        for clock, seconds in clocks.items():
            for part in sizes:
                found[f"{clock}{part}"] = seconds[f"{part}, {name}"] * asked.epochs / passes
                found[f"{clock}{part}_evaluations"] = seconds[f"evaluation, {part}, {VARIANTS[name][1]}"] * asked.epochs
        return found

    return {
        "epochs_measured": passes,
        "examples": {"train": len(train), "select": len(select)},
        "peer": best_of(AS_TRANSFORMERS_CHOOSES),
        "fastest": best_of(VARIANTS),
        "rounds": times,
    }


def examples_of(backbone: Any, recipe: Recipe) -> tuple[Sequence[Encoded], Sequence[Encoded]]:
    """The examples that ours trains on, and those that it chooses by."""
    settings = recipe.selection
    splits = load_task("demo").load(None)
    sets = select_sets(splits, settings.protocol, recipe.task.shots, settings.fraction, seed=recipe.seed)
    return tuple(list(backbone.encode(part, recipe.task.max_length)) for part in (sets.train, sets.select))  # type: ignore[return-value]


def main(words: Sequence[str] | None = None) -> None:
    """Run ours, measure the peer, multiply, compare."""
    parser = flags(__doc__, 2)
    parser.add_argument("--shape", default="tiny-seq2seq", choices=NAMES, help="seq2seq or causal")
    parser.add_argument("--strategies", default="random,sequential,grid,gradual", help="of ours")
    parser.add_argument("--dtype", default="auto", choices=("auto", *sorted(DTYPES)))
    parser.add_argument("--epochs", type=int, default=5, help="of tuning and of retraining, ours and the peer's")
    parser.add_argument("--patience", default="null", help="evaluations without progress that stop ours; null: never")
    parser.add_argument("--share", type=float, default=1.0, help="part of the peer's epochs that is measured")
    parser.add_argument("--ratios", default=RATIOS, help="of tokens and of pieces")
    parser.add_argument("--seeds", type=int, default=3, help="of our comparison with controls")
    parser.add_argument("--shots", type=int, help="training examples, ours and the peer's; all by default")
    parser.add_argument("--report", type=int, help="examples that ours reports on; all by default")
    asked = parser.parse_args(words)
    if asked.quick:
        asked.strategies, asked.epochs, asked.rounds, asked.ratios, asked.seeds = "random", 1, 1, "0.3,0.7", 0
        asked.shots, asked.report = 20, 8
    if asked.dtype == "auto":
        asked.dtype = str(resolve_dtype("auto", resolve_device("cpu"))).removeprefix("torch.")
    with folder_of(asked.shape, DTYPES[asked.dtype]) as folder:
        hand = by_hand(folder, asked)
        ours = [search(folder, strategy, asked) for strategy in listed(asked.strategies)]
    many = protocols(len(listed(asked.ratios)))
    wall, cpu = (totals(hand, many, clock) for clock in ("", "cpu_"))
    for run in ours:
        run["seconds_without_fresh_seeds"] = run["seconds"] - run["phases"].get("fresh", 0.0)
        run["ratio"] = {name: value / run["seconds"] for name, value in wall.items()}
        run["cpu_ratio"] = {name: value / run["cpu_seconds"] for name, value in cpu.items()}
        run["ratio_without_fresh_seeds"] = {
            name: value / run["seconds_without_fresh_seeds"] for name, value in wall.items()
        }
    columns = ["", "seconds", "CPU"]
    rows: list[list[object]] = [[f"by hand: {name}", value, cpu[name]] for name, value in wall.items()]
    for run in ours:
        columns += [f"{run['strategy']} is faster", "without fresh seeds"]
        for row, name in zip(rows, wall, strict=True):
            row += [run["ratio"][name], run["ratio_without_fresh_seeds"][name]]
    for run in ours:
        rows.append([f"ours: {run['strategy']}", run["seconds"], run["cpu_seconds"]])
        rows.append([f"ours: {run['strategy']} without fresh seeds", run["seconds_without_fresh_seeds"], None])
    rows = [row + [None] * (len(columns) - len(row)) for row in rows]
    show(f"A ticket on {asked.shape} in {asked.dtype}; how often faster", columns, rows)
    peer = hand["peer"]
    notes = [
        f"by hand: one tuning ({peer['tuning']:.3g} s) and {' or '.join(map(str, many.values()))} times one "
        f"retraining ({peer['retraining']:.3g} s); {hand['epochs_measured']} of {asked.epochs} epochs measured",
        f"evaluated: with the loss on select once an epoch ({peer['retraining_evaluations']:.3g} s a retraining)",
        "by hand leaves out importance, choice and controls; ours has all of them, evaluations, and loading",
        "without fresh seeds: less what retraining winner, control and random mask on fresh seeds took",
        "fastest: with plain attention, if that is faster than what transformers chooses",
    ]
    write("whole_search", asked, [{"by_hand": hand, "seconds": wall, "cpu_seconds": cpu}, *ours], notes)


def totals(hand: dict[str, Any], many: dict[str, int], clock: str) -> dict[str, float]:
    """Seconds of each protocol by hand, with each peer, without evaluations and with them."""
    found = {}
    for name, candidates in many.items():
        for peer in ("peer", "fastest"):
            parts = {part: hand[peer][f"{clock}{part}"] for part in ("tuning", "retraining")}
            more = {part: hand[peer][f"{clock}{part}_evaluations"] for part in parts}
            found[f"{name}, {peer}"] = alone = parts["tuning"] + candidates * parts["retraining"]
            found[f"{name}, {peer}, evaluated"] = alone + more["tuning"] + candidates * more["retraining"]
    return found


def protocols(ratios: int) -> dict[str, int]:
    """Candidates that each protocol retrains."""
    return {"exhaustive": ratios * ratios, "sequential": 2 * ratios}


if __name__ == "__main__":
    main()
