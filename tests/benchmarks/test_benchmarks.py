"""Every benchmark runs at toy sizes and writes what it should; both sides do the same work. No time is ever tested."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if "(words: Sequence[str] | None = None)" in path.read_text())
P = 20

# peft asks transformers for a property under its old name.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers.modeling_utils"),
]


@pytest.fixture(autouse=True)
def in_their_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts find each other as `python benchmarks/NAME.py` lets them."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delenv("SOFTPRUNE_DATA", raising=False)


def test_make_bench_runs_every_script() -> None:
    (listed,) = re.findall(r"^BENCHMARKS := (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert sorted(listed.split()) == NAMES
    assert len(NAMES) >= 7


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_every_script_imports_what_there_is(path: Path) -> None:
    import_module(path.stem)


@pytest.mark.parametrize("name", NAMES)
def test_a_quick_run_writes_its_results(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--runs", str(tmp_path / "runs")] if name in ("real_encoder", "half_size") else []
    import_module(name).main(["--quick", "--out", str(tmp_path), *more])
    found = json.loads((tmp_path / f"{name}.json").read_text())
    assert found["name"] == name
    assert found["quick"] is True
    assert found["results"]
    assert {"torch", "transformers", "peft", "python"} <= set(found["versions"])
    assert found["machine"]["threads"] == torch.get_num_threads()
    assert found["settings"]["rounds"] == 1
    assert found["commit"] is None or re.fullmatch(r"[0-9a-f]{40}\+?", found["commit"])
    assert "written" in capsys.readouterr().out


def test_without_data_the_real_encoder_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import_module("real_encoder").main(["--out", str(tmp_path)])
    assert "skipped" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def losses(shape: str, which: str, start_scale: float = 1.0) -> tuple[list[float], list[float]]:
    """Of both sides over the same four batches in float32; the peer's start may be another."""
    single_step, shapes = import_module("single_step"), import_module("shapes")
    from softprune import load_backbone
    from softprune.models.batching import training_batches

    with shapes.folder_of(shape, torch.float32) as folder:
        backbone = load_backbone(folder, dtype="float32")
        backbone.leading = 0  # type: ignore[misc] # as in single_step.gaps
        encoded = single_step.made(folder, backbone, which, 64)
        start_PH = single_step.random_start(backbone, P)
        ours = single_step.Ours(backbone, start_PH).epoch(encoded).losses
        order = training_batches([len(e.input_ids) for e in encoded], 16, 0, 0)
        peer = single_step.peer_of(folder, backbone, torch.float32, start_PH * start_scale)
        _, theirs = peer.train([encoded[i] for batch in order for i in batch], "sequential")
    return ours, theirs


def apart(ours: list[float], theirs: list[float]) -> float:
    return max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    ("shape", "which"), [("toy-t5", "mixed"), ("toy-gpt2", "12"), ("toy-qwen3", "12"), ("tiny", "12")]
)
def test_both_sides_take_the_same_steps(shape: str, which: str) -> None:
    ours, theirs = losses(shape, which)
    assert len(ours) == 4
    assert apart(ours, theirs) <= 1e-4


def test_another_start_is_told() -> None:
    ours, theirs = losses("toy-t5", "12", start_scale=1.5)
    assert apart(ours, theirs) > 1e-4


def test_without_a_gpu_its_script_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import_module("gpu_decoders").main(["--out", str(tmp_path)])
    assert "skipped" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_the_gpu_script_writes_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = import_module("gpu_decoders")
    monkeypatch.setattr(script, "published_rate", lambda: 1e12)
    script.main(["--quick", "--out", str(tmp_path)])
    results = json.loads((tmp_path / "gpu_decoders.json").read_text())["results"]
    page = (tmp_path / "gpu_decoders.md").read_text().splitlines()
    assert [result["shape"] for result in results] == ["toy-qwen3", "toy-t5"]
    assert [line for line in page if line.startswith("## ")] == [
        "## A step in bfloat16",
        "## Peak memory",
        "## A candidate's step, of its cost alone",
    ]
    rows = [line for line in page if line.startswith("| toy-")]
    columns = [len(line.split("|")) for line in page if line.startswith("| shape")]
    assert [len(row.split("|")) for row in rows] == [count for count in columns for _ in results]
    for result in results:
        step = result["step"]
        assert step["losses"]["greatest"] < 0.1
        assert list(result["candidates"]["of_one"]) == ["1", "2"]
        assert result["memory"]["peer"]["peak_bytes"] > 0
        milliseconds = [f"{1000 * step['seconds'][side]:.3g}" for side in ("softprune", step["faster_peer"])]
        assert any(" | ".join(milliseconds) in row for row in rows)
        assert step["of_peak"] == pytest.approx(step["flops_a_step"] / step["seconds"]["softprune"] / 1e12)


