"""One training step against peft's PromptTuning under transformers' Trainer, on released shapes with random weights.

    python benchmarks/single_step.py [--rounds 5] [--shapes t5-v1_1-small,gpt2] [--lengths 32,150,mixed]
        [--dtype float32] [--agree 50]

Batch 16, 20 prompt tokens, targets of 2 tokens, Adafactor at a constant rate. A step is the mean over an epoch of our
own loop, or of Trainer's: batching, collating, both passes, the optimiser. Both take turns in one process. First both
train on the same batches from the same start, and their losses are held together: our batches, one behind another, are
what Trainer reads in its sequential order. Printed: the gap of the first step's losses, and the greatest. The first
shape is held so at every length, the others at the first.

The peer is timed in random order and grouped by length, with the attention that transformers chooses and, since that is
slow in bfloat16 on a CPU, with plain attention too.

`share` is the achieved part of this machine's own rate of square matrix products, measured in the same rounds; the
operations are counted from the shape (flops.py): forward, and backward through the activations, real tokens only.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from flops import step_flops
from ours import BATCH, Ours, random_start
from peers import AS_TRANSFORMERS_CHOOSES, VARIANTS, Peer
from shapes import NAMES, examples, folder_of, input_lengths, vocabulary
from timing import DTYPES, Spent, alternate, flags, listed, matmul, medians, ratio, show, spread, write

from softprune import load_backbone
from softprune.models.base import Backbone
from softprune.models.batching import training_batches
from softprune.types import Encoded

P = 20
SHAPES = "t5-v1_1-small,t5-base,gpt2,tiny,tiny-seq2seq"
COLUMNS = ("shape", "inputs", "loss gaps", "ours", "peer", "ratio", "fastest", "ratio", "share", "fastest's")
NOTES = (
    "peer: the faster of random order and grouped by length, attention as transformers chooses it",
    "fastest: the same or with plain attention, whichever is faster",
    "operations counted by hand over real tokens: forward, and backward through activations",
)


def gaps(folder: str, backbone: Backbone, dtype: torch.dtype, which: str, steps: int) -> dict[str, float]:
    """How far the losses of the first steps are apart, relatively: same batches, same start."""
    encoded = made(folder, backbone, which, steps * BATCH)
    start_PH = random_start(backbone, P)
    leading = backbone.leading
    backbone.leading = 0  # type: ignore[misc] # peft puts a prompt before CLS: here, so do we
    found = Ours(backbone, start_PH).epoch(encoded).losses
    backbone.leading = leading  # type: ignore[misc]
    batches = training_batches([len(e.input_ids) for e in encoded], BATCH, 0, 0)
    in_our_order = [encoded[i] for batch in batches for i in batch]
    _, theirs = peer_of(folder, backbone, dtype, start_PH).train(in_our_order, "sequential")
    apart = [abs(a - b) / abs(b) for a, b in zip(found, theirs, strict=True)]
    return {
        "steps": steps,
        "first": apart[0],
        "median": statistics.median(apart),
        "greatest": max(apart),
        "first_loss": found[0],
        "last_loss": found[-1],
    }


def made(folder: str, backbone: Backbone, which: str, count: int) -> tuple[Encoded, ...]:
    """Random examples for a backbone."""
    return examples(input_lengths(which, count), vocabulary(folder), backbone.family == "sentence").encoded


def peer_of(folder: str, backbone: Backbone, dtype: torch.dtype, start_PH: torch.Tensor) -> Peer:
    """The peer on the same model."""
    return Peer(folder, backbone.family, dtype, start_PH, getattr(backbone, "head", None))


def measure(folder: str, backbone: Backbone, which: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step of each, the ratio to the faster peer, and the share of the machine's rate."""
    dtype = DTYPES[asked.dtype]
    steps = asked.steps * (2 if which == "mixed" else 1)
    encoded = made(folder, backbone, which, steps * BATCH)
    start_PH = random_start(backbone, P)
    left, right = Ours(backbone, start_PH), peer_of(folder, backbone, dtype, start_PH)
    # Where all inputs are equally long, sampling by length is random order.
    peers = {name: how for name, how in VARIANTS.items() if which == "mixed" or how[0] == "random"}
    runs: dict[str, Callable[[], Spent]] = {
        "softprune": partial(left.step, encoded),
        **{name: partial(right.step, encoded, *how) for name, how in peers.items()},
        "product": matmul(dtype, asked.square),
    }
    times = alternate(runs, asked)
    found, cpu = medians(times), medians(times, "cpu")
    faster = min((name for name in AS_TRANSFORMERS_CHOOSES if name in peers), key=lambda name: found[name])
    fastest = min(peers, key=lambda name: found[name])
    rate = 2 * asked.square**3 / found["product"]
    needed = step_flops(backbone.model.config, backbone.family, [len(e.input_ids) for e in encoded], P) / steps
    return {
        "seconds": found,
        "cpu_seconds": cpu,
        "faster_peer": faster,
        "fastest_peer": fastest,
        "ratio": ratio(times, faster, "softprune"),
        "ratio_to_fastest": ratio(times, fastest, "softprune"),
        "flops_a_step": needed,
        "product_flops_a_second": rate,
        "share": needed / found["softprune"] / rate,
        "cpu_share": needed / cpu["softprune"] / (2 * asked.square**3 / cpu["product"]),
        "peer_share": needed / found[fastest] / rate,
        "rounds": times,
    }


