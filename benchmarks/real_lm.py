"""A real pretrained language model: a training step against peft and Trainer, candidates side by side, memory of both.

    python benchmarks/real_lm.py --backbone FOLDER [--part step] [--rounds 3] [--lengths 32,128] [--groups 1,2,4,8]
    SOFTPRUNE_DATA=DATA python benchmarks/real_lm.py --backbone FOLDER --part study [--tasks trec,ag_news]

FOLDER is what `load_backbone` reads; without it there is nothing to do, and it says so. Part `step`: batch 16, 20
prompt tokens, random inputs of each length, two answers of two tokens, and a likelihood of the right one, as
`single_step` has them. The peer, with the attention that transformers chooses, and ours take turns. Then whole prompts
train side by side at the first length, K taking turns too. Last come the peaks of memory, each of a process of its own:
the whole process, with the weights, and what steps added to it. Cores are often shared, so look at CPU seconds.

Part `study`: what prompts give it on real tasks; see `real_lm_study`. It needs SOFTPRUNE_DATA, and hours on two cores.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from ours import BATCH, Ours, random_masks, random_start
from peaks import Job, in_child
from peaks import measure as in_this_process
from real_lm_study import add_flags, show_study, study
from shapes import examples, folder_of, input_lengths, vocabulary
from single_step import peer_of
from timing import DTYPES, Spent, alternate, flags, listed, medians, ratio, show, write

from softprune import load_backbone
from softprune.models.base import Backbone
from softprune.types import Encoded

Results = list[dict[str, Any]]


def step(asked: argparse.Namespace) -> Results:
    """A step at every length, of K candidates, and memory."""
    lengths = listed(asked.lengths)
    backbone = load_backbone(asked.backbone, dtype=asked.dtype)
    results = [against_peer(backbone, which, asked) for which in lengths]
    results.append(side_by_side(backbone, lengths[0], asked))
    family = backbone.family
    del backbone  # children need the room
    return [*results, *(memory(family, int(which), asked) for which in lengths)]


def inputs(asked: argparse.Namespace, family: str, which: str) -> tuple[Encoded, ...]:
    """Random examples of a turn."""
    return examples(input_lengths(which, asked.steps * BATCH), vocabulary(asked.backbone), family == "sentence").encoded


def against_peer(backbone: Backbone, which: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step of each side, and the losses of their first one."""
    encoded, start_PH = inputs(asked, backbone.family, which), random_start(backbone, asked.prompt)
    peer = peer_of(asked.backbone, backbone, DTYPES[asked.dtype], start_PH)
    first = encoded[:BATCH]
    losses = [Ours(backbone, start_PH).epoch(first).losses[0], peer.train(first, "sequential")[1][0]]
    peer.prompt.data.copy_(start_PH)
    times = alternate(
        {"softprune": partial(Ours(backbone, start_PH).step, encoded), "peft": partial(peer.step, encoded, "random")},
        asked,
    )
    found = ratio(times, "peft", "softprune")
    print(f"{which} tokens: {found['cpu_median']:.2f} times as much CPU time, losses {losses}", flush=True)
    return {
        "part": "step",
        "inputs": which,
        "first_losses": losses,
        "loss_gap": abs(losses[0] - losses[1]) / abs(losses[1]),
        "seconds": medians(times),
        "cpu_seconds": medians(times, "cpu"),
        "ratio": found,
        "rounds": times,
    }


