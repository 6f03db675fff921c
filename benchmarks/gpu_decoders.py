"""Steps, candidates and memory on a GPU, against peft's PromptTuning under Trainer: one script of some minutes.

    python benchmarks/gpu_decoders.py --out FOLDER [--rounds 5] [--shapes qwen3-0.6b,t5-v1_1-large] [--lengths 32,128]
        [--groups 1,2,4,8,16,32]

Models of released shapes with random weights in bfloat16, random ids, batch 16, 20 prompt tokens: no network, no data.
Each shape and length is measured as `memory`, `single_step` and `candidates` measure it, and with their code: peak
memory of torch's allocator on the GPU, beside the weights and in all; the losses of the first steps of both sides; a
step of each, in turns; a candidate's step at each K that the memory has room for.

`share` is the needed operations a second (flops.py) over the rate of large square products, measured in the same
rounds; `of peak` is over the chip's published rate for dense bfloat16. FOLDER gets a JSON and a Markdown page. Without
a GPU it is skipped; `--quick` runs on a CPU, with toys, only to see that the script works.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import candidates
import peaks
import single_step
import torch
from shapes import NAMES, folder_of
from timing import DTYPES, flags, listed, markdown, show, write

from softprune import load_backbone
from softprune.models import describe

PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}
"""Published operations a second in dense bfloat16 (NVIDIA's data sheets, SXM), by a part of the device's name."""

STEP_COLUMNS = (
    *("shape", "inputs", "loss gaps", "ours, ms", "peer, ms", "peer over ours", "fastest, ms", "over ours"),
    *("share", "fastest's", "of peak", "fastest's"),
)
MEMORY_COLUMNS = ("shape", "inputs", "ours, MB", "peer, MB", "of the peer's", "steps alone, MB", "peer, MB", "of it")


def published_rate() -> float | None:
    """The chip's own rate, where it is known."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((rate for part, rate in PEAKS.items() if part in name), None)


def measure(shape: str, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Everything of a shape: one result a length."""
    results, rate = [], published_rate()
    with folder_of(shape, DTYPES[asked.dtype]) as folder:
        family = describe(folder).family
        # Memory first: later there are models and prompts in it that belong to no step.
        memory = {which: compare_memory(folder, family, int(which), asked) for which in listed(asked.lengths)}
        backbone = load_backbone(folder, dtype=asked.dtype)
        for which, found in memory.items():
            losses = single_step.gaps(folder, backbone, DTYPES[asked.dtype], which, asked.agree)
            step = single_step.measure(folder, backbone, which, asked)
            if rate:
                step["of_peak"] = step["share"] * step["product_flops_a_second"] / rate
                step["peer_of_peak"] = step["peer_share"] * step["product_flops_a_second"] / rate
            print(f"{shape}, {which}: ratio {step['ratio']['median']:.2f}, share {step['share']:.0%}", flush=True)
            group = candidates.measure(backbone, which, "drop", asked)
            print(f"{shape}, {which}: up to K = {list(group['of_one'])[-1]}", flush=True)
            step |= {"shape": shape, "inputs": which, "losses": losses}
            results.append({"shape": shape, "inputs": which, "step": step, "candidates": group, "memory": found})
    return results


def compare_memory(folder: str, family: str, inputs: int, asked: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of both sides' steps, one after the other."""
    found = {
        side: peaks.measure(peaks.Job(side, folder, asked.dtype, family, single_step.P, inputs, steps=3))
        for side in ("ours", "peer")
    }
    keys = ("peak_bytes", "steps_bytes")
    return {**found, "of_peer": {key: found["ours"][key] / max(1, found["peer"][key]) for key in keys}}


def step_row(result: dict[str, Any]) -> list[object]:
    """A line of the table of steps."""
    step = result["step"]
    cells = [1000 * cell if isinstance(cell, float) else cell for cell in single_step.row(step)]  # seconds
    of_peak = [f"{step[key]:.0%}" if key in step else None for key in ("of_peak", "peer_of_peak")]
    return [*cells, *of_peak]


def memory_row(result: dict[str, Any]) -> list[object]:
    """A line of the table of memory."""
    memory = result["memory"]
    cells: list[object] = [result["shape"], result["inputs"]]
    for key in ("peak_bytes", "steps_bytes"):
        cells += [memory["ours"][key] / 1e6, memory["peer"][key] / 1e6, memory["of_peer"][key]]
    return cells


def candidates_row(result: dict[str, Any], groups: Sequence[str]) -> list[object]:
    """A line of the table of candidates; empty where there was no room."""
    found = result["candidates"]
    first = found["seconds_a_candidate"][groups[0]]
    return [result["shape"], result["inputs"], first * 1000, *(found["of_one"].get(k) for k in groups)]


def main(words: Sequence[str] | None = None) -> None:
    """Measure every shape, print the tables and write them."""
    parser = flags(__doc__, 5)
    parser.add_argument("--shapes", default="qwen3-0.6b,t5-v1_1-large", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--lengths", default="32,128", help="input tokens")
    parser.add_argument("--groups", default="1,2,4,8,16,32", help="candidates side by side")
    parser.add_argument("--dtype", default="bfloat16", choices=sorted(DTYPES))
    parser.add_argument("--steps", type=int, default=8, help="steps of a turn")
    parser.add_argument("--agree", type=int, default=8, help="steps whose losses are held together")
    parser.add_argument("--square", type=int, default=8192, help="side of the matrices that give the chip's rate")
    asked = parser.parse_args(words)
    if asked.quick:
        asked.shapes, asked.lengths, asked.groups, asked.rounds = "toy-qwen3,toy-t5", "5", "1,2", 1
        asked.steps, asked.agree, asked.square = 1, 2, 64
    elif not torch.cuda.is_available():
        print("skipped: there is no GPU here")
        return
    results = [result for shape in listed(asked.shapes) for result in measure(shape, asked)]
    groups = listed(asked.groups)
    tables = (
        (f"A step in {asked.dtype}", STEP_COLUMNS, [step_row(result) for result in results]),
        ("Peak memory", MEMORY_COLUMNS, [memory_row(result) for result in results]),
        (
            "A candidate's step, of its cost alone",
            ("shape", "inputs", f"ms at K = {groups[0]}", *(f"K = {k}" for k in groups)),
            [candidates_row(result, groups) for result in results],
        ),
    )
    for table in tables:
        show(*table)
    path = write("gpu_decoders", asked, results, single_step.NOTES)
    path.with_suffix(".md").write_text("\n".join(markdown(*table) for table in tables))


if __name__ == "__main__":
    main()
