"""What goes wrong without anybody's mistake: memory, disk, rights, numbers, other processes, an impatient user."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from bad_files import JSONL_TASK
from bad_input import Models, Told, contents, hold, write
from safetensors.torch import load_file, save_file

from softprune.training.trainable import PromptTrainable

Softprune = Callable[..., Any]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

TASK = JSONL_TASK.replace("validation.jsonl", "train.jsonl")
THINGS = ("film", "meal", "river", "room", "cast", "window", "cheese", "wind")
ROWS = [{"text": f"the {thing} was a {mood} one", "label": mood} for thing in THINGS for mood in ("good", "bad")]
SHORT = {
    "prompt": {"tokens": 4, "pieces": 4},
    "tuning": {"epochs": 2, "batch_size": 8},
    "search": {"strategy": "grid", "token_ratios": [0.5], "piece_ratios": [0.2, 0.4, 0.6, 0.8], "group": 4},
    "selection": {"seeds": 0, "resamples": 50},
    "backbone": {"dtype": "float32"},
}
BAR = r"[\s\S]*?"  # the display's lines, which end before the message begins


@pytest.fixture
def workplace(tmp_path: Path, tiny_models: Models, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a task, and a recipe for each kind of run."""
    shared = {**SHORT, "task": {"id": "mood.yaml"}}
    shared["backbone"] = {**SHORT["backbone"], "name": str(tiny_models("sentence"))}
    recipes = {f"{kind}.yaml": yaml.safe_dump({"kind": kind, **shared}) for kind in ("tune", "xprompt")}
    write(tmp_path, {"mood.yaml": TASK, "train.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS), **recipes})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def info(folder: str = "run") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(folder) / "run.json").read_text())
    return found


def every(number: int, error: BaseException, of: Callable[..., Any], when: Callable[..., bool]) -> Callable[..., Any]:
    """A function that fails with an error from its nth call on among those that `when` counts."""
    seen = 0

    def failing(*args: Any, **options: Any) -> Any:
        nonlocal seen
        seen += when(*args)
        if when(*args) and seen >= number:
            raise error
        return of(*args, **options)

    return failing


# --- memory ---

ALLOCATOR = "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ..."
OUT_OF_MEMORY = (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), RuntimeError(ALLOCATOR))
NO_ROOM = Told("room in memory", "out of memory", "search.group=2 tuning.eval_rows=128 tuning.accumulate=2")


ONE_DNN = RuntimeError("could not create a primitive")


@pytest.mark.parametrize("error", [*OUT_OF_MEMORY, ONE_DNN, MemoryError()], ids=["gpu", "cpu", "one dnn", "python"])
def test_memory_that_runs_out_while_training(
    softprune: Softprune, workplace: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(PromptTrainable, "loss", every(1, error, lambda *_: None, lambda *_: True))
    answer = softprune("run", "xprompt.yaml", "--out", "run")
    hold(answer.err, (NO_ROOM,), before=BAR)
    assert (answer.code, info()["status"]) == (2, "failed")


def test_a_run_out_of_memory_goes_on_as_its_message_says(
    softprune: Softprune, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert softprune("run", "xprompt.yaml", "--out", "whole").code == 0
    too_much = lambda trainable, batch: trainable.candidates * len(batch) > 4  # noqa: E731
    wide = every(1, OUT_OF_MEMORY[1], PromptTrainable.loss, too_much)
    with monkeypatch.context() as patch:
        patch.setattr(PromptTrainable, "loss", wide)
        answer = softprune("run", "xprompt.yaml", "--out", "run")
        hold(answer.err, (NO_ROOM,), before=BAR)
        assert (answer.code, info()["status"]) == (2, "failed")
        advice = answer.err.partition("command with ")[2].partition(" behind it")[0].split()
        answer = softprune("run", "xprompt.yaml", *advice, "--out", "run")
        assert (answer.code, info()["K"]) == (2, 2), "still too much"
        advice = answer.err.partition("command with ")[2].partition(" behind it")[0].split()
        again = softprune("run", "xprompt.yaml", *advice, "--out", "run")
    assert again.code == 0, again.err
    assert info()["K"] == 1
    assert info()["attempts"][1]["changed"] == {
        "search.group": [4, 2],
        "tuning.eval_rows": [256, 128],
        "tuning.accumulate": [1, 2],
    }
    assert yaml.safe_load(Path("run/resolved.yaml").read_text())["search"]["group"] == 1
    assert distance(candidates("run"), candidates("whole")) <= 1e-4
    assert softprune("run", "xprompt.yaml", "seed=1", "--out", "other").code == 0
    assert distance(candidates("other"), candidates("whole")) > 1e-2


def candidates(folder: str) -> torch.Tensor:
    """What the search found: losses before and after retraining."""
    lines = [json.loads(line) for line in (Path(folder) / "candidates.jsonl").read_text().splitlines()]
    losses = [line[key] for line in sorted(lines, key=lambda line: line["id"]) for key in ("rank_loss", "select_loss")]
    return torch.tensor(losses, dtype=torch.float64)


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def test_other_keys_may_not_change_beside_them(softprune: Softprune, workplace: Path) -> None:
    assert softprune("run", "tune.yaml", "--out", "run").code == 0
    before = contents(workplace)
    answer = softprune("run", "tune.yaml", "tuning.eval_rows=9", "tuning.batch_size=4", "--out", "run")
    hold(answer.err, (Told("the recipe that run was begun with", "tuning.batch_size: 8 there, 4 now", "--out"),))
    assert contents(workplace) == before
    assert softprune("run", "tune.yaml", "tuning.eval_rows=9", "--out", "run").code == 0  # it is complete: no change
    assert {name: held for name, held in contents(workplace).items() if "report" not in name} == {
        name: held for name, held in before.items() if "report" not in name
    }


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["gpu", "cpu"])
def test_no_room_for_the_model(
    softprune: Softprune, workplace: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    before = contents(workplace)
    monkeypatch.setattr("softprune.models.loading.wrap", every(1, error, lambda *_: None, lambda *_: True))
    answer = softprune("run", "tune.yaml", "--out", "deep/run")
    hold(answer.err, (Told("room for", "out of memory", "a smaller model"),))
    assert (answer.code, contents(workplace)) == (2, before)


# --- disk and rights ---

FULL = OSError(errno.ENOSPC, "No space left on device")
ROOM = Told("room on the disk", "no space left", "free some space and run the same command again")


def test_a_disk_that_is_full_from_the_start(
    softprune: Softprune, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(workplace)
    monkeypatch.setattr("os.fsync", every(1, FULL, lambda _: None, lambda _: True))
    answer = softprune("run", "tune.yaml", "--out", "deep/run")
    hold(answer.err, (ROOM,))
    assert (answer.code, contents(workplace)) == (2, before)


@pytest.mark.parametrize("number", [12, 25])
def test_a_disk_that_gets_full(
    softprune: Softprune, workplace: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    assert softprune("run", "tune.yaml", "--out", "whole").code == 0
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", every(number, FULL, lambda _: None, lambda _: True))
        answer = softprune("run", "tune.yaml", "--out", "run")
    hold(answer.err, (ROOM,), before=BAR)
    assert answer.code == 2
    assert not list(Path("run").rglob("*.tmp"))
    assert softprune("run", "tune.yaml", "--out", "run").code == 0
    assert Path("run/ticket/ticket.safetensors").read_bytes() == Path("whole/ticket/ticket.safetensors").read_bytes()


def test_a_report_on_a_full_disk(softprune: Softprune, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert softprune("run", "tune.yaml", "--out", "run").code == 0
    before = contents(workplace)
    monkeypatch.setattr("os.fsync", every(1, FULL, lambda _: None, lambda _: True))
    answer = softprune("report", "run")
    hold(answer.err, (ROOM,))
    assert (answer.code, contents(workplace)) == (2, before)


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("pathlib.Path.mkdir", Told("a folder for the run that can be written", "Permission denied", "permissions")),
        ("softprune.runs.atomic_io.os.replace", Told("files and folders that may be", "Permission", "permissions")),
        ("pathlib.Path.read_text", Told("a recipe file that can be read", "Permission denied", "path")),
    ],
)
def test_a_folder_without_rights(
    softprune: Softprune, workplace: Path, monkeypatch: pytest.MonkeyPatch, what: str, told: Told
) -> None:
    before = contents(workplace)
    refused = PermissionError(errno.EACCES, "Permission denied", "deep")
    with monkeypatch.context() as patch:
        patch.setattr(what, every(1, refused, lambda *_: None, lambda *_: True))
        answer = softprune("run", "tune.yaml", "--out", "deep/run")
    hold(answer.err, (told,))
    assert (answer.code, contents(workplace)) == (2, before)


# --- numbers ---


def test_a_learning_rate_that_ruins_the_prompt(softprune: Softprune, workplace: Path) -> None:
    told = Told("a finite", "for tuned at step ", "lower tuning.lr (it is 1e+30)")
    for _ in range(2):  # "this run would fail again"
        answer = softprune("run", "tune.yaml", "tuning.lr=1e30", "--out", "run")
        hold(answer.err, (told,), before=BAR)
        assert answer.code == 2
    assert info()["status"] == "failed"
    assert "for tuned at step" in info()["error"]
    assert " failed " in softprune("runs", ".").out


def test_weights_that_are_no_numbers(softprune: Softprune, workplace: Path, tiny_models: Models) -> None:
    shutil.copytree(tiny_models("sentence"), "model")
    weights = load_file("model/model.safetensors")
    name = next(name for name in weights if "layer.0" in name)
    save_file({**weights, name: weights[name] * float("nan")}, "model/model.safetensors", {"format": "pt"})
    before = contents(workplace)
    answer = softprune("run", "tune.yaml", "backbone.name=model", "--out", "run")
    hold(answer.err, (Told("finite numbers", "NaN or infinity", "another copy of its weights"),))
    assert (answer.code, contents(workplace)) == (2, before)


@pytest.mark.parametrize(("call", "step"), [(1, 1), (3, 3)])
def test_a_loss_that_is_no_number(
    softprune: Softprune, workplace: Path, monkeypatch: pytest.MonkeyPatch, call: int, step: int
) -> None:
    """Weights that are sound on ordinary tokens, and bad for one that comes later."""
    seen = 0

    def losses(trainable: PromptTrainable, batch: Any) -> torch.Tensor:
        nonlocal seen
        seen += 1
        return loss(trainable, batch) * (float("nan") if seen >= call else 1.0)

    loss = PromptTrainable.loss
    monkeypatch.setattr(PromptTrainable, "loss", losses)
    answer = softprune("run", "tune.yaml", "--out", "run")
    do = "sound weights" if step == 1 else "lower tuning.lr"
    hold(answer.err, (Told("a finite training loss", f"nan for tuned at step {step} of 4", do),), before=BAR)
    assert (answer.code, info()["status"]) == (2, "failed")


# --- others at work, and a user who has seen enough ---

HOLDER = "import sys, time; from softprune.runs.job_folder import FolderLock; from pathlib import Path"
HOLDER += "; lock = FolderLock(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"


def test_a_run_that_another_process_works_in(softprune: Softprune, workplace: Path) -> None:
    assert softprune("run", "tune.yaml", "--out", "run").code == 0
    with subprocess.Popen([sys.executable, "-c", HOLDER, "run"], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            before = contents(workplace)
            answer = softprune("run", "tune.yaml", "--out", "run")
            hold(
                answer.err, (Told("no other process works in", f"the live process {holder.pid}", "wait until it ends"),)
            )
            assert (answer.code, contents(workplace)) == (2, before)
        finally:
            holder.kill()


def test_an_interrupted_run_says_how_to_go_on_and_does(
    softprune: Softprune, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert softprune("run", "tune.yaml", "--out", "whole").code == 0
    with monkeypatch.context() as patch:
        patch.setattr(PromptTrainable, "loss", every(3, KeyboardInterrupt(), PromptTrainable.loss, lambda *_: True))
        answer = softprune("run", "tune.yaml", "--out", "run")
    assert answer.code == 130
    assert "run the same command to continue" in answer.err
    assert "Traceback" not in answer.err
    assert softprune("run", "tune.yaml", "--out", "run").code == 0
    assert Path("run/ticket/ticket.safetensors").read_bytes() == Path("whole/ticket/ticket.safetensors").read_bytes()


def test_more_shots_than_there_are_is_said(softprune: Softprune, workplace: Path) -> None:
    assert softprune("run", "tune.yaml", "task.shots=99", "--out", "run").code == 0
    assert f"99 shots were asked for and all {len(ROWS)}" in info()["selection"]["description"]