def test_a_group_without_room_is_left_out() -> None:
    candidates = import_module("candidates")

    def step_with(error: Exception) -> Any:
        def step(encoded: Any) -> None:
            raise error

        return type("Ours", (), {"step": staticmethod(step)})

    assert not candidates._has_room(step_with(torch.OutOfMemoryError("CUDA out of memory")), ())
    with pytest.raises(RuntimeError, match="shapes"):
        candidates._has_room(step_with(RuntimeError("shapes don't fit")), ())


@pytest.mark.parametrize("shape", ["toy-t5", "toy-gpt2", "toy-qwen3"])
def test_operations_are_those_that_torch_counts(shape: str) -> None:
    shapes, flops, peers = import_module("shapes"), import_module("flops"), import_module("peers")
    family = "seq2seq" if shape == "toy-t5" else "causal"
    with shapes.folder_of(shape, torch.float32) as folder:
        peer = peers.Peer(folder, family, torch.float32, torch.randn(P, 32) * 0.1)
        peer.attend("eager")  # fused attention is not in torch's count
        with FlopCounterMode(display=False) as counter:
            peer.train(shapes.examples([9] * 16, shapes.vocabulary(folder), False).encoded, "random")
        counted: Any = counter.get_total_flops()
        config = peer.model.config
    # Unlike ours, a causal peer reads its answer's last token, and says logits everywhere.
    read = 9 if family == "seq2seq" else 10
    wide = 0 if family == "seq2seq" else flops.LINEAR * 32 * config.vocab_size * 16 * (P + 9)
    assert abs(flops.step_flops(config, family, [read] * 16, P) + wide - counted) <= 1e-9 * counted
    assert abs(flops.step_flops(config, family, [read] * 16, P - 1) + wide - counted) > 1e-2 * counted


def test_a_child_tells_its_own_peak() -> None:
    peaks, shapes = import_module("peaks"), import_module("shapes")
    large = torch.ones(300_000_000)  # a child's getrusage would begin at its parent's peak
    with shapes.folder_of("toy-bloom", torch.float32) as folder:
        found = peaks.in_child(peaks.Job("ours", folder, "float32", "causal", inputs=5, steps=2))
    assert found["peak_bytes"] >= found["loaded_bytes"] > 1e7
    assert found["peak_bytes"] < 4 * large.numel()
    assert found["seconds"] > 0


def test_ratios_are_taken_round_by_round() -> None:
    timing = import_module("timing")
    times = {
        "slow": [timing.Spent(4.0, 2.0), timing.Spent(9.0, 2.0), timing.Spent(2.0, 2.0)],
        "fast": [timing.Spent(2.0, 1.0), timing.Spent(3.0, 1.0), timing.Spent(2.0, 0.5)],
    }
    assert timing.ratio(times, "slow", "fast") == {"median": 2.0, "least": 1.0, "greatest": 3.0, "cpu_median": 2.0}
    assert timing.medians(times) == {"slow": 4.0, "fast": 2.0}


def test_without_data_the_study_of_a_real_model_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import_module("real_lm").main(["--part", "study", "--backbone", "tiny-causal", "--out", str(tmp_path)])
    assert "skipped: SOFTPRUNE_DATA" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_the_study_compares_the_same_examples() -> None:
    from softprune.report.run_reader import Prediction
    from softprune.runs.record_parts import ResultRow

    def answer(gold: str, predicted: str) -> Prediction:
        answers = ("no", "yes")
        return Prediction("", 0, "", answers, answers.index(gold), answers.index(predicted))

    gold = ["no"] * 30 + ["yes"] * 70
    tuned = [answer(each, each) for each in gold[:90]] + [answer("yes", "no")] * 10
    zero_shot = [answer(each, "no") for each in gold]
    rows = {name: ResultRow(metric="accuracy", value=0.5) for name in ("constant", "zero_shot", "tuned")}
    rows["constant"].answer = "yes"
    record = SimpleNamespace(results={**rows, "instruction": None}, cost=SimpleNamespace(seconds=90.0))
    run = SimpleNamespace(record=record, predictions={"tuned": tuned, "zero_shot": zero_shot})
    cells = import_module("real_lm_study")._defaults(run)
    assert cells["minus zero-shot"].startswith("+60.0 (+5")  # 90 right, 30 right
    assert cells["minus constant"].startswith("+20.0 (")  # 70 right; here the two sides err on different examples
    assert "instruction" not in cells
    assert cells["minutes"] == "2"


@pytest.mark.real
def test_a_quick_study_of_a_decoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--quick", "--part", "study", "--out", str(tmp_path), "--runs", str(tmp_path / "runs")]
    import_module("real_lm").main(words)
    shown = capsys.readouterr().out
    (found,) = json.loads((tmp_path / "real_lm.json").read_text())["results"]
    assert found["task"] == "demo"
    assert len(found["rows"]) == 7
    assert len(found["words"]) == P
    assert sum("(chosen)" in rate for rate in found["rates"]) == 1
    assert [line for line in shown.splitlines() if line.startswith("## ")] == [
        "## With all defaults",
        "## Which team should answer (generated)",
        "## Learning rates",
        "## Words of demo",
    ]
