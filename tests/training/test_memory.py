"""Memory of a training step, what is free, and the K that follows."""

from __future__ import annotations

import ctypes
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from toys import task_of

from softprune.config import Recipe, resolve
from softprune.models.base import Backbone
from softprune.training import memory
from softprune.training.memory import (
    LiveBytes,
    Rehearsal,
    StepMemory,
    evenly,
    free_bytes,
    give_back,
    keep_freed,
    measure_group,
    measure_step,
    together,
)

pytestmark = pytest.mark.slow

Backbones = Callable[..., Backbone]
CPU = torch.device("cpu")
MEGA = 2**20


def rehearsal(backbone: Backbone, *changes: str) -> Rehearsal:
    recipe = resolve(["prompt.tokens=6", "prompt.pieces=4", "tuning.batch_size=4", *changes])
    return Rehearsal(recipe, backbone, task_of(backbone), backbone.default_loss, "sum")


# --- bytes of a step ---


def test_live_bytes_are_those_alive_at_once() -> None:
    model = torch.nn.Linear(256, 256)
    live = LiveBytes(model)
    with live:
        for _ in range(3):
            made = torch.zeros(MEGA, dtype=torch.uint8)
            _view = made[:10], model.weight.t()
            del made, _view
        kept = [torch.zeros(MEGA, dtype=torch.uint8) for _ in range(4)]
    assert live.peak == live.live == 4 * MEGA
    del kept
    assert live.live == 0


@pytest.mark.parametrize("model", ["sentence", "t5", "llama", "bert"])
def test_memory_is_linear_in_candidates(model: str, backbone_of: Backbones) -> None:
    found = rehearsal(backbone_of(model))
    step = measure_step(found)
    assert step is not None
    peak = found.peak(7)
    assert abs(step.of(7) - peak) <= 0.03 * peak
    assert abs(step.of(6) - peak) > 0.05 * peak, "negative control"


def test_a_step_holds_at_least_what_it_saves_for_its_backward_pass(backbone_of: Backbones) -> None:
    backbone = backbone_of("t5")
    found, weights = rehearsal(backbone), {p.untyped_storage()._cdata for p in backbone.model.parameters()}
    saved: dict[int, torch.UntypedStorage] = {}  # held, so that no address comes twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        found.step(4, 6, found.longest_part())
    lower = sum(storage.nbytes() for name, storage in saved.items() if name not in weights)
    assert lower < found.peak(4) < 4 * lower


def test_parts_of_a_batch_take_less(backbone_of: Backbones) -> None:
    backbone = backbone_of("t5")
    whole, parts = (rehearsal(backbone, f"tuning.accumulate={number}") for number in (1, 4))
    assert (len(whole.longest_part()), len(parts.longest_part())) == (4, 1)
    assert parts.peak(2) < 0.5 * whole.peak(2)
    assert max(backbone_lengths(whole)) == max(whole.train.lengths)


def backbone_lengths(found: Rehearsal) -> list[int]:
    return [found.train.lengths[i] for i in found.longest_part()]


def test_where_two_do_not_fit_one_is_tried(backbone_of: Backbones, monkeypatch: pytest.MonkeyPatch) -> None:
    def peak(_: Rehearsal, count: int) -> int:
        if count > 1:
            raise torch.OutOfMemoryError
        return 10

    monkeypatch.setattr(Rehearsal, "peak", peak)
    assert measure_step(rehearsal(backbone_of("t5"))) is None
    assert measure_group(rehearsal(backbone_of("t5"))) == (1, None)


# --- K ---


@pytest.mark.parametrize(
    ("candidates", "most", "group"), [(9, 16, 9), (9, 8, 5), (9, 4, 3), (81, 16, 14), (3, 1, 1), (3, 2, 2)]
)
def test_groups_are_of_nearly_equal_size(candidates: int, most: int, group: int) -> None:
    assert evenly(candidates, most) == group
    assert (group - 1) * math.ceil(candidates / most) < candidates <= group * math.ceil(candidates / most)


@pytest.mark.parametrize(
    ("changes", "most"),
    [
        (["search.strategy=grid", "pruning.removal=zero"], 81),
        (["search.strategy=grid"], 13),
        (["search.strategy=sequential", "pruning.removal=zero", "search.piece_ratios=0.5"], 13),
        (["search.strategy=random", "pruning.removal=zero", "selection.seeds=3"], 12),
        (["pruning.levels=token", "search.token_ratios=0.1,0.2,0.3,0.4", "selection.seeds=0"], 4),
        (["search.strategy=grid", "search.token_ratios=0.5", "search.piece_ratios=0.5", "selection.seeds=0"], 3),
        (["search.strategy=grid", "search.token_ratios=0.5", "search.piece_ratios=0.5", "selection.seeds=5"], 15),
    ],
)
def test_no_more_than_can_train_together(changes: list[str], most: int) -> None:
    assert together(resolve(changes)) == most


