"""Who starts the other processes where accelerate doesn't."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from typing import Any

import pytest

from softprune.cli import launcher
from softprune.errors import SoftpruneError
from softprune.runs import processes

BY_ACCELERATE = {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """What would be started, with what environment; what the fake command line above us says is two processes."""
    found: list[tuple[list[str], dict[str, str]]] = []

    class Process:
        def __init__(self, command: list[str], env: dict[str, str]) -> None:
            found.append((command, env))

    for name in (*processes.RANKS, *processes.SIZES, "LOCAL_RANK", *BY_ACCELERATE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(subprocess, "Popen", Process)
    monkeypatch.setattr(atexit, "register", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["softprune", "run", "demo"])
    monkeypatch.setattr(launcher, "_parent", lambda: "python accelerate launch --num_processes 3 --cpu -m softprune")
    return found


def test_those_that_accelerate_left_out_are_started(started: list[Any]) -> None:
    os.environ.update(BY_ACCELERATE)
    launcher.start_others()
    assert [command[1:] for command, _ in started] == [["-m", "softprune", "run", "demo"]] * 2
    assert [(e["RANK"], e["LOCAL_RANK"], e["WORLD_SIZE"]) for _, e in started] == [("1", "1", "3"), ("2", "2", "3")]
    assert len({os.environ["MASTER_PORT"], *(e["MASTER_PORT"] for _, e in started)}) == 1
    assert (processes.rank(), os.environ["WORLD_SIZE"]) == (0, "3")


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"ACCELERATE_USE_CPU": "True"},  # one process
        {"MASTER_ADDR": "there", "MASTER_PORT": "1"},  # no accelerate
        BY_ACCELERATE | {"ACCELERATE_USE_CPU": "False"},
        BY_ACCELERATE | {"RANK": "1", "WORLD_SIZE": "2"},  # torchrun
        BY_ACCELERATE | {"PMI_RANK": "0", "PMI_SIZE": "2"},  # mpirun
    ],
)
def test_nothing_is_started_otherwise(environment: dict[str, str], started: list[Any]) -> None:
    os.environ.update(environment)
    launcher.start_others()
    assert started == []


@pytest.mark.parametrize(
    "above", ["accelerate launch --cpu -m softprune", "accelerate launch --cpu --num_processes 4 --num_machines 2 -m x"]
)
def test_a_number_that_cannot_be_known_is_told(above: str, started: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    os.environ.update(BY_ACCELERATE)
    monkeypatch.setattr(launcher, "_parent", lambda: above)
    with pytest.raises(SoftpruneError, match="accelerate launch --cpu, which starts one a machine"):
        launcher.start_others()
    assert started == []


def test_the_process_above_is_found() -> None:
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
    shown = "from softprune.cli.launcher import _parent; print(_parent())"
    command = [sys.executable, "-c", program, shown, "--num_processes", "7"]
    assert "--num_processes 7" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("environment", "rank", "size"),
    [
        ({}, 0, 1),
        ({"RANK": "1"}, 0, 1),
        ({"RANK": "3", "WORLD_SIZE": "4"}, 3, 4),
        ({"PMI_RANK": "2", "PMI_SIZE": "8"}, 2, 8),
    ],
)
def test_rank_and_size_come_from_the_environment(
    environment: dict[str, str], rank: int, size: int, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    os.environ.update(environment)
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(processes, "_Group", lambda *given: made.append(given))
    monkeypatch.setattr(processes, "_joined", None)
    found = processes.join()
    assert processes.rank() == rank
    assert made == ([] if size == 1 else [(rank, size)])
    assert (found is processes.ALONE) == (size == 1)


def test_a_process_on_its_own_needs_no_other_package() -> None:
    program = """
import sys
from softprune.runs.processes import join
one = join()
assert (one.rank, one.size, one.part([1, 2]), one.broadcast(3), one.gather(4)) == (0, 1, [1, 2], 3, [4])
print(sorted({"torch", "accelerate"} & set(sys.modules)))
"""
    environment = {k: v for k, v in os.environ.items() if k not in processes.SIZES}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"
