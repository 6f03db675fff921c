"""Costs: memory by phase, seconds of an epoch, latency; held to what is known beforehand."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
import torch
from toys import task_of

from softprune.models.base import Backbone
from softprune.runs.record_parts import TrainingCost
from softprune.runs.run_folder import RunFolder
from softprune.training import cost, memory
from softprune.training.cost import Way, behind_prompt, latency, record_totals
from softprune.training.memory import next_peak
from softprune.types import Batch

MIB = 2**20


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    with RunFolder.open(tmp_path / "run", recipe_text="", resolved={"seed": 3}, kind="tune", command="") as run:
        yield run


def filled(size: int) -> mmap.mmap:
    """Memory that is really there, every page written to; from the system, since malloc may have some left over."""
    held = mmap.mmap(-1, size)
    for page in range(0, size, mmap.PAGESIZE):
        held[page] = 1
    return held


def test_a_peak_tells_of_what_was_held_since_the_last_one() -> None:
    cpu = torch.device("cpu")
    if sys.platform != "linux":  # nowhere else can a process's peak begin again
        assert next_peak(cpu) is None
        return
    next_peak(cpu)
    before = next_peak(cpu)
    held = filled(96 * MIB)
    size = len(held)
    held.close()  # the peak remembers
    with_it, after = next_peak(cpu), next_peak(cpu)
    assert before is not None
    assert with_it is not None
    assert after is not None
    assert with_it - before > 0.8 * size
    assert after < with_it - 0.8 * size


def test_where_peaks_can_not_begin_anew_none_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "no" / "such" / "file")
    assert next_peak(torch.device("cpu")) is None


def test_a_gpus_allocator_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks, resets = {0: 100, 1: 20}, []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peaks[device])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", resets.append)
    assert next_peak(torch.device("cuda")) == 120
    assert resets == [0, 1]


def test_phases_have_their_own_peaks_and_keep_the_highest(run: RunFolder) -> None:
    peaks = iter([1, 50, 70, 30, 2, 40])
    run.read_peak = lambda: next(peaks)
    with run.phase("outer"):  # 1: before it
        with run.phase("inner"):  # 50: outer's so far
            pass  # 70
        pass  # 30: the rest of outer
    assert run.record.cost.peak_memory == {"outer": 50, "inner": 70}
    with run.phase("inner"):  # 2: in between
        pass  # 40: lower than before
    assert run.record.cost.peak_memory == {"outer": 50, "inner": 70}


def test_a_run_without_a_meter_tells_of_no_peaks(run: RunFolder) -> None:
    with run.phase("tune"):
        pass
    assert "peak_memory" not in run.record.cost.document()


def test_totals_are_of_all_pieces_and_epochs_of_the_methods_own(run: RunFolder) -> None:
    with run.editing() as record:
        record.cost.training["tune"] = TrainingCost(steps=8, examples=60, seconds=2.0)
        record.cost.training["sweep-1"] = TrainingCost(steps=2, examples=40, seconds=3.0)
        record.cost.training["retrain-a"] = TrainingCost(steps=30, examples=900, seconds=20.0)
        record.cost.peak_memory = {"load": 10**13, "tune": None}
    record_totals(run, seconds=40.0, trainable=640, stored=320, steps_an_epoch=5, works=("tune", "sweep"))
    found = run.record.cost
    assert (found.seconds, found.steps, found.examples_per_second) == (40.0, 40, 1000 / 25)
    assert found.seconds_per_epoch == pytest.approx(2.5)
    assert (found.trainable_parameters, found.stored_parameters) == (640, 320)
    assert found.peak_memory_bytes == 10**13


def test_totals_of_a_run_without_peaks_are_the_processs(run: RunFolder) -> None:
    record_totals(run, seconds=1.0, trainable=1, stored=1, steps_an_epoch=1, works=("tune",))
    assert (run.record.cost.peak_memory_bytes or 0) > 10 * MIB
    assert run.record.cost.seconds_per_epoch is None


def test_latency_is_the_median_and_the_95th_percentile_of_calls_that_take_turns(
    backbone_of: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = backbone_of("sentence")
    now, calls = [0.0], []
    ticks = {"with": (n * 0.01 for n in count(1)), "without": (0.002 for _ in count())}

    def reading(name: str) -> Callable[[Batch], torch.Tensor]:
        def read(batch: Batch) -> torch.Tensor:
            calls.append((name, len(batch)))
            now[0] += next(ticks[name])
            return torch.zeros(1)

        return read

    monkeypatch.setattr(cost, "WARM", 1)
    monkeypatch.setattr(cost, "CALLS", 21)
    reads = {name: Way(reading(name)) for name in ticks}
    found = latency(backbone, task_of(backbone), reads, sizes=(4,), clock=lambda: now[0])
    assert found["4"]["calls"] == 21
    # The first call was a warm-up: 0.02 to 0.22 are left.
    assert found["4"]["with"] == pytest.approx({"p50": 0.12, "p95": 0.21})
    assert found["4"]["without"] == pytest.approx({"p50": 0.002, "p95": 0.002})
    assert calls[:6] == [("with", 4), ("without", 4), ("without", 4), ("with", 4), ("with", 4), ("without", 4)]
    assert len(calls) == 2 * 22


def test_slow_calls_are_fewer(backbone_of: Callable[..., Backbone]) -> None:
    backbone, now = backbone_of("sentence"), [0.0]

    def read(batch: Batch) -> torch.Tensor:
        now[0] += 10.0
        return torch.zeros(1)

    found = latency(backbone, task_of(backbone), {"with": Way(read)}, sizes=(1,), clock=lambda: now[0])
    assert found["1"]["calls"] == cost.FEWEST


def test_reading_with_a_prompt_is_what_is_scored(backbone_of: Callable[..., Backbone]) -> None:
    backbone = backbone_of("gpt2")
    data, generator = task_of(backbone), torch.Generator().manual_seed(0)
    prompt_QH = torch.randn(3, backbone.info.hidden, generator=generator).to(backbone.prompt_dtype)
    batch = data.batch(backbone, [0, 1])
    alone = backbone.answer_sums(prompt_QH.expand(2, 3, -1), batch)[:, :2]  # one of the texts has no third answer
    found, bare = (behind_prompt(backbone, vectors).read(batch)[:, :2] for vectors in (prompt_QH, prompt_QH[:0]))
    assert float((found - alone).abs().max()) <= 1e-5 * float(alone.abs().max())
    assert float((bare - alone).abs().max()) > 1e-3 * float(alone.abs().max())
