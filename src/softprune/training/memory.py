"""Memory of a GPU, or of this process and its machine; and K, from what a step takes at two values of K."""

from __future__ import annotations

import ctypes
import gc
import math
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from softprune.config import Recipe
from softprune.errors import out_of_memory
from softprune.models.base import Backbone
from softprune.prompts.soft_prompts import full_mask
from softprune.runs.record_parts import MemoryRecord
from softprune.training.optimizers import prompt_optimiser
from softprune.training.scoring import ScoredSet
from softprune.training.trainable import PromptTrainable

# Where nothing can be known of memory.
DEFAULT_GROUP = 8

# Beyond these a candidate gets no cheaper (docs/log.md; the GPU's is a guess: small kernels pay until more rows).
CAP = {"cpu": 16, "cuda": 32}

# Of the free memory. A CPU's step was seen to take up to 1.6 times the bytes of its tensors, and others live there too.
SHARE = {"cpu": 0.5, "cuda": 0.8}

# Limit, use, and in memory.stat the file pages that the kernel gives back when asked; by version of control groups.
_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}
# Of glibc's malloc.h. 32 MB is the most that it takes for the first.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST = 32 << 20
# Linux: 5 written to the first makes the highest resident size the present one (proc(5)).
_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


# --- what there is ---


def keep_freed() -> bool:
    """Have the C library keep the freed bytes of a step, 1 GB at most, for the next one; false where it isn't glibc.

    By default it gives a step's tensors back to the kernel, which clears each page again before the next step has it:
    a tenth of a step of 16 candidates.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST) and mallopt(_TRIM_THRESHOLD, 1 << 30))


def give_back() -> None:
    """Have the C library give back what it kept of freed memory, as far as it is glibc."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def free_bytes(device: torch.device, root: Path = Path("/")) -> int | None:
    """Bytes that a step may take on a device; None for one that is neither a GPU of CUDA nor a CPU.

    On a GPU, what is free there and what torch's allocator holds unused. On a CPU, the smaller of the machine's
    available memory and what the control groups leave of their limits; `root` is that of the file system.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    if device.type != "cpu":
        return None
    return min((int(psutil.virtual_memory().available), *_left_of_groups(root)))


def held_bytes(device: torch.device) -> int:
    """Bytes that this process holds: on a GPU, or resident in memory."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return int(psutil.Process().memory_info().rss)


def next_peak(device: torch.device) -> int | None:
    """The most bytes held at once since the last call: by torch's allocator on GPUs, by this process elsewhere.

    A process's peak takes everything in, libraries and the model too, and whatever it held before. None where the
    system doesn't say, or can't begin again.
    """
    if device.type == "cuda":
        devices = range(torch.cuda.device_count())
        peaks = sum(torch.cuda.max_memory_allocated(each) for each in devices)
        for each in devices:
            torch.cuda.reset_peak_memory_stats(each)
        return int(peaks)
    peak = highest_resident()
    try:
        _CLEAR.write_text("5")
    except OSError:
        return None
    return peak


def highest_resident() -> int | None:
    """The most bytes of memory that this process held; None where the system doesn't say (macOS)."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return getattr(psutil.Process().memory_info(), "peak_wset", None)  # Windows
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


def _left_of_groups(root: Path) -> Iterator[int]:
    """What this process's control groups leave, and all groups above them.

    In a container the path that the kernel names may lie outside of what is mounted; its root is the own group then.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        version, top = (1, root / "sys/fs/cgroup/memory") if controllers else (2, root / "sys/fs/cgroup")
        limit_file, used_file, droppable = _FILES[version]
        own = top / path.lstrip("/")
        for folder in (own, *own.parents):
            limit, used = _read(folder / limit_file).strip(), _read(folder / used_file).strip()
            if limit.isdigit() and used.isdigit():  # else there is no such group, or it has no limit: `max`
                stat = _read(folder / "memory.stat").splitlines()
                cached = [int(line.split()[1]) for line in stat if line.startswith(f"{droppable} ")]
                yield max(0, int(limit) - int(used) + sum(cached))
            if folder == top:
                break


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


# --- what a step takes ---


