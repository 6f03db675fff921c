"""`accelerate launch` with two processes on a CPU: the prompt of one, also after a kill; and trouble in one of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from safetensors.torch import load_file

import softprune.__main__
from forks import Forked, Forks
from softprune.config import Recipe, resolve
from softprune.pipelines import xprompt
from softprune.runs.processes import Processes
from softprune.runs.run_folder import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
TOLERANCE = 1e-5
DRIVER = Path(__file__).parent / "rank_driver.py"
T = TypeVar("T")

# 51 examples to train on in batches of 15: 20 steps, the last of an epoch of six examples.
SETTINGS = (
    "kind=tune",
    "backbone.dtype=float32",
    "backbone.threads=1",
    "task.shots=64",
    "task.limit_report=16",
    "task.max_length=48",
    "prompt.tokens=6",
    "tuning.epochs=5",
    "tuning.batch_size=15",
    "tuning.evaluate_every=10",
    "tuning.patience=none",
    "tuning.best_by=loss",
    "selection.resamples=200",
)


class Half(Processes):
    """The first of two processes without the reduction: its own part of each batch is all it learns from."""

    def part(self, items: Sequence[T]) -> Sequence[T]:
        return items[::2] if isinstance(items[0], int) else items  # scores are of all examples


@pytest.fixture(scope="module")
def recipe(tiny_models: Callable[[str], Path]) -> Recipe:
    return resolve([*SETTINGS, f"backbone.name={tiny_models('gpt2')}"])


def launch(recipe: Path, out: Path) -> subprocess.Popen[str]:
    """The command as a user types it."""
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--cpu"]
    return subprocess.Popen(
        [*accelerate, "-m", "softprune", "run", str(recipe), "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "MASTER_ADDR")},
    )


def prompt_of(out: Path) -> torch.Tensor:
    return load_file(out / "prompts/tuned.safetensors")["vectors_PH"]


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def test_accelerate_ends_with_the_prompt_of_one_process_killed_or_not(
    forks: Forks, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, path = tmp_path / "two", tmp_path / "two.yaml"
    path.write_text(recipe.dump())
    killed = start_both(forks, [softprune.__main__.__file__, "run", path, "--out", out], tmp_path)
    killed[0].wait_for(out / "state" / "tune.partial.safetensors")
    for process in killed:
        process.kill()
    assert not (out / "COMPLETE").exists()
    going_on = launch(path, out)
    alone = xprompt.tune(recipe, tmp_path / "one")
    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "processes", Half())
        half = xprompt.tune(recipe, tmp_path / "half")
    told, _ = going_on.communicate()
    assert going_on.returncode == 0, told
    assert told.count("tuned prompt:") == 1, "one process tells"
    info = json.loads((out / "run.json").read_text())
    assert (info["processes"], info["cost"]["steps"], len(info["attempts"])) == (2, 20, 2)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20]
    assert lines[1]["select_loss"] < lines[0]["select_loss"], "the prompt compared is that of step 20"
    assert distance(prompt_of(out), prompt_of(alone)) <= TOLERANCE
    assert distance(prompt_of(half), prompt_of(alone)) > 100 * TOLERANCE


def start_both(forks: Forks, arguments: Sequence[object], folder: Path) -> list[Forked]:
    """A script as two processes that find each other."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port = str(asked.getsockname()[1])
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [forks.start(arguments, folder / f"rank{rank}.log", place | {"RANK": rank}) for rank in "01"]


def test_a_mistake_in_one_process_ends_all_with_one_message(forks: Forks, recipe: Recipe, tmp_path: Path) -> None:
    path, out = tmp_path / "recipe.yaml", tmp_path / "run"
    path.write_text(recipe.dump())
    processes = start_both(forks, [DRIVER, path, out], tmp_path)
    assert [process.wait() for process in processes] == [2, 2]
    told, other_told = (process.log.read_text() for process in processes)
    assert "expected: a whole disk\nfound:    a broken one (process 1)\ndo:       fix it\n" in told
    assert "Traceback" not in told
    assert "expected:" not in other_told
    info = json.loads((out / "run.json").read_text())
    assert info["status"] == "failed"
    assert "a broken one (process 1)" in info["error"]


TALK = """
import os, signal, torch
from softprune.errors import SoftpruneError
from softprune.runs.processes import join
group = join()
assert (group.broadcast(group.rank), group.gather(group.rank)) == (0, [0, 1])
assert group.ask_first(lambda: [group.rank]) == [0]
assert list(group.part([5, 6, 7])) == [[5, 7], [6]][group.rank]
tensor = torch.full((2, 3), 1.0 + group.rank).t()
group.sum_(tensor)
assert tensor.eq(3).all()
if group.rank:
    os.kill(os.getpid(), signal.SIGKILL)
try:
    group.gather(1)
except SoftpruneError as error:
    print(error, flush=True)
os._exit(0)  # gloo's threads now and then abort an ordinary end of a process whose peer is gone
"""


def test_a_process_that_is_gone_is_noticed(forks: Forks, tmp_path: Path) -> None:
    (tmp_path / "talk.py").write_text(TALK)
    first, other = start_both(forks, [tmp_path / "talk.py"], tmp_path)
    code, said = first.wait(), first.log.read_text()
    assert code == 0, said
    assert other.wait() == -signal.SIGKILL
    assert "expected: all 2 processes to go on to the end\nfound:    one of them ended without a word" in said
