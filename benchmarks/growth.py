"""How our step's time and memory grow with prompt tokens, input tokens and candidates, each in processes of its own.

    python benchmarks/growth.py [--rounds 3] [--shape tiny-seq2seq] [--prompts 5,20,50,100]
        [--inputs 16,32,64,128,256] [--groups 1,2,4,8,16,32]

One of the three changes at a time; the others stay at 20, 32 and 1. Batch 16. `steps` is peak memory less what is
resident after loading. `of first`: seconds over those of the line's first point, beside the same for its size.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from peaks import Job, in_child, measure
from shapes import NAMES, folder_of
from timing import DTYPES, flags, listed, show, write

from softprune.models import describe

COLUMNS = ("changing", "to", "size of first", "seconds", "of first", "steps, MB", "of first")


def main(words: Sequence[str] | None = None) -> None:
    """Measure every point."""
    parser = flags(__doc__, 3)
    parser.add_argument("--shape", default="tiny-seq2seq", choices=NAMES)
    parser.add_argument("--dtype", default="bfloat16", choices=sorted(DTYPES))
    parser.add_argument("--prompts", default="5,20,50,100", help="prompt tokens")
    parser.add_argument("--inputs", default="16,32,64,128,256", help="input tokens")
    parser.add_argument("--groups", default="1,2,4,8,16,32", help="candidates")
    parser.add_argument("--steps", type=int, default=4, help="steps of a process; all but the first are timed")
    asked = parser.parse_args(words)
    if asked.quick:
        asked.shape, asked.prompts, asked.inputs, asked.groups, asked.rounds = "toy-t5", "2,4", "5", "1,2", 1
    lines = {"prompt": asked.prompts, "inputs": asked.inputs, "candidates": asked.groups}
    usual = {"prompt": 20, "inputs": 32, "candidates": 1}
    results: list[dict[str, Any]] = []
    with folder_of(asked.shape, DTYPES[asked.dtype]) as folder:
        family = describe(folder).family
        for changing, values in lines.items():
            first: dict[str, Any] | None = None
            for value in map(int, listed(values)):
                sizes = {**usual, changing: value}
                job = Job("ours", folder, asked.dtype, family, steps=2 if asked.quick else asked.steps, **sizes)
                # A toy's memory means nothing, so its processes are saved.
                found = [(measure if asked.quick else in_child)(job) for _ in range(asked.rounds)]
                keys = ("seconds", "cpu_seconds", "steps_bytes", "peak_bytes")
                point: dict[str, Any] = {key: statistics.median(child[key] for child in found) for key in keys}
                first = first or {**point, "size": value}
                point |= {"changing": changing, "to": value, "processes": found, "size_of_first": value / first["size"]}
                for key in ("seconds", "steps_bytes"):
                    point[f"{key}_of_first"] = point[key] / max(1e-9, first[key])
                results.append(point)
                print(f"{changing} {value}: {point['seconds']:.3f} s", flush=True)
    rows = [
        [
            *(p["changing"], p["to"], p["size_of_first"], p["seconds"], p["seconds_of_first"]),
            *(p["steps_bytes"] / 1e6, p["steps_bytes_of_first"]),
        ]
        for p in results
    ]
    show(f"Our step on {asked.shape} in {asked.dtype}", COLUMNS, rows)
    write("growth", asked, results)


if __name__ == "__main__":
    main()
