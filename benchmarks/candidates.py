"""What a candidate costs when K of them train side by side, on the bundled models.

    python benchmarks/candidates.py [--rounds 5] [--models tiny,tiny-seq2seq] [--groups 1,2,4,8,16,32] [--lengths 12,50]

Candidates of 20 prompt tokens keep 10 each, different ones: under `drop` the model reads 10, under `zero` 20. Inputs of
12 tokens are like TREC's questions, of 50 like AG News' articles. Batch 16; a step of our own loop, over K. The groups
take turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from ours import BATCH, Ours, random_masks, random_start
from shapes import NAMES, examples, folder_of, input_lengths
from timing import DTYPES, alternate, flags, listed, medians, show, write

from softprune import load_backbone
from softprune.errors import out_of_memory
from softprune.models.base import Backbone
from softprune.models.loading import resolve_device, resolve_dtype
from softprune.types import Encoded

P, KEPT = 20, 10


def measure(backbone: Backbone, which: str, removal: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a candidate's step at each K, up to the largest that a GPU has room for."""
    groups = [int(k) for k in listed(asked.groups)]
    lengths = input_lengths(which, asked.steps * BATCH)
    encoded = examples(lengths, backbone.vocabulary, backbone.family == "sentence").encoded
    start_PH = random_start(backbone, P)
    ours = {k: Ours(backbone, start_PH, random_masks(k, P, KEPT), removal) for k in groups}
    if torch.cuda.is_available():
        groups = [k for k in groups if _has_room(ours[k], encoded)]
    times = alternate({str(k): partial(ours[k].step, encoded) for k in groups}, asked)
    each = {k: found / int(k) for k, found in medians(times).items()}
    cpu = {k: found / int(k) for k, found in medians(times, "cpu").items()}
    first = str(groups[0])
    return {
        "inputs": which,
        "removal": removal,
        "seconds_a_candidate": each,
        "cpu_seconds_a_candidate": cpu,
        "of_one": {k: value / each[first] for k, value in each.items()},
        "of_one_cpu": {k: value / cpu[first] for k, value in cpu.items()},
        "rounds": times,
    }


def _has_room(ours: Ours, encoded: Sequence[Encoded]) -> bool:
    """Whether a step fits a GPU's memory."""
    try:
        ours.step(encoded[:BATCH])
    except Exception as error:
        if not out_of_memory(error):
            raise
        return False
    finally:
        torch.cuda.empty_cache()
    return True


def main(words: Sequence[str] | None = None) -> None:
    """Time every group size in every setting."""
    parser = flags(__doc__, 5)
    parser.add_argument("--models", default="tiny,tiny-seq2seq", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--groups", default="1,2,4,8,16,32", help="candidates side by side")
    parser.add_argument("--lengths", default="12,50", help="input tokens, or mixed")
    parser.add_argument("--removal", default="drop,zero", help="how pruned tokens go")
    parser.add_argument("--dtype", default="auto", choices=("auto", *sorted(DTYPES)))
    parser.add_argument("--steps", type=int, default=4, help="steps of a turn")
    asked = parser.parse_args(words)
    if asked.quick:
        asked.models, asked.groups, asked.lengths, asked.rounds, asked.steps = "toy-t5", "1,2", "5", 1, 1
    if asked.dtype == "auto":
        asked.dtype = str(resolve_dtype("auto", resolve_device("cpu"))).removeprefix("torch.")
    results = []
    for model in listed(asked.models):
        with folder_of(model, DTYPES[asked.dtype]) as folder:
            backbone = load_backbone(folder, dtype=asked.dtype)
            for which in listed(asked.lengths):
                for removal in listed(asked.removal):
                    results.append({"model": model, **measure(backbone, which, removal, asked)})
                    print(f"{model}, {which}, {removal}: done", flush=True)
    columns = ("model", "inputs", "removal", f"s at K = {listed(asked.groups)[0]}")
    of_one = [f"K = {k}" for k in listed(asked.groups)]
    rows = [
        [r["model"], r["inputs"], r["removal"], next(iter(r["seconds_a_candidate"].values())), *r["of_one"].values()]
        for r in results
    ]
    show(f"A candidate's step in {asked.dtype}, of its cost alone", (*columns, *of_one), rows)
    write("candidates", asked, results)


if __name__ == "__main__":
    main()
