"""Peak memory of training steps against peft's PromptTuning under Trainer, each in processes of its own.

    python benchmarks/memory.py [--rounds 3] [--shape bloom] [--inputs 128]

A BLOOM shape with random weights: H 1,024, 4 layers, 16 heads, 250,880 words; batch 16, inputs of 128 tokens, 20 prompt
tokens, targets of 2. Without weights is the peak less what is resident after loading; the whole process is the peak.
`prepared` also finds our learning rate and first prompt, which read all embeddings, before it trains. A round is a
process a side; medians.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from peaks import Job, in_child, measure
from shapes import NAMES, folder_of
from timing import DTYPES, flags, show, write

from softprune.models import describe

SIDES = {"softprune": ("ours", False), "softprune, prepared": ("ours", True), "peft": ("peer", False)}


def main(words: Sequence[str] | None = None) -> None:
    """Start the processes and compare their peaks."""
    parser = flags(__doc__, 3)
    parser.add_argument("--shape", default="bloom", choices=NAMES)
    parser.add_argument("--dtype", default="bfloat16", choices=sorted(DTYPES))
    parser.add_argument("--inputs", type=int, default=128, help="input tokens")
    parser.add_argument("--prompt", type=int, default=20, help="prompt tokens")
    parser.add_argument("--steps", type=int, default=3)
    asked = parser.parse_args(words)
    if asked.quick:
        asked.shape, asked.inputs, asked.rounds, asked.steps = "toy-bloom", 5, 1, 2
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in SIDES}
    with folder_of(asked.shape, DTYPES[asked.dtype]) as folder:
        family = describe(folder).family
        for _ in range(asked.rounds):
            for name, (side, prepare) in SIDES.items():
                job = Job(side, folder, asked.dtype, family, asked.prompt, asked.inputs, 1, asked.steps, prepare)
                # A toy's memory means nothing, so its processes are saved.
                found[name].append((measure if asked.quick else in_child)(job))
    parts = {"without weights": "steps_bytes", "whole process": "peak_bytes", "loaded": "loaded_bytes"}
    medians = {
        name: {part: statistics.median(child[key] for child in children) for part, key in parts.items()}
        for name, children in found.items()
    }
    over = {
        name: {part: found[part] / max(1, medians["peft"][part]) for part in parts} for name, found in medians.items()
    }
    rows = [
        [name, *(cell for part in parts for cell in (medians[name][part] / 1e6, over[name][part]))] for name in SIDES
    ]
    columns = ("MB", *(cell for part in parts for cell in (part, "of the peer's")))
    show(f"Peak memory, {asked.shape} in {asked.dtype}", columns, rows)
    results = [
        {"side": name, "median_bytes": medians[name], "over_peer": over[name], "processes": found[name]}
        for name in SIDES
    ]
    kept = all(child["loading_forgotten"] for children in found.values() for child in children)
    notes = [] if kept else ["this system can't forget the peak of loading: the peaks may be loading's"]
    write("memory", asked, results, notes)


if __name__ == "__main__":
    main()
