"""The same retrainings on one Ray node and on two, of one CPU and thread each; and with a node killed in the middle.

    python benchmarks/cluster.py [--minutes 3] [--groups 24]

The bundled `tiny` on the `demo` task: groups of two candidates, each of a mask and a data order of its own, sent as a
search sends them. Start-up is apart: Ray's, and one short group on each node, with which its process loads what it
needs. --minutes is the work on one node. All passes must leave the same bits, and another seed must leave others. Where
other work shares the processors, two nodes share what is left: CPU seconds say what was done, the load what is left.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
from ray.cluster_utils import Cluster

from softprune.config import Recipe, resolve
from softprune.prompts.initialization import initial_prompt
from softprune.prompts.soft_prompts import full_mask, masked_state
from softprune.pruning.masks import random_mask
from softprune.runs.executors import Executor, RayCluster
from softprune.runs.run_folder import RunFolder
from softprune.training import distribute
from softprune.training.jobs import Fitted, Group, fit, fit_groups
from softprune.training.loop import Watch
from softprune.training.session import Workspace, prepare
from softprune.types import PromptState

P, S, K = 20, 16, 2


@dataclass(frozen=True)
class Bench:
    """One machine's ready run, in a folder that goes with it."""

    workspace: Workspace
    starts: Sequence[PromptState]

    def groups(self, count: int, epochs: int, label: str, seed: int = 0) -> list[Group]:
        """Retrainings that don't depend on each other."""
        return [
            Group(
                work=f"{label}-{n}",
                names=tuple(f"{label}-{n}-{k}" for k in range(K)),
                starts=tuple(self.starts),
                phase="retrain",
                title=label,
                epochs=epochs,
                seeds=(seed + n,) * K,
            )
            for n in range(count)
        ]


def bench(recipe: Recipe, folder: Path) -> Bench:
    run = RunFolder.open(folder, recipe_text="", resolved=recipe.resolved(), kind=recipe.kind, command="benchmark")
    workspace = prepare(recipe, run, Watch(), Executor())
    first = initial_prompt(recipe, workspace.backbone, workspace.task).vectors_PH
    half = full_mask(P, S)
    half.piece_PS[P // 2 :] = False
    half.token_P[P // 2 :] = False
    return Bench(workspace, [masked_state(first, random_mask(half, k)) for k in range(K)])


def noted(folder: Path, workspace: Workspace, group: Group) -> list[Fitted]:
    """`fit`, which leaves the name of its node and the CPU seconds that it took."""
    begun = time.process_time()
    found = fit(workspace, group)
    if not isinstance(workspace.run, RunFolder):
        place = folder / f"{ray.get_runtime_context().get_node_id()} {group.work}"
        place.write_text(str(time.process_time() - begun))
    return found


def bits(found: Mapping[str, Fitted]) -> list[bytes]:
    return [fitted.state.vectors_PH.numpy().tobytes() for fitted in found.values()]


def on_nodes(recipe: Recipe, count: int, groups: int, epochs: int, kill: bool = False) -> tuple[float, list[bytes]]:
    """Seconds of the timed groups on so many nodes, and what they leave."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    for _ in range(count - 1):
        cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    store, done = distribute._store, 0

    def kill_midway(*arguments: Any) -> None:
        nonlocal done
        store(*arguments)
        done += 1
        if done == groups // 2:
            cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
            print(f"  a node killed after {done} of {groups} groups")

    try:
        with tempfile.TemporaryDirectory() as folder:
            made = bench(recipe, Path(folder) / "run")
            workspace = replace(made.workspace, executor=RayCluster(None, retries=3))
            fit_groups(workspace, made.groups(2 * count, 1, "warm"), "warm")
            work = made.groups(groups, epochs, "timed")
            distribute._store = kill_midway if kill else store
            begun = time.perf_counter()
            distribute.finish_on_workers(workspace, partial(noted, Path(folder)), work, "retrain")
            found = fit_groups(workspace, work, "retrain")
            seconds = time.perf_counter() - begun
            left = list(Path(folder).glob("* timed-*"))
            shares = sorted(Counter(path.name.partition(" ")[0] for path in left).values())
            print(f"  groups done on each node: {shares}; CPU: {sum(float(path.read_text()) for path in left):.1f} s")
            workspace.run.close()  # type: ignore[attr-defined]
    finally:
        distribute._store = store
        ray.shutdown()
        cluster.shutdown()
    return seconds, bits(found)


def here(recipe: Recipe, groups: int, epochs: int, seed: int = 0) -> tuple[float, list[bytes]]:
    """The same in this process."""
    with tempfile.TemporaryDirectory() as folder:
        made = bench(recipe, Path(folder) / "run")
        begun = time.perf_counter()
        found = fit_groups(made.workspace, made.groups(groups, epochs, "timed", seed), "retrain")
        made.workspace.run.close()  # type: ignore[attr-defined]
        return time.perf_counter() - begun, bits(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=3.0, help="work on one node")
    parser.add_argument("--groups", type=int, default=24)
    asked = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    keys = ["task.id=demo", "backbone.name=tiny", "backbone.dtype=float32", f"prompt.tokens={P}", f"prompt.pieces={S}"]
    recipe = resolve([*keys, "backbone.threads=1", "tuning.patience=none", f"search.group={K}"])

    torch.set_num_threads(1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    here(recipe, 1, 1)
    each = here(recipe, 1, 4)[0] / 4
    # A tenth more, so that a lucky minute doesn't leave too little.
    epochs = math.ceil(1.1 * asked.minutes * 60 / (asked.groups * each))
    print(f"{asked.groups} groups of {K}, {epochs} epochs each; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")

    one, of_one = on_nodes(recipe, 1, asked.groups, epochs)
    print(f"one node   {one:7.1f} s")
    two, of_two = on_nodes(recipe, 2, asked.groups, epochs)
    print(f"two nodes  {two:7.1f} s   {two / one:.2f} of one node's")
    killed, of_killed = on_nodes(recipe, 2, asked.groups, epochs, kill=True)
    print(f"one killed {killed:7.1f} s   {killed / one:.2f} of one node's")
    process, of_process = here(recipe, asked.groups, epochs)
    print(f"no Ray     {process:7.1f} s   {process / one:.2f} of one node's")
    other = here(recipe, 1, epochs, seed=asked.groups)[1]
    same = of_one == of_two == of_killed == of_process
    print(f"same bits everywhere: {same}; another seed leaves others: {other != of_one[:K]}")
    seconds = {"one": one, "two": two, "killed": killed, "in_process": process}
    print(json.dumps({"seconds": seconds, "two_over_one": two / one, "same_bits": same, "groups": asked.groups}))
    if not same or other == of_one[:K]:
        raise SystemExit("bits differ, or the comparison can't tell")


if __name__ == "__main__":
    main()