def test_k_is_the_largest_that_fits_a_share(backbone_of: Backbones, monkeypatch: pytest.MonkeyPatch) -> None:
    found = rehearsal(backbone_of("t5"), "search.strategy=grid", "pruning.removal=zero")
    step = measure_step(found)
    assert step is not None

    def with_free(free: int | None) -> int:
        monkeypatch.setattr(memory, "free_bytes", lambda _: free)
        return measure_group(found)[0]

    share = memory.SHARE["cpu"]
    assert with_free(2**40) == 14, "81 candidates in groups of at most 16"
    assert with_free(int(step.of(5) / share) + 2) == 5
    assert with_free(int(step.of(5) / share) - 2) == 4
    assert with_free(1) == 1
    assert with_free(None) == 8
    tuned = Rehearsal(Recipe(kind="tune"), *(getattr(found, name) for name in ("backbone", "train", "loss", "score")))
    assert measure_group(tuned) == (1, None)


def test_room_for_a_step() -> None:
    step = StepMemory(100, 10)
    assert [step.most(room) for room in (0, 119, 120, 155)] == [1, 1, 2, 5]


# --- what is free ---


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


AVAILABLE = 4000 * 1024
V1 = "sys/fs/cgroup/memory/jobs/one"
V2 = "sys/fs/cgroup/jobs/one"
FIRST = {
    "proc/self/cgroup": "5:cpu:/jobs/one\n4:rdma,memory:/jobs/one\n",
    f"{V1}/memory.limit_in_bytes": "3000000\n",
    f"{V1}/memory.usage_in_bytes": "1000000\n",
}
SECOND = {
    "proc/self/cgroup": "0::/jobs/one\n",
    f"{V2}/memory.max": "max\n",
    f"{V2}/memory.current": "900000\n",
    "sys/fs/cgroup/jobs/memory.max": "1500000\n",
    "sys/fs/cgroup/jobs/memory.current": "1000000\n",
}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, AVAILABLE),
        (FIRST, 2_000_000),
        (FIRST | {f"{V1}/memory.limit_in_bytes": "9223372036854771712"}, AVAILABLE),
        (FIRST | {f"{V1}/memory.stat": "cache 7\ntotal_inactive_file 400000\n"}, 2_400_000),
        (SECOND, 500_000),
        (SECOND | {"sys/fs/cgroup/jobs/memory.stat": "inactive_file 100\n"}, 500_100),
        ({"proc/self/cgroup": "0::/elsewhere\n", "sys/fs/cgroup/memory.max": "7\n"}, AVAILABLE),
        (
            {
                "proc/self/cgroup": "0::/elsewhere\n",
                "sys/fs/cgroup/memory.max": "7\n",
                "sys/fs/cgroup/memory.current": "9",
            },
            0,
        ),
    ],
)
def test_the_smaller_of_the_machine_and_its_control_groups(
    files: dict[str, str], free: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=AVAILABLE))
    assert free_bytes(CPU, machine(tmp_path, files)) == free


def test_other_devices_tell_nothing() -> None:
    assert free_bytes(torch.device("meta")) is None


STEPS = """
import resource, sys, torch
from softprune.training.memory import keep_freed
if sys.argv[1] == "kept":
    assert keep_freed()
def step():
    return [torch.ones(5 * 2**20) for _ in range(8)]
step(), step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library isn't glibc")
def test_a_step_takes_the_memory_of_the_one_before() -> None:
    """160 MB a step; the control has the kernel clear pages of 4 KB again."""

    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", STEPS, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("kept") < 100
    assert faults("of its own accord") > 1_000


GIVING = """
import torch
from softprune.training.memory import give_back, held_bytes, keep_freed
keep_freed()
held = [bytearray(2**20) for _ in range(96)]
for block in held:
    block[::4096] = b"x" * 256
del held, block
before = held_bytes(torch.device("cpu"))
give_back()
print(before - held_bytes(torch.device("cpu")))
"""


def test_what_was_kept_can_be_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", GIVING], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 64 * 2**20


def test_another_c_library_keeps_what_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not keep_freed()
    give_back()