def row(result: dict[str, Any]) -> list[object]:
    """A line of the table."""
    agree, found = result["losses"], result["seconds"]
    return [
        result["shape"],
        result["inputs"],
        agree and f"{agree['first']:.0e}, {agree['greatest']:.0e}",
        found["softprune"],
        found[result["faster_peer"]],
        spread(result["ratio"]),
        found[result["fastest_peer"]],
        spread(result["ratio_to_fastest"]),
        f"{result['share']:.0%}",
        f"{result['peer_share']:.0%}",
    ]


def main(words: Sequence[str] | None = None) -> None:
    """Compare losses, then times, of every shape and length."""
    parser = flags(__doc__, 5)
    parser.add_argument("--shapes", default=SHAPES, help=f"of {', '.join(NAMES)}")
    parser.add_argument("--lengths", default="32,150,mixed", help="input tokens; mixed: like news, 8 to 200")
    parser.add_argument("--dtype", default="bfloat16", choices=sorted(DTYPES))
    parser.add_argument("--steps", type=int, default=4, help="steps of a turn, twice as many of mixed lengths")
    parser.add_argument("--agree", type=int, default=50, help="steps whose losses are held together; 0 for none")
    parser.add_argument("--square", type=int, default=4096, help="side of the matrices that give the machine's rate")
    asked = parser.parse_args(words)
    if asked.quick:
        asked.shapes, asked.lengths, asked.rounds = "toy-t5", "5,mixed", 1
        asked.steps, asked.agree, asked.square = 1, 3, 64
    results = []
    shapes, lengths = listed(asked.shapes), listed(asked.lengths)
    for shape in shapes:
        with folder_of(shape, DTYPES[asked.dtype]) as folder:
            backbone = load_backbone(folder, dtype=asked.dtype)
            for which in lengths:
                held = bool(asked.agree) and (shape == shapes[0] or which == lengths[0])
                agree = gaps(folder, backbone, DTYPES[asked.dtype], which, asked.agree) if held else None
                found = measure(folder, backbone, which, asked)
                results.append({"shape": shape, "inputs": which, "losses": agree, **found})
                print(f"{shape}, {which}: ratio {found['ratio']['median']:.2f}, share {found['share']:.0%}", flush=True)
    show(f"A step in {asked.dtype}, seconds, and peer over ours", COLUMNS, [row(result) for result in results])
    write("single_step", asked, results, NOTES)


if __name__ == "__main__":
    main()
