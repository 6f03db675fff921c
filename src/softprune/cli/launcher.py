"""`accelerate launch --cpu --num_processes N` starts one process, unless MPI does; the others are started here."""

from __future__ import annotations

import atexit
import os
import re
import socket
import subprocess
import sys

import psutil

from softprune.errors import SoftpruneError
from softprune.runs.processes import SIZES

# How long the others may take to end after the first one.
_PATIENCE_S = 60.0


def start_others() -> None:
    """Start the processes that were asked of accelerate and that it left out; this one is the first.

    Raises:
        SoftpruneError: when it isn't known how many were asked for.
    """
    environment = os.environ
    # accelerate sets an address only for several processes.
    alone = not any(environment.get(name) for name in SIZES)
    if not (alone and "MASTER_ADDR" in environment and environment.get("ACCELERATE_USE_CPU", "").lower() == "true"):
        return
    asked = re.search(r"--num[_-]processes[= ](\d+)", _parent())
    if asked is None or re.search(r"--num[_-]machines[= ](?!1\b)", _parent()):
        raise SoftpruneError(
            "a launcher that starts all processes",
            "accelerate launch --cpu, which starts one a machine where mpirun isn't used",
            "give --num_processes N on its command line (one machine), or use torchrun --nproc-per-node N -m softprune",
        )
    with socket.socket() as free:  # a port that is free
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    size = int(asked[1])
    environment.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    command = [sys.executable, "-m", "softprune", *sys.argv[1:]]
    others = []
    for rank in range(1, size):
        others.append(subprocess.Popen(command, env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}))

    def end_others() -> None:
        for other in others:
            try:
                other.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                other.kill()

    atexit.register(end_others)


def _parent() -> str:
    """The command line of the process that started this one."""
    return " ".join(psutil.Process(os.getppid()).cmdline())
