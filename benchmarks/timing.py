"""What every benchmark shares: flags, alternating rounds, medians, the table, and the JSON with the machine's facts."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("softprune", "torch", "transformers", "peft", "accelerate", "tokenizers", "numpy")
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


class Spent(NamedTuple):
    """What a piece of work took: wall time, and this process's time on all cores, which other programs slow less."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Spent:
        """Both clocks, once a GPU has done what it was asked."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return cls(time.perf_counter(), time.process_time())

    def since(self, begun: Spent, parts: int = 1) -> Spent:
        """The time between two readings, over a number of parts."""
        return Spent((self.wall - begun.wall) / parts, (self.cpu - begun.cpu) / parts)


Times = dict[str, list[Spent]]
"""What each contestant took, one figure a round."""


def flags(doc: str | None, rounds: int) -> argparse.ArgumentParser:
    """A parser with the flags that every script has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"alternating rounds (default {rounds})")
    parser.add_argument("--quick", action="store_true", help="toy sizes: only to see that the script runs")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the JSON")
    return parser


def listed(text: str) -> list[str]:
    """A flag's value with commas in it."""
    return [part.strip() for part in text.split(",") if part.strip()]


def alternate(runs: Mapping[str, Callable[[], Spent]], asked: argparse.Namespace) -> Times:
    """Let contestants take turns: one unmeasured turn each (of no toy), then the asked number of measured ones.

    What else the machine does then falls on all of them alike. Each tells what it took.
    """
    for run in runs.values() if not asked.quick else ():
        run()
    times: Times = {name: [] for name in runs}
    for _ in range(asked.rounds):
        for name, run in runs.items():
            times[name].append(run())
    return times


def medians(times: Times, clock: str = "wall") -> dict[str, float]:
    """Seconds of each contestant."""
    return {name: statistics.median(getattr(spent, clock) for spent in found) for name, found in times.items()}


def ratio(times: Times, above: str, below: str) -> dict[str, float]:
    """The ratio of two contestants, round by round: median, least and greatest of wall time, median of CPU time."""
    pairs = list(zip(times[above], times[below], strict=True))
    found = [a.wall / b.wall for a, b in pairs]
    cpu = statistics.median(a.cpu / b.cpu for a, b in pairs)
    return {"median": statistics.median(found), "least": min(found), "greatest": max(found), "cpu_median": cpu}


def spread(ratio: Mapping[str, float]) -> str:
    """A ratio as a table shows it."""
    return f"{ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['greatest']:.2f})"


def spent(run: Callable[[], object], parts: int = 1) -> Spent:
    """What a call took."""
    begun = Spent.now()
    run()
    return Spent.now().since(begun, parts)


def matmul(dtype: torch.dtype, size: int) -> Callable[[], Spent]:
    """A contestant: a product of two square matrices, mean of three, in this process's threads."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    left, right = (torch.randn(size, size).to(device, dtype) for _ in range(2))
    return lambda: spent(lambda: [left @ right for _ in range(3)], parts=3)


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; numbers with three significant figures."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*(_figure(cell) for cell in row))
    Console(width=150).print(table)


def markdown(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """The same table for a page."""
    lines = [columns, ["---"] * len(columns), *([_figure(cell) for cell in row] for row in rows)]
    return "\n".join([f"## {title}", "", *(f"| {' | '.join(line)} |" for line in lines), ""])


def write(
    name: str, asked: argparse.Namespace, results: Sequence[Mapping[str, Any]], notes: Sequence[str] = ()
) -> Path:
    """Write benchmarks/results/NAME.json and say where it is."""
    settings = {k: v for k, v in vars(asked).items() if k not in ("out", "quick") and not isinstance(v, Path)}
    document = {
        "schema": 1,
        "name": name,
        "command": " ".join([f"benchmarks/{name}.py", *sys.argv[1:]]) if sys.argv[0].endswith(f"{name}.py") else None,
        "quick": asked.quick,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        "settings": settings,
        "notes": list(notes),
        "results": list(results),
    }
    asked.out.mkdir(parents=True, exist_ok=True)
    path: Path = asked.out / f"{name}.json"
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    for note in notes:
        print(f"- {note}")
    print(f"written: {path}")
    return path


def machine() -> dict[str, Any]:
    """What the figures were measured on, and how busy it was."""
    return {
        "processor": _processor(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_average": list(os.getloadavg()),
        "bfloat16": {
            "avx512": torch.cpu._is_avx512_bf16_supported(),
            "amx": torch.cpu._is_amx_tile_supported(),
        },
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def versions() -> dict[str, str]:
    """Of Python and of the packages that the figures hang on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a source tree
            continue
    return found


def commit() -> str | None:
    """The commit that was measured, with a plus where the tree has changed since; None outside of git."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "src", "benchmarks/*.py") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _figure(cell: object) -> str:
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.3g}"
    return "" if cell is None else f"{cell:,}" if isinstance(cell, int) else str(cell)
