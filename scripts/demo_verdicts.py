"""Run the demo on several seeds, number formats, threads and CPU capabilities, and compare the verdicts.

    python scripts/demo_verdicts.py runs/verdicts                    # seeds 0 to 4 x 2 dtypes x 2 thread counts
    python scripts/demo_verdicts.py runs/verdicts --dtypes float32   # some of them; later calls add others
    python scripts/demo_verdicts.py runs/verdicts --table            # only the table of what is there

Where a processor has no bfloat16 instructions, a run in bfloat16 takes ten times as long. There `rounded` takes its
place: float32, with the results of products, norms, softmax and GELU, forwards and backwards, rounded to bfloat16.

Complete runs are kept, interrupted ones resumed. The table of all complete runs is printed and written to verdicts.md
in the folder. Exit code 1 where fewer than 90% of the verdicts agree, or two contradict each other.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

INSTRUCTION_SETS = {"default": "SSE41", "avx2": "AVX2", "avx512": "AVX512_CORE"}
"""ATEN_CPU_CAPABILITY, from the least to the most, and the ONEDNN_MAX_CPU_ISA that goes with it."""
CONTRADICTING = {"ship the ticket", "ship the whole prompt"}
EQUAL = 0.9
ROUNDED = "rounded"
"""Replaces bfloat16 where the processor has none."""
OPERATIONS = (
    *("mm", "addmm", "addmm_", "bmm", "baddbmm", "gelu", "gelu_backward", "_softmax", "_softmax_backward_data"),
    *("native_layer_norm", "native_layer_norm_backward"),
)
"""Those of torch whose results `rounded` rounds; not the optimiser's, which are float32 in a bfloat16 run too."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What one demo run varies."""

    seed: int
    dtype: str
    threads: int
    capability: str

    @property
    def name(self) -> str:
        """The name of its run folder."""
        return f"seed{self.seed}-{self.dtype}-threads{self.threads}-{self.capability}"

    @classmethod
    def parse(cls, name: str) -> Setting | None:
        """The setting of a run folder; None for any other name."""
        found = re.fullmatch(r"seed(\d+)-(\w+)-threads(\d+)-(\w+)", name)
        return found and cls(int(found[1]), found[2], int(found[3]), found[4])

    def run(self, root: Path) -> None:
        """Run the demo, or resume it; a complete run returns at once."""
        dtype = "float32" if self.dtype == ROUNDED else self.dtype
        settings = [f"seed={self.seed}", f"backbone.dtype={dtype}", f"backbone.threads={self.threads}"]
        program = [__file__, ROUNDED] if self.dtype == ROUNDED else ["-m", "softprune"]
        command = [sys.executable, *program, "run", "demo", *settings, "--out", str(root / self.name)]
        isa = {"ATEN_CPU_CAPABILITY": self.capability, "ONEDNN_MAX_CPU_ISA": INSTRUCTION_SETS[self.capability]}
        subprocess.run(command, env=os.environ | isa, check=True)


def run_rounded(arguments: list[str]) -> None:
    """The softprune command line, with every result of some operations rounded to bfloat16."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from softprune.cli import main as softprune
    from softprune.models.load_check import TOLERANCE

    TOLERANCE[torch.float32] = TOLERANCE[torch.bfloat16]  # the model is read as roughly as in bfloat16

    def rounded(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
            return value.copy_(value.bfloat16())
        return value

    class Rounding(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = func(*args, **(kwargs or {}))
            if func.overloadpacket.__name__ not in OPERATIONS:
                return found
            return tuple(map(rounded, found)) if isinstance(found, tuple) else rounded(found)

    sys.argv = ["softprune", *arguments]
    with Rounding():  # type: ignore[no-untyped-call]
        softprune()


def supported() -> list[str]:
    """The capabilities of this machine's processor, from the least to the most."""
    import torch

    names = list(INSTRUCTION_SETS)
    best = torch.backends.cpu.get_cpu_capability().lower()
    return names[: names.index(best) + 1] if best in names else []


def settings_of(seeds: list[int], dtypes: list[str], threads: list[int], capabilities: list[str]) -> list[Setting]:
    """Every seed with every dtype and thread count; capabilities take turns, so that each seed meets several."""
    pairs = list(product(dtypes, threads))
    return [
        Setting(seed, *pair, capabilities[(seed + at) % len(capabilities)])
        for at, pair in enumerate(pairs)
        for seed in seeds
    ]


def complete_runs(root: Path) -> list[tuple[Setting, dict[str, Any]]]:
    """The complete runs of a folder, with their settings."""
    found = []
    for file in sorted(root.glob("*/run.json")):
        setting = Setting.parse(file.parent.name)
        run = json.loads(file.read_text(encoding="utf-8"))
        if setting is not None and run["status"] == "complete":
            found.append((setting, run))
    return found


def table(runs: list[tuple[Setting, dict[str, Any]]]) -> str:
    """Markdown: one row per run."""
    lines = [
        "| seed | dtype | threads | capability | verdict | winner minus control (95%) | seeds | pruned | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for setting, run in runs:
        value, low, high = (f"{100 * run['headline'][name]:+.1f}" for name in ("value", "low", "high"))
        cells = (
            setting.seed,
            setting.dtype,
            setting.threads,
            setting.capability,
            run["verdict"]["decision"],
            f"{value} ({low} to {high})",
            run["headline"]["seeds"],
            f"{1 - run['ticket']['share_of_parameters']:.0%}",
            f"{run['cost']['seconds']:.0f}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def agreement(decisions: list[str]) -> tuple[bool, str]:
    """Whether the verdicts hold, and the count of each in words."""
    counts = Counter(decisions).most_common()
    words = ", ".join(f"{decision}: {count}" for decision, count in counts)
    holds = counts[0][1] >= EQUAL * len(decisions) and not set(decisions) >= CONTRADICTING
    return holds, f"{len(decisions)} runs: {words}. The verdict {'holds' if holds else 'does not hold'}."


def main(arguments: list[str]) -> int:
    """Run what isn't there yet, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], help=f"{ROUNDED} instead of bfloat16")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--table", action="store_true", help="run nothing")
    asked = parser.parse_args(arguments)
    if not asked.table:
        capabilities = supported()
        if not capabilities:
            parser.error("this processor has none of the capabilities " + ", ".join(INSTRUCTION_SETS))
        absent = [name for name in INSTRUCTION_SETS if name not in capabilities]
        print(f"capabilities varied: {', '.join(capabilities)}; not on this processor: {', '.join(absent) or 'none'}")
        for setting in settings_of(asked.seeds, asked.dtypes, asked.threads, capabilities):
            setting.run(asked.root)
    runs = complete_runs(asked.root)
    if not runs:
        print(f"no complete demo run in {asked.root}", file=sys.stderr)
        return 1
    holds, words = agreement([run["verdict"]["decision"] for _, run in runs])
    text = f"{table(runs)}\n\n{words}\n"
    (asked.root / "verdicts.md").write_text(text, encoding="utf-8")
    print(text, end="")
    return 0 if holds else 1


if __name__ == "__main__":
    if sys.argv[1:2] == [ROUNDED]:
        run_rounded(sys.argv[2:])
        raise SystemExit
    raise SystemExit(main(sys.argv[1:]))