@dataclass(frozen=True, slots=True)
class StepMemory:
    """Bytes of a training step beside the model: `base + each * K`."""

    base: int
    each: int

    def of(self, count: int) -> int:
        """Of K candidates."""
        return self.base + self.each * count

    def most(self, room: float) -> int:
        """The largest K that fits, at least one: a run of one candidate is tried whatever was measured."""
        return max(1, int((room - self.base) // max(1, self.each)))


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """Training steps as a recipe makes them, to be measured and forgotten; `loss` and `score` as in `Scoring`."""

    recipe: Recipe
    backbone: Backbone
    train: ScoredSet
    loss: str
    score: str

    def step(self, count: int, tokens: int, indices: Sequence[int]) -> None:
        """One step of `count` prompts of `tokens` tokens on some examples."""
        backbone, tuning = self.backbone, self.recipe.tuning
        words = backbone.model.get_input_embeddings().weight.shape[0]
        with torch.no_grad():
            start_PH = backbone.lookup(torch.arange(tokens, device=backbone.device) % words)
        trainable = PromptTrainable(
            backbone,
            start_PH.expand(count, *start_PH.shape),
            [full_mask(tokens, 1)] * count,
            removal=self.recipe.pruning.removal,
            loss=self.loss,
            score=self.score,
        )
        optimiser = prompt_optimiser(tuning, trainable.vectors_KPH, trainable.reading.elements_KPH, lr=0.0)
        size = math.ceil(len(indices) / tuning.accumulate)
        for at in range(0, len(indices), size):
            part = indices[at : at + size]
            trainable.loss(self.train.batch(backbone, part)).sum().backward()
        optimiser.step()

    def typical_step(self, count: int) -> None:
        """One step of `count` prompts on the first examples; where no prompt is trained, their forward pass."""
        indices = range(min(self.recipe.tuning.batch_size, len(self.train)))
        if self.recipe.kind != "adapt":
            self.step(count, self.recipe.prompt.tokens, indices)
            return
        backbone = self.backbone
        nothing_KPH = torch.zeros(1, 0, backbone.info.hidden, dtype=backbone.prompt_dtype, device=backbone.device)
        with torch.no_grad():
            backbone.losses(nothing_KPH, self.train.batch(backbone, indices), self.loss, self.score)

    def longest_part(self) -> list[int]:
        """Examples of the dearest backward pass: the longest inputs, and the one with the most answer tokens."""
        size = math.ceil(min(self.recipe.tuning.batch_size, len(self.train)) / self.recipe.tuning.accumulate)
        words = [sum(map(len, each.answer_ids)) for each in self.train.encoded]
        # Inputs that were cut are all alike: of them, those with the longest texts to be written.
        order = sorted(range(len(self.train)), key=lambda i: (-self.train.lengths[i], -words[i]))
        wordiest = max(order, key=words.__getitem__)
        order.remove(wordiest)
        return [wordiest, *order[: size - 1]]

    def peak(self, count: int) -> int:
        """Bytes that a step of `count` whole prompts on the longest examples takes at once, beside the model."""
        step = partial(self.step, count, self.recipe.prompt.tokens, self.longest_part())
        device = self.backbone.device
        if device.type != "cuda":
            live = LiveBytes(self.backbone.model)
            with live:
                step()
            return live.peak
        step()  # libraries take their workspaces at the first call, and keep them
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device)) - before


class LiveBytes(TorchDispatchMode):
    """Bytes of all storages that operations make and that are still alive, and the most there were at once.

    The weights of `model` don't count. Saved activations alone would miss what a backward pass makes, and a process's
    own size moves with an allocator that keeps what is freed: neither repeats, nor is linear in K.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        own = [*model.parameters(), *model.buffers()]
        # Held, so that no new storage takes the place of one of these.
        self._held = [tensor.untyped_storage() for tensor in own]
        self._known: dict[int, object] = {storage._cdata: None for storage in self._held}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, torch.Tensor):
                self._count(value.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        name, size = storage._cdata, storage.nbytes()
        if name not in self._known:
            self._known[name] = weakref.ref(storage, lambda _: self._forget(name, size))
            self.live += size
            self.peak = max(self.peak, self.live)

    def _forget(self, name: int, size: int) -> None:
        del self._known[name]
        self.live -= size


def together(recipe: Recipe) -> int:
    """The most candidates that a run could train side by side; winner, control and random mask too."""
    search, levels, seeds = recipe.search, recipe.pruning.levels, recipe.selection
    tokens, pieces = len(search.token_ratios), len(search.piece_ratios)
    strategy, rivals = recipe.strategy(), max(3, 2 * seeds.first_seeds + seeds.random_seeds)
    if strategy == "learned":
        return max(len(search.prices), rivals)
    if strategy == "gradual":
        return max(len(search.keep), rivals)
    if levels == "token":
        most = tokens
    elif levels == "piece" or recipe.pruning.removal == "drop":  # equally long: pieces of one token ratio
        most = pieces
    else:
        most = max(tokens, pieces) if strategy == "sequential" else tokens * pieces
    if strategy == "random":
        most = min(most, search.samples)
    return max(most, rivals)


def evenly(candidates: int, most: int) -> int:
    """K for groups of nearly equal size: 9 candidates of which 8 fit train as 5 and 4."""
    return math.ceil(candidates / math.ceil(candidates / most))


def measure_group(rehearsal: Rehearsal) -> tuple[int, MemoryRecord | None]:
    """K for a recipe that names none, and what it was chosen by; None where nothing was measured."""
    if rehearsal.recipe.kind != "xprompt":
        return 1, None
    candidates, device = together(rehearsal.recipe), rehearsal.backbone.device
    free = free_bytes(device)
    if free is None:
        return evenly(candidates, min(candidates, DEFAULT_GROUP)), None
    step = measure_step(rehearsal)
    if step is None:
        return 1, None
    group = evenly(candidates, min(candidates, CAP[device.type], step.most(SHARE[device.type] * free)))
    return group, MemoryRecord(K=group, free=free, base=step.base, each=step.each)


def measure_step(rehearsal: Rehearsal) -> StepMemory | None:
    """The fit through steps at K = 1 and K = 2; None where two candidates don't fit."""
    rehearsal.step(1, 1, rehearsal.longest_part()[:1])  # what is made once and kept is no part of a step
    one = rehearsal.peak(1)
    try:
        two = rehearsal.peak(2)
        return StepMemory(2 * one - two, two - one)  # the line through both, at K = 0 and its slope
    except Exception as error:
        if not out_of_memory(error):
            raise
    # Outside of the `except`, whose error holds the failed step's tensors.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None
