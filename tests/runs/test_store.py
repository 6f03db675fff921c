from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open

from softprune.errors import SoftpruneError
from softprune.runs.run_folder import RunFolder, Saved

Begin = Callable[..., RunFolder]


def lines_of(run: RunFolder) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def on_disk(run: RunFolder) -> dict[str, object]:
    info: dict[str, object] = json.loads((run.path / "run.json").read_text())
    return info


def test_a_new_folder_holds_the_recipe_and_all_keys_of_run_json(begin: Begin) -> None:
    with begin() as run:
        assert (run.path / "recipe.yaml").read_text() == "kind: xprompt  # mine\n"
        assert yaml.safe_load((run.path / "resolved.yaml").read_text())["tuning"]["weight_decay"] == 1e-5
        info = on_disk(run)
        assert info == run.record.document()
        contract = "schema kind status command seed versions hardware threads backbone task selection removal K"
        assert {*contract.split(), "results", "ticket", "cost", "error", "phase"} <= info.keys()
        assert (info["status"], info["seed"], info["K"], info["phase"]) == ("running", 3, None, None)
        assert run.record.versions["torch"] == torch.__version__
        assert (run.record.hardware.cores or 0) >= 1
        assert set(run.record.results) == {
            "constant",
            "zero_shot",
            "instruction",
            "tuned",
            "control",
            "winner",
            "random",
        }
        assert not run.is_complete


def test_edits_are_written(begin: Begin) -> None:
    with begin() as run:
        with run.editing() as record:
            record.backbone.name = "tiny"
            record.task.indices = {"train": [1, 2]}
        with run.editing() as record:
            record.backbone.family = "sentence"
            record.task.indices = {"train": [3]}
            record.cost.seconds = float("nan")
        info = on_disk(run)
    assert info["backbone"] == run.record.backbone.document() | {"name": "tiny", "family": "sentence"}
    assert info["task"] == run.record.task.document() | {"indices": {"train": [3]}}
    assert info["cost"] == run.record.cost.document() | {"seconds": None}


