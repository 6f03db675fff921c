"""Peak memory and time of training steps, of one process: the child that memory.py and growth.py start.

    python benchmarks/peaks.py '{"side": "ours", "folder": FOLDER, "dtype": "bfloat16", ...}'

Memory is what the system says of the process: resident bytes after loading, and their peak while steps are made. The
peak's mark is put back after loading where the system allows it (Linux), so that what loading took for a moment isn't
counted. There it is read from /proc: `resource.getrusage` starts a child at the peak of the process that started it.
On a GPU it is what torch's allocator says of tensors there.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from ours import BATCH, Ours, random_masks
from shapes import examples, input_lengths, vocabulary
from timing import DTYPES, Spent

from softprune import load_backbone, load_task
from softprune.config import resolve
from softprune.prompts.initialization import initial_prompt


@dataclass(frozen=True, slots=True)
class Job:
    """What a child does.

    Attributes:
        side: `ours` or `peer`.
        folder: of the saved model.
        dtype: of the weights.
        family: of the model.
        prompt, inputs: tokens.
        candidates: K, of ours.
        steps: in all; those behind the first are timed.
        prepare: find the learning rate and the first prompt too, as ours does before it trains.
    """

    side: str
    folder: str
    dtype: str
    family: str
    prompt: int = 20
    inputs: int = 128
    candidates: int = 1
    steps: int = 3
    prepare: bool = False


def in_child(job: Job) -> dict[str, Any]:
    """What a process of its own finds."""
    words = [sys.executable, str(Path(__file__).resolve()), json.dumps(asdict(job))]
    done = subprocess.run(words, capture_output=True, text=True, env=dict(os.environ))
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\nended with {done.returncode}:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def measure(job: Job) -> dict[str, Any]:
    """Load, make steps, and look at this process's memory: bytes, and seconds of a step."""
    train = _ours(job) if job.side == "ours" else _peer(job)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    reset = _forget_peak()
    loaded = _resident()
    train(1)
    taken = train(job.steps - 1) if job.steps > 1 else None
    peak = _peak()
    return {
        "loaded_bytes": loaded,
        "peak_bytes": peak,
        "steps_bytes": max(0, peak - loaded),
        "loading_forgotten": reset,
        "seconds": taken and taken.wall,
        "cpu_seconds": taken and taken.cpu,
    }


def _ours(job: Job) -> Callable[[int], Spent]:
    backbone = load_backbone(job.folder, dtype=job.dtype)
    masks = random_masks(job.candidates, job.prompt, job.prompt)
    ours = Ours(backbone, _start(job, backbone.info.hidden), masks, "drop")
    encoded = _encoded(job)
    _touch(backbone.model)

    def train(steps: int) -> Spent:
        if job.prepare:
            recipe = resolve([f"prompt.tokens={job.prompt}"])
            recipe.tuning.learning_rate(backbone.embeddings_rms())
            initial_prompt(recipe, backbone, load_task("demo"))
        return ours.step(encoded[: steps * BATCH])

    return train


def _peer(job: Job) -> Callable[[int], Spent]:
    from peers import Peer  # ours must not pay for what it doesn't import

    peer = Peer(job.folder, job.family, DTYPES[job.dtype], _start(job, None))
    encoded = _encoded(job)
    _touch(peer.model)
    return lambda steps: peer.step(encoded[: steps * BATCH], "random")


def _start(job: Job, hidden: int | None) -> torch.Tensor:
    from transformers import AutoConfig

    size = hidden or AutoConfig.from_pretrained(job.folder).hidden_size
    return torch.randn(job.prompt, size, generator=torch.Generator().manual_seed(1)) * 0.02


def _encoded(job: Job) -> Any:
    lengths = input_lengths(str(job.inputs), max(1, job.steps - 1) * BATCH)
    return examples(lengths, vocabulary(job.folder), job.family == "sentence").encoded


def _touch(model: torch.nn.Module) -> None:
    """Read every weight once: files are mapped into memory, and resident only when read."""
    for weight in model.parameters():
        weight.detach().max()


def _resident() -> int:
    """Bytes of this process that are in memory now, or of its tensors on a GPU."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:  # no Linux: the peak so far
        return _peak()


def _peak() -> int:
    """The most bytes of this process that were in memory at once."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    with suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _forget_peak() -> bool:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


if __name__ == "__main__":
    print(json.dumps(measure(Job(**json.loads(sys.argv[1])))))