def side_by_side(backbone: Backbone, which: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a candidate's step at each K, whole prompts."""
    encoded, start_PH = inputs(asked, backbone.family, which), random_start(backbone, asked.prompt)
    groups = [int(k) for k in listed(asked.groups)]
    runs: dict[str, Callable[[], Spent]] = {
        str(k): partial(Ours(backbone, start_PH, random_masks(k, asked.prompt, asked.prompt)).step, encoded)
        for k in groups
    }
    times = alternate(runs, asked)
    each = {k: cpu / int(k) for k, cpu in medians(times, "cpu").items()}
    of_one = {k: cpu / each[str(groups[0])] for k, cpu in each.items()}
    print(f"a candidate's CPU time of that at K = {groups[0]}: {of_one}", flush=True)
    return {"part": "candidates", "inputs": which, "cpu_seconds_a_candidate": each, "of_one": of_one, "rounds": times}


def memory(family: str, inputs: int, asked: argparse.Namespace) -> dict[str, Any]:
    """Peaks of both sides, at K = 1."""
    found = {}
    for name, side in (("softprune", "ours"), ("peft", "peer")):
        job = Job(side, asked.backbone, asked.dtype, family, asked.prompt, inputs, steps=2)
        found[name] = (in_this_process if asked.quick else in_child)(job)
    ours, peer = found["softprune"], found["peft"]
    of_peer = {key: ours[key] / max(1, peer[key]) for key in ("peak_bytes", "steps_bytes")}
    print(f"{inputs} tokens: memory of the peer's {of_peer}", flush=True)
    return {"part": "memory", "inputs": str(inputs), "of_peer": of_peer, "processes": found}


def show_steps(asked: argparse.Namespace, results: Results) -> None:
    """The three tables of part `step`."""
    by_part = {part: [r for r in results if r["part"] == part] for part in ("step", "candidates", "memory")}
    rows = [
        [
            r["inputs"],
            f"{r['loss_gap']:.0e}",
            *r["cpu_seconds"].values(),
            r["ratio"]["cpu_median"],
            r["ratio"]["median"],
        ]
        for r in by_part["step"]
    ]
    columns = ("inputs", "loss gap", "ours, CPU s", "peer, CPU s", "ratio", "ratio of wall time")
    show(f"A step in {asked.dtype}", columns, rows)
    for result in by_part["candidates"]:
        columns = ("K", "CPU s a candidate", "of one alone")
        each, of_one = result["cpu_seconds_a_candidate"], result["of_one"]
        show(f"Candidates, {result['inputs']} tokens", columns, [[k, each[k], of_one[k]] for k in each])
    rows = []
    for result in by_part["memory"]:
        for key, name in (("peak_bytes", "whole process"), ("steps_bytes", "without weights")):
            both = [result["processes"][side][key] / 1e6 for side in ("softprune", "peft")]
            rows.append([result["inputs"], name, *both, result["of_peer"][key]])
    show("Peak memory, MB", ("inputs", "", "ours", "peer", "of the peer's"), rows)


PARTS: dict[str, tuple[Callable[[argparse.Namespace], Results], Callable[[argparse.Namespace, Results], None]]] = {
    "step": (step, show_steps),
    "study": (study, show_study),
}
"""What each part measures, and how it is shown."""


@contextmanager
def toy(asked: argparse.Namespace) -> Iterator[None]:
    """Under --quick, a model of toy size in place of a real one."""
    if not asked.quick:
        yield
        return
    asked.lengths, asked.groups, asked.rounds = "5", "1,2", 1
    with folder_of("toy-gpt2", DTYPES[asked.dtype]) as asked.backbone:
        yield


def main(words: Sequence[str] | None = None) -> None:
    """Measure a part, show its tables and write its results."""
    parser = flags(__doc__, 3)
    parser.add_argument("--backbone", help="folder of the model")
    parser.add_argument("--part", default="step", choices=sorted(PARTS))
    parser.add_argument("--lengths", default="32,128", help="input tokens")
    parser.add_argument("--groups", default="1,2,4,8", help="candidates side by side, at the first length")
    parser.add_argument("--prompt", type=int, default=20, help="prompt tokens")
    parser.add_argument("--steps", type=int, default=1, help="steps of a turn")
    parser.add_argument("--dtype", default="float32", choices=sorted(DTYPES))
    add_flags(parser)
    asked = parser.parse_args(words)
    if not asked.backbone and not asked.quick:
        print("skipped: --backbone names no folder of a real model")
        return
    if asked.part == "study" and not asked.quick and not os.environ.get("SOFTPRUNE_DATA"):
        print("skipped: SOFTPRUNE_DATA names no folder with the real data")
        return
    measure, present = PARTS[asked.part]
    with toy(asked):
        results = measure(asked)
    present(asked, results)
    write("real_lm", asked, results)


if __name__ == "__main__":
    main()