def test_a_failed_record_leaves_run_json_readable(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    with begin() as run:
        before = on_disk(run)

        def refuse(*_: object) -> None:
            raise OSError("disk full")

        monkeypatch.setattr(os, "replace", refuse)
        for write in (
            lambda: run.fail("no"),
            lambda: run.write_json("run.json", {}),
            lambda: run.write_jsonl("candidates.jsonl", [{}]),
            lambda: run.write_tensors("prompts/initial.safetensors", {}, {}),
            lambda: run.save_checkpoint("c", Saved({}, {})),
            lambda: run.once("c", lambda: Saved({}, {})),
        ):
            with pytest.raises(OSError, match="disk full"):
                write()
        assert on_disk(run) == before
        files = {path.name for path in run.path.rglob("*") if path.is_file()}
        assert files == {".lock", "recipe.yaml", "resolved.yaml", "run.json"}


def test_pin_is_computed_once_over_resumes(begin: Begin) -> None:
    with begin() as run:
        assert run.pin("K", lambda: 8) == 8
        assert run.pin("backbone.dtype", lambda: "float32") == "float32"
        assert run.pin("search.strategy", lambda: "grid") == "grid"
    with begin() as run:
        assert run.pin("K", lambda: 16) == 8
        assert run.pin("backbone.dtype", lambda: "bfloat16") == "float32"
        assert run.pin("search.strategy", lambda: "halving") == "grid"
        backbone = run.record.backbone.document()
        assert backbone | {"dtype": None} == dict.fromkeys(backbone)


def test_phases_add_up_over_resumes_and_errors(begin: Begin) -> None:
    with begin() as run:
        with run.phase("tune"):
            assert on_disk(run)["phase"] == "tune"
        first = run.record.cost.phases["tune"]
        with pytest.raises(ZeroDivisionError), run.phase("tune"):
            raise ZeroDivisionError
        assert run.record.phase is None
        assert run.record.cost.phases["tune"] > first > 0


def test_once_gives_the_same_bits_and_computes_once(begin: Begin) -> None:
    calls = []

    def compute() -> Saved:
        calls.append(1)
        values = torch.tensor([1 / 3, float("nan"), -0.0, 1e-45])
        return Saved({"x": values, "rng": torch.get_rng_state()}, {"best": float("inf"), "pair": (1, "é")})

    with begin() as run:
        run.save_checkpoint("t0.3/a", Saved({}, {}))
        first = run.once("t0.3/a", compute)
        assert run.load_checkpoint("t0.3/a") is None
    with begin() as run:
        second = run.once("t0.3/a", compute)
    assert len(calls) == 1
    assert first.meta == second.meta == {"best": float("inf"), "pair": [1, "é"]}
    for name in ("x", "rng"):
        assert torch.equal(first.tensors[name].view(torch.uint8), second.tensors[name].view(torch.uint8))


def test_once_whose_work_fails_is_done_again(begin: Begin) -> None:
    def fail() -> Saved:
        raise RuntimeError("out of memory")

    with begin() as run:
        with pytest.raises(RuntimeError):
            run.once("a", fail)
        assert run.once("a", lambda: Saved({}, {"n": 1})).meta == {"n": 1}


def test_a_checkpoint_holds_the_latest_until_the_work_is_done(begin: Begin) -> None:
    with begin() as run:
        assert run.load_checkpoint("tune") is None
        run.save_checkpoint("tune", Saved({"p": torch.ones(2)}, {"step": 1}))
        run.save_checkpoint("tune", Saved({"p": torch.zeros(2)}, {"step": 2}))
    with begin() as run:
        saved = run.load_checkpoint("tune")
        assert saved is not None
        assert saved.meta == {"step": 2}
        assert torch.equal(saved.tensors["p"], torch.zeros(2))
        run.once("tune", lambda: Saved({}, {}))
        assert run.load_checkpoint("tune") is None


def test_a_damaged_state_file_says_what_to_do(begin: Begin) -> None:
    with begin() as run:
        run.once("a", lambda: Saved({"x": torch.ones(4)}, {}))
        path = run.path / "state" / "a.safetensors"
        path.write_bytes(path.read_bytes()[:-3])
        with pytest.raises(SoftpruneError, match="delete that file"):
            run.once("a", lambda: Saved({}, {}))


def test_a_torn_metrics_line_goes_when_the_run_goes_on(begin: Begin) -> None:
    with begin() as run:
        run.append_metrics([{"phase": "tune", "step": 1, "loss": float("nan")}])
        with (run.path / "metrics.jsonl").open("a") as file:
            file.write('{"phase": "tune", "st')
    with begin() as run:
        run.append_metrics([{"phase": "tune", "step": 2}])
        assert lines_of(run) == [{"phase": "tune", "step": 1, "loss": None}, {"phase": "tune", "step": 2}]


def test_trim_drops_only_what_is_done_again(begin: Begin) -> None:
    def line(phase: str, step: int, candidate: str | None = None) -> dict[str, object]:
        return {"phase": phase, "step": step} | ({"candidate": candidate} if candidate else {})

    tune = [line("tune", step) for step in (1, 2, 3)]
    search = [line("search", step, name) for step in (1, 2) for name in ("a", "b", "c")]
    with begin() as run:
        run.trim_metrics("tune", None, 0)  # no file yet
        run.append_metrics([])
        run.append_metrics([*tune, *search])
        with (run.path / "metrics.jsonl").open("a") as file:
            file.write('{"torn": ')
        run.trim_metrics("search", ["a", "b"], 1)
        kept = [row for row in search if row["step"] == 1 or row["candidate"] == "c"]
        assert lines_of(run) == [*tune, *kept]
        run.trim_metrics("tune", None, 2)
        assert lines_of(run) == [*tune[:2], *kept]


def test_writes_make_parents_and_stay_inside(begin: Begin) -> None:
    with begin() as run:
        run.write_json("ticket/ticket.json", {"tokens": 3})
        run.write_jsonl("predictions/winner.jsonl", [{"id": "a"}, {"id": "b"}])
        run.write_tensors("prompts/tuned.safetensors", {"p": torch.ones(2, 2)}, {"format": "softprune"})
        assert json.loads((run.path / "ticket/ticket.json").read_text()) == {"tokens": 3}
        assert (run.path / "predictions/winner.jsonl").read_text() == '{"id":"a"}\n{"id":"b"}\n'
        with safe_open(run.path / "prompts/tuned.safetensors", "pt") as file:
            assert file.metadata() == {"format": "softprune"}
        for name in ("../outside.json", "/outside.json"):
            with pytest.raises(ValueError, match="inside the run folder"):
                run.write_json(name, {})


def test_complete_is_final(begin: Begin) -> None:
    with begin() as run:
        run.once("a", lambda: Saved({}, {}))
        run.complete()
        assert run.is_complete
        assert not (run.path / "state").exists()
        before = (run.path / "run.json").read_bytes()
    with begin() as run:
        assert run.is_complete
        assert run.record.status == "complete"
        assert (run.path / "run.json").read_bytes() == before


def test_complete_is_written_last(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    with begin() as run:
        run.once("a", lambda: Saved({}, {}))
        monkeypatch.setattr("softprune.runs.run_folder.shutil.rmtree", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run.complete()
        assert on_disk(run)["status"] == "complete"
        assert not run.is_complete
    monkeypatch.undo()
    with begin() as run:
        assert run.is_complete
        assert not (run.path / "state").exists()


def test_a_failed_run_goes_on(begin: Begin) -> None:
    with begin() as run:
        run.fail("the loss is not a number")
        assert (on_disk(run)["status"], on_disk(run)["error"]) == ("failed", "the loss is not a number")
    with begin() as run:
        assert (run.record.status, run.record.error) == ("running", None)
        assert len(run.record.attempts) == 2


def test_a_run_without_any_work_can_be_discarded(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with RunFolder.open(folder, recipe_text="", resolved={"a": 1}, kind="tune", command="c") as run:
        assert not run.has_work
        run.discard()
    assert not folder.exists()
    with RunFolder.open(folder, recipe_text="", resolved={"a": 2}, kind="tune", command="c") as run:
        run.save_checkpoint("tune", Saved({}, {"step": 1}))
        assert run.has_work


def test_discarding_takes_the_folders_that_it_made_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("mine", "deep/er/run"):
        with RunFolder.open(tmp_path / name, recipe_text="", resolved={}, kind="tune", command="c") as run:
            run.discard()
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def test_what_trackers_opened_goes_with_a_run_without_work(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "run", recipe_text="", resolved={}, kind="tune", command="c") as run:
        (tmp_path / "run" / "trackers" / "logs").mkdir(parents=True)
        run.discard()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("survived", range(5))
def test_a_discard_that_is_cut_off_leaves_a_folder_to_begin_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    unlink, done = Path.unlink, []

    def killed(path: Path, missing_ok: bool = False) -> None:
        if len(done) == survived:
            raise KeyboardInterrupt
        done.append(path)
        unlink(path, missing_ok)

    def begun() -> RunFolder:
        return RunFolder.open(tmp_path / "run", recipe_text="", resolved={"a": 1}, kind="tune", command="c")

    with begun() as run, monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            run.discard()
    begun().close()


def test_a_run_that_was_there_before_is_never_discarded(begin: Begin) -> None:
    begin().close()
    with begin() as run:
        assert run.has_work


def test_a_folder_that_cannot_be_begun_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("softprune.runs.atomic_io.os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        RunFolder.open(tmp_path / "deep" / "run", recipe_text="", resolved={}, kind="tune", command="c")
    assert not list(tmp_path.iterdir())


def test_discarding_spares_what_is_not_ours(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with RunFolder.open(folder, recipe_text="", resolved={"a": 1}, kind="tune", command="c") as run:
        (folder / "thesis.txt").write_text("years of work")
        run.discard()
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
    (folder / ".lock").touch()
    with pytest.raises(SoftpruneError, match="a new folder, or the folder of a run"):
        RunFolder.open(folder, recipe_text="", resolved={"a": 1}, kind="tune", command="c")


def test_seconds_of_a_phase_are_kept_at_every_checkpoint(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill never comes to the end of a phase."""
    clock = iter([10.0, 13.0, 17.0, 18.0])
    run = begin()  # its lock reads the clock too
    monkeypatch.setattr("softprune.runs.run_folder.time.perf_counter", lambda: next(clock))
    with run, run.phase("tune"):
        assert on_disk(run)["cost"]["phases"] == {}  # type: ignore[index]
        run.save_checkpoint("work", Saved({"a": torch.zeros(1)}, {}))
        assert on_disk(run)["cost"]["phases"] == {"tune": 3.0}  # type: ignore[index]
        run.once("work", lambda: Saved({"a": torch.zeros(1)}, {}))
        assert on_disk(run)["cost"]["phases"] == {"tune": 7.0}  # type: ignore[index]
        run.once("work", lambda: Saved({}, {}))  # read back: nothing new to count
    assert on_disk(run)["cost"]["phases"] == {"tune": 8.0}  # type: ignore[index]
